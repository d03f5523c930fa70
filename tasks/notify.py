"""Notifications: every sink is tried, none can stop a transition, and no secret leaves through an error text."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

_NAME = re.compile(r"\$\{(\w+)\}")
_PATIENCE = 30.0  # seconds; apprise gives up on a silent server by itself after four
_WORDS = frozenset({"http", "https", "json", "xml", "form", "slack", "mailto", "mailtos", "file", "com", "org", "www"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What became of one notification at one sink.

    Attributes:
        sink: Masked: ``slack://***``, ``${SLACK_URL}``, ``file:/var/log/backstop.jsonl``.
        ok: The sink took it.
        error: Why not, without anything of the address; None when it did.
        hung: It did not answer at all.
    """

    sink: str
    ok: bool
    error: str | None = None
    hung: bool = False


def send(
    urls: tuple[str, ...],
    *,
    title: str,
    body: str,
    record: Callable[[Delivery], object] | None = None,
    block: Callable[[str, str, str], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Delivery, ...]:
    """Tell every sink; whatever goes wrong there is in the answer and is never raised.

    Args:
        urls: Apprise URLs, ``block:type/name`` for a block of Prefect's, or ``file:path`` for a file that gets one JSON
            line each time; ``${NAME}`` is taken from the environment now, not when the policy was read.
        title: One line.
        body: Plain text, may have several lines.
        record: Called with every delivery, in the order of ``urls``.
        block: Tells a block, see :class:`tasks.case.Case`; without it, no block can be told.
        environment: Where ``${NAME}`` is looked up.

    Returns:
        One delivery per URL, in their order.
    """
    if not urls:
        return ()
    # A thread per sink: a slow one does not keep the others waiting, and its exception comes back as a value.
    pool = ThreadPoolExecutor(max_workers=len(urls), thread_name_prefix="notify")
    tries = [pool.submit(_deliver, url, title, body, environment, block) for url in urls]
    deliveries: list[Delivery] = []
    for url, attempt in zip(urls, tries, strict=True):
        hung = False
        try:
            error = attempt.exception(timeout=_PATIENCE)
        except TimeoutError:
            hung, error = True, TimeoutError(f"no answer within {_PATIENCE:g} s")
        reason = None if error is None else _scrubbed(f"{error}" or type(error).__name__, url, environment)
        deliveries.append(Delivery(sink=mask(url), ok=error is None, error=reason, hung=hung))
    pool.shutdown(wait=False, cancel_futures=True)
    if record is not None:
        for delivery in deliveries:
            record(delivery)
    return tuple(deliveries)


def mask(url: str) -> str:
    """A sink as it may be shown: the scheme, or the name of the variable; a file or block by its name: no secrets."""
    if _NAME.fullmatch(url) or url.startswith(("file:", "block:")):
        return url
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://***" if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) else "***"


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``${NAME}`` filled in.

    Raises:
        ValueError: Names the variables that are not set.
    """
    if missing := [name for name in dict.fromkeys(_NAME.findall(text)) if not environment.get(name)]:
        raise ValueError(f"{', '.join(missing)} is not set; set it in the environment of the flows")
    return _NAME.sub(lambda match: environment[match[1]], text)


def _deliver(
    url: str,
    title: str,
    body: str,
    environment: Mapping[str, str],
    block: Callable[[str, str, str], None] | None,
) -> None:
    """Send to one sink.

    Raises:
        Exception: Whatever went wrong; the text may hold secrets still.
    """
    address = expand(url, environment)
    if address.startswith("block:"):
        if block is None:
            raise ValueError("a block of Prefect's can be told by a flow only; give an address instead")
        block(address.removeprefix("block:"), title, body)
    elif address.startswith("file:"):
        _append(Path(re.sub("^//", "", address.removeprefix("file:"))), title, body)
    else:
        _through_apprise(address, title, body)


def _append(path: Path, title: str, body: str) -> None:
    line = json.dumps({"at": datetime.now(UTC).isoformat(), "title": title, "body": body}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write of a file opened for appending: lines of two processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _through_apprise(address: str, title: str, body: str) -> None:
    import apprise  # noqa: PLC0415  half a second that the quiet path must not pay

    with Heard() as heard:
        sink = apprise.Apprise.instantiate(address)
        if sink is None:
            raise ValueError(f"is no address that apprise knows; look it up at appriseit.com ({heard})")
        if not sink.notify(body=body, title=title):
            raise ConnectionError(str(heard) or "the sink refused it and gave no reason")


class Heard(logging.Filter):
    """What apprise logs in this thread, and in those that join: its only account of what went wrong.

    Its lines, and those of its HTTP client, hold whole addresses. They end here, to be scrubbed, and reach no handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = {threading.get_ident()}
        self._lines: list[str] = []
        self._loggers = tuple(logging.getLogger(name) for name in ("apprise", "urllib3.connectionpool"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep warnings, and let nothing through."""
        if record.thread not in self._threads:
            return True
        if record.levelno >= logging.WARNING:
            self._lines.append(" ".join(record.getMessage().split()))
        return False

    def join(self) -> None:
        """Hear the calling thread too."""
        self._threads.add(threading.get_ident())

    def __enter__(self) -> Self:
        for logger in self._loggers:
            logger.addFilter(self)
        return self

    def __exit__(self, *exception: object) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)

    def __str__(self) -> str:
        return " ".join(dict.fromkeys(self._lines))


def _scrubbed(text: str, url: str, environment: Mapping[str, str]) -> str:
    """A text without any piece of the address: whole, by parts, and as it reads when it is unquoted."""
    known = _NAME.sub(lambda match: environment.get(match[1], ""), url)
    if known.startswith(("file:", "block:")) and known == url:
        return text
    scheme = known.partition("://")[0].lower() if "://" in known else ""
    written = (known, unquote(known), quote(known))
    pieces = {*written, *(piece for form in written for piece in re.split(r"[/:@?&=#,;\s]+", form))}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) > 2 and piece.lower() not in _WORDS | {scheme}:
            text = re.sub(re.escape(piece), "***", text, flags=re.IGNORECASE)
    return text
