"""Documents: what the OpenAPI document says beside the addresses."""

from __future__ import annotations

from typing import Any

ABOUT = """Answers for what the ledger has in Production. `GET /models/{model}` says which columns a model takes.

Every error has the form `{"error": "...", "problems": [{"field": "...", "message": "..."}]}`."""

_TEXT = {"type": "string"}
_ID = {"type": "string", "minLength": 1, "maxLength": 128, "description": "The same for every repeat of a request."}
_KEY = {"type": "string", "minLength": 1, "maxLength": 128, "description": "The same key gets the same version."}
_FEATURES = {"type": "object", "description": "Every column of the model by its name."}
_OBJECT = {"type": "object"}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_PROBLEM = _closed(
    ["error", "problems"],
    error=_TEXT,
    problems=_list(_closed(["field", "message"], field=_TEXT, message=_TEXT)) | {"minItems": 0},
)
_BESIDE = {"model": _TEXT, "request_ids": _list(_ID), "keys": _list(_KEY), "params": _OBJECT}
_ROW = _closed(["features"], features=_FEATURES, request_id=_ID, key=_KEY)
_ASKED = {
    "oneOf": [
        _closed(["features"], features=_FEATURES, request_id=_ID, key=_KEY, model=_TEXT) | {"title": "One row"},
        _closed(["rows"], rows=_list(_ROW), model=_TEXT) | {"title": "Several rows"},
        _closed(
            ["dataframe_split"],
            dataframe_split=_closed(
                ["columns", "data"],
                columns=_list(_TEXT),
                data=_list({"type": "array", "items": {}}),
                index={"type": "array", "items": {}},
            ),
            **_BESIDE,
        ),
        _closed(["dataframe_records"], dataframe_records=_list(_OBJECT), **_BESIDE),
        _closed(["instances"], instances=_list(_OBJECT), **_BESIDE),
        _closed(["inputs"], inputs={"oneOf": [_list(_OBJECT), _OBJECT]}, **_BESIDE),
    ]
}
_LABEL = _closed(
    ["request_id", "label"],
    request_id=_ID,
    label={"oneOf": [_TEXT, {"type": "number"}, {"type": "boolean"}]},
    at={"type": "string", "format": "date-time", "description": "When it became known; empty: now."},
    model=_TEXT,
)
_LABELS = {"oneOf": [_LABEL, _closed(["labels"], labels=_list(_LABEL))]}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _answers(good: str, *statuses: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    words = {
        400: "No JSON, or not a request of HTTP",
        401: "The token is missing or wrong",
        404: "No such model here",
        408: "The body came too slowly",
        413: "Too many bytes or rows",
        415: "Not JSON",
        422: "Names the fields that are wrong",
        429: "Too often",
        500: "The model failed",
        503: "Nobody can answer now",
    }
    content = {"application/json": {"schema": _PROBLEM}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": good, "content": {"application/json": {"schema": _OBJECT}}}
    }
    return found | {one: {"description": words[one], "content": content} for one in statuses}


_USUAL = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503)
PREDICT: dict[str, Any] = {"openapi_extra": _body(_ASKED), "responses": _answers("The answers", *_USUAL)}
FEEDBACK: dict[str, Any] = {
    "openapi_extra": _body(_LABELS),
    "status_code": 202,
    "responses": _answers("Taken", *_USUAL, status=202),
}
MODEL: dict[str, Any] = {"responses": _answers("Columns and versions", 401, 404, 503)}
HEALTH: dict[str, Any] = {"responses": _answers("It does")}
READY: dict[str, Any] = {
    "responses": _answers("All models are served")
    | {503: {"description": "Some are not", "content": {"application/json": {"schema": _OBJECT}}}}
}
METRICS: dict[str, Any] = {"responses": {200: {"description": "The metrics", "content": {"text/plain": {}}}}}
