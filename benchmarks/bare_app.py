"""The least that answers over HTTP: a Starlette app that calls ``predict`` on numpy. It checks and records nothing.

``MODEL=<folder of an artifact> python -m uvicorn benchmarks.bare_app:app``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tasks import artifact

_model = artifact.load(Path(os.environ["MODEL"]))
_numbers = _model.named_steps["prepare"].named_transformers_["numbers"]
_scale = dict(getattr(_numbers, "steps", ())).get("scale")  # a forest takes the numbers as they are
_names = [str(name) for name in _model.named_steps["prepare"].transformers_[0][2]]
_last = _model[-1]


async def predict(request: Request) -> JSONResponse:
    """One row in, one answer out."""
    row = (await request.json())["features"]
    values = np.array([[row[name] for name in _names]])
    if _scale is not None:
        values = (values - _scale.mean_) / _scale.scale_
    return JSONResponse({"prediction": str(_last.predict(values)[0])})


async def healthz(_: Request) -> JSONResponse:
    """It answers."""
    return JSONResponse({"status": "alive"})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/healthz", healthz)])
