"""Mailboxes: real servers that take what Backstop sends: a web hook and an SMTP server."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Inbox(ThreadingHTTPServer):
    """A web hook; ``status`` is what it answers."""

    status = 200
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.received: list[dict[str, object]] = []
        self.paths: list[str] = []


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Inbox)
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


class Mail(socketserver.ThreadingTCPServer):
    """An SMTP server that wants a name and a password."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.received: list[EmailMessage] = []
        self.logins: list[str] = []

    @property
    def server_port(self) -> int:
        return int(self.server_address[1])


class Talk(socketserver.StreamRequestHandler):
    """One connection, as far as RFC 5321 is needed to deliver."""

    def handle(self) -> None:
        assert isinstance(self.server, Mail)
        self._say("220 here")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            if verb.upper() == "EHLO":
                self._say("250-here\r\n250 AUTH PLAIN")
            elif verb.upper() == "AUTH":
                self.server.logins.append(base64.b64decode(rest.split()[-1]).decode().strip("\0"))
                self._say("235 come in")
            elif verb.upper() == "DATA":
                self._say("354 go on")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.received.append(message_from_bytes(text, policy=policy.default))
                self._say("250 kept")
            elif verb.upper() == "QUIT":
                return self._say("221 bye")
            else:
                self._say("250 fine")
        return None

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def listening(server: Inbox | Mail) -> Iterator[None]:
    """The server, taking what comes until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
