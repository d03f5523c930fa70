"""One question over HTTP: answered in time, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tasks.exchange import NoReply, ask, place


@contextmanager
def speaking(said: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says this to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    client.settimeout(10)
                    try:
                        client.recv(65536)
                        said(client)
                    except OSError:
                        pass  # the client has hung up
        except OSError:
            pass  # the end of the test

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def says(*parts: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def said(client: socket.socket) -> None:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)

    return said


def hangs(client: socket.socket) -> None:
    client.settimeout(60)
    client.recv(1)  # nothing comes until the client hangs up


def test_an_answer_is_given_as_it_came() -> None:
    with speaking(says(b"HTTP/1.1 418 x\r\nContent-Length: 2\r\n\r\nhi")) as url:
        reply = ask("GET", f"{url}/a?b=c", seconds=5)
    assert (reply.status, reply.body) == (418, b"hi")


def test_name_and_password_are_sent_and_not_shown() -> None:
    got: list[bytes] = []

    def said(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n")

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            got.append(client.recv(65536))
            said(client)

    thread = threading.Thread(target=serve)
    thread.start()
    ask("GET", f"http://ada:s%40cret@127.0.0.1:{listener.getsockname()[1]}/", seconds=5)
    thread.join(10)
    listener.close()
    assert b"Authorization: Basic YWRhOnNAY3JldA==" in got[0]
    assert place("https://ada:secret@host:1/p/?token=x") == "https://host:1/p"


HEAD = b"HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        says(HEAD, *[b"x"] * 1000, pause=0.05),
        says(*[bytes([one]) for one in HEAD[:-2] + b"X-Pad: " + b"x" * 500], pause=0.1),
        hangs,
        says(b"HTTP/1.1 200 x\r\n\r\n", *[b"x"] * 1000, pause=0.05),
    ],
    ids=["a body byte by byte", "a head byte by byte", "nothing", "a body without a length"],
)
def test_a_slow_server_costs_the_deadline_and_no_more(said: Callable[[socket.socket], None]) -> None:
    with speaking(said) as url:
        begun = time.monotonic()
        with pytest.raises(NoReply, match=r"no whole answer within 0\.5 s"):
            ask("GET", url, seconds=0.5)
        assert time.monotonic() - begun < 25


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (says(b""), "RemoteDisconnected"),
        (says(b"rubbish\r\n\r\n"), "BadStatusLine"),
        (says(HEAD + b"x"), "999 bytes too early"),
    ],
)
def test_no_http_is_no_reply(said: Callable[[socket.socket], None], word: str) -> None:
    with speaking(said) as url, pytest.raises(NoReply, match=word):
        ask("GET", url, seconds=5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://host", "http://host:port", "http://", "nothing"])
def test_an_address_that_leads_nowhere_is_told(url: str) -> None:
    with pytest.raises(NoReply):
        ask("GET", url, seconds=2)
