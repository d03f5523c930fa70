"""App: the gateway's addresses over HTTP. What takes longer than to read and write a request is done in threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from serving import documents
from serving.draft import Ask
from serving.front import Front
from serving.gateway import Gateway, ModelFailed, NothingServes
from serving.inputs import BadInput, Fault
from serving.limits import Rate, body_of, check_token

_log = logging.getLogger(__name__)

_TOGETHER = 64 << 10
"""Bytes of the requests that are answered together: a small one must not wait for a thousand rows of another."""


class Crowded(RuntimeError):
    """More requests wait than may."""


class Desktop:
    """What stands between a request over HTTP and the gateway: limits, threads, and errors in one form."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.settings = gateway.settings
        self.rate = Rate(gateway.settings.rate)
        self._pool = ThreadPoolExecutor(gateway.settings.workers, thread_name_prefix="score")
        self._waiting: deque[tuple[Ask, asyncio.Future[bytes]]] = deque()
        self._busy = 0
        self._labelling = 0

    async def answer(self, request: Request, work: Callable[[bytes], Awaitable[bytes]], status: int = 200) -> Response:
        """Do something with a body, and tell what came of it."""
        try:
            check_token(request.headers.get("authorization", ""), self.settings)
            self.rate.check(request.client.host if request.client else "")
            return _json(await work(await body_of(request, self.settings)), status)
        except Exception as error:  # noqa: BLE001  whatever is wrong in here, the client is told, and the process goes on
            return self.told(error, request.url.path)

    async def predict(self, body: bytes, model: str | None = None) -> bytes:
        """Answer a body: at once where that is quick, otherwise in a thread, together with others that wait.

        Raises:
            Crowded: When too many wait.
            Exception: As :meth:`serving.gateway.Gateway.predict`.
        """
        begun = time.perf_counter()
        if self.gateway.quick(len(body)):
            return self.gateway.predict(body, begun, model)
        self._see_room(len(self._waiting))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((Ask(body, begun, model), future))
        self._send_on()
        return await future

    async def feedback(self, body: bytes) -> bytes:
        """Take labels, in a thread.

        Raises:
            Crowded: When too many wait.
            Exception: As :meth:`serving.gateway.Gateway.feedback`.
        """
        self._see_room(self._labelling)
        self._labelling += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self.gateway.feedback, body)
        finally:
            self._labelling -= 1

    def told(self, error: Exception, path: str) -> Response:
        """What a client is told of an error; what it is to blame for is counted apart."""
        if isinstance(error, BadInput):
            self.gateway.metrics.refused.labels(error.kind).inc()
            return refusal(error)
        if isinstance(error, ClientDisconnect):
            self.gateway.metrics.refused.labels("gone").inc()
            return Response(status_code=400)
        if isinstance(error, NothingServes | Crowded):
            self.gateway.metrics.refused.labels("unavailable").inc()
            return problem(503, str(error), headers={"Retry-After": "1"})
        if isinstance(error, ModelFailed):
            return problem(500, str(error), [Fault(place, "the model failed on it") for place in error.places[:20]])
        _log.error("a request to %s failed in the gateway", path, exc_info=error)
        return problem(500, "the gateway failed; its log says why")

    def close(self) -> None:
        """Wait for what is being answered."""
        self._pool.shutdown(wait=True)

    def _see_room(self, waiting: int) -> None:
        if waiting >= self.settings.waiting:
            raise Crowded("too many requests wait for an answer; ask again in a second")

    def _send_on(self) -> None:
        """Give a thread that is free what waits, small requests together."""
        while self._waiting and self._busy < self.settings.workers:
            taken: list[tuple[Ask, asyncio.Future[bytes]]] = []
            size = 0
            while self._waiting and (not taken or (size + len(self._waiting[0][0].body) <= _TOGETHER)):
                taken.append(self._waiting.popleft())
                size += len(taken[-1][0].body)
            self._busy += 1
            task = asyncio.get_running_loop().run_in_executor(
                self._pool, self.gateway.predict_all, [ask for ask, _ in taken]
            )
            task.add_done_callback(partial(self._hand_out, [future for _, future in taken]))

    def _hand_out(self, futures: list[asyncio.Future[bytes]], task: asyncio.Future[list[bytes | Exception]]) -> None:
        self._busy -= 1
        error = task.exception()
        said: list[bytes | BaseException] = [error] * len(futures) if error else [*task.result()]
        for future, one in zip(futures, said, strict=True):
            if future.done():  # the client has gone
                continue
            if isinstance(one, BaseException):
                future.set_exception(one)
            else:
                future.set_result(one)
        self._send_on()


def create_app(gateway: Gateway) -> Front:
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
    return Front(app, desk)


def _answering(app: FastAPI, desk: Desktop) -> None:
    @app.post("/predict", **documents.PREDICT)
    async def predict(request: Request) -> Response:
        """Answer one row or several."""
        return await desk.answer(request, desk.predict)

    @app.post("/invocations", **documents.PREDICT)
    async def invocations(request: Request) -> Response:
        """The same, at the address of MLflow's own scoring server."""
        return await desk.answer(request, desk.predict)

    @app.post("/models/{model}/predict", **documents.PREDICT)
    async def predict_by(model: str, request: Request) -> Response:
        """The same, for a model that is named in the address."""
        return await desk.answer(request, partial(desk.predict, model=model))

    @app.post("/feedback", **documents.FEEDBACK)
    async def feedback(request: Request) -> Response:
        """Take labels, early or late, in any order, for known requests and unknown ones."""
        return await desk.answer(request, desk.feedback, 202)


def _telling(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/models/{model}", **documents.MODEL)
    async def model(model: str, request: Request) -> Response:
        """Which columns a model takes, and who answers."""
        try:
            check_token(request.headers.get("authorization", ""), gateway.settings)
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
