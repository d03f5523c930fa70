"""App: the gateway's addresses over HTTP. Scoring takes place in threads; the event loop only reads and writes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from serving import documents
from serving.gateway import Gateway, ModelFailed, NothingServes
from serving.inputs import BadInput, Fault
from serving.limits import Rate, body_of, check_token

_log = logging.getLogger(__name__)


class Crowded(RuntimeError):
    """More requests wait than may."""


class Desktop:
    """What stands between a request over HTTP and the gateway: limits, threads, and errors in one form."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._settings = gateway.settings
        self._rate = Rate(gateway.settings.rate)
        self._pool = ThreadPoolExecutor(gateway.settings.workers, thread_name_prefix="score")
        self._waiting = 0

    async def answer(self, request: Request, work: Callable[[bytes, float], bytes], status: int = 200) -> Response:
        """Do something with a body in a thread, and tell what came of it."""
        try:
            check_token(request, self._settings)
            self._rate.check(request.client.host if request.client else "")
            body = await body_of(request, self._settings)
            return _json(await self._in_thread(work, body), status)
        except BadInput as error:
            self.gateway.metrics.refused.labels(error.kind).inc()
            return refusal(error)
        except ClientDisconnect:
            self.gateway.metrics.refused.labels("gone").inc()
            return Response(status_code=400)
        except (NothingServes, Crowded) as error:
            self.gateway.metrics.refused.labels("unavailable").inc()
            return problem(503, str(error), headers={"Retry-After": "1"})
        except ModelFailed as error:
            return problem(500, str(error), [Fault(place, "the model failed on it") for place in error.places[:20]])
        except Exception:  # noqa: BLE001  whatever is wrong in here, the client is told, and the process goes on
            _log.exception("a request to %s failed in the gateway", request.url.path)
            return problem(500, "the gateway failed; its log says why")

    async def _in_thread(self, work: Callable[[bytes, float], bytes], body: bytes) -> bytes:
        begun = time.perf_counter()
        if self._waiting >= self._settings.waiting + self._settings.workers:
            raise Crowded("too many requests wait for an answer; ask again in a second")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, body, begun)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for what is being answered."""
        self._pool.shutdown(wait=True)


def create_app(gateway: Gateway) -> FastAPI:
    """The gateway over HTTP. It begins to follow the ledger when the app starts, and ends in order when it stops."""
    desk = Desktop(gateway)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gateway.start()
        yield
        desk.close()
        await asyncio.to_thread(gateway.stop)

    app = FastAPI(title="Backstop gateway", description=documents.ABOUT, version="1", lifespan=lifespan)
    _answering(app, desk)
    _telling(app, gateway)
    return app


def _answering(app: FastAPI, desk: Desktop) -> None:
    gateway = desk.gateway

    @app.post("/predict", **documents.PREDICT)
    async def predict(request: Request) -> Response:
        """Answer one row or several."""
        return await desk.answer(request, gateway.predict)

    @app.post("/invocations", **documents.PREDICT)
    async def invocations(request: Request) -> Response:
        """The same, at the address of MLflow's own scoring server."""
        return await desk.answer(request, gateway.predict)

    @app.post("/models/{model}/predict", **documents.PREDICT)
    async def predict_by(model: str, request: Request) -> Response:
        """The same, for a model that is named in the address."""
        return await desk.answer(request, lambda body, begun: gateway.predict(body, begun, model))

    @app.post("/feedback", **documents.FEEDBACK)
    async def feedback(request: Request) -> Response:
        """Take labels, early or late, in any order, for known requests and unknown ones."""
        return await desk.answer(request, lambda body, _: gateway.feedback(body), 202)


def _telling(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/models/{model}", **documents.MODEL)
    async def model(model: str, request: Request) -> Response:
        """Which columns a model takes, and who answers."""
        try:
            check_token(request, gateway.settings)
            return _json(orjson.dumps(gateway.described(model)))
        except BadInput as error:
            return refusal(error)
        except NothingServes as error:
            return problem(503, str(error), headers={"Retry-After": "1"})

    @app.get("/healthz", **documents.HEALTH)
    async def healthz() -> Response:
        """Whether the process answers."""
        return _json(b'{"status":"alive"}')

    @app.get("/readyz", **documents.READY)
    async def readyz() -> Response:
        """Whether every model can be answered for, and everything that is not as it should be."""
        ready, told = gateway.readiness()
        return _json(orjson.dumps(told), 200 if ready else 503)

    @app.get("/metrics", **documents.METRICS)
    async def metrics() -> Response:
        """As Prometheus reads them."""
        text = await asyncio.to_thread(gateway.metrics.text)  # it counts the lines of the spool
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def problem(
    status: int, message: str, faults: list[Fault] | None = None, headers: dict[str, str] | None = None
) -> Response:
    """An error, in the one form that all have."""
    listed: list[dict[str, Any]] = [{"field": fault.field, "message": fault.message} for fault in faults or []]
    return _json(orjson.dumps({"error": message, "problems": listed}), status, headers)


def refusal(error: BadInput) -> Response:
    """What a client did wrong."""
    more = error.found - len(error.faults)
    message = f"{error.found} problem{'s' * (error.found != 1)} in the request" + (
        f", {more} not shown" if more else ""
    )
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 408: {"Connection": "close"}}
    return problem(error.status, message, list(error.faults), headers.get(error.status))
