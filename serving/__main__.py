"""Serve: ``python -m serving --policy churn --port 8400``."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from serving.settings import Settings, SettingsError

if TYPE_CHECKING:
    from tasks.policy import Policy

_KEEP_ALIVE = 75
"""Seconds that a connection may be idle: longer than clients and proxies keep one, so that they hang up first."""
_GRACE = 20
"""Seconds that requests under way have when the process is told to end."""
_CONNECTIONS = 1000
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Read when numpy is imported. Rows are answered side by side: more threads for one only wait for each other."""


def main(arguments: list[str]) -> int:
    """Serve until told to end; 2 when the settings, the address or the policies cannot be used."""
    options = vars(_parser().parse_args(arguments))
    policy = options.pop("policy")
    os.environ.update({name: "1" for name in _THREADS if name not in os.environ})
    from tasks.policy_file import PolicyError, load_many  # noqa: PLC0415  --help needs none of it

    problems = []
    try:
        settings = Settings.read(**options)
    except SettingsError as error:
        problems.append(str(error))
    else:
        problems += _unusable(settings.host, settings.port)
    try:
        policies = load_many(policy)
    except PolicyError as error:
        problems.append(str(error))
    if problems:
        sys.stderr.write("\n".join(problems) + "\n")
        return 2
    return _serve(policies, settings)


def _unusable(host: str, port: int) -> list[str]:
    """Why nobody could listen there, before models are loaded; what takes the port after this, uvicorn tells."""
    if not port:
        return []
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = f"cannot listen on {host}:{port} ({error.strerror})"
        return [f"{why}; end what does, or set another --port (PORT= of make, BACKSTOP_SERVING_PORT)"]
    return []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m serving", description="Answer for what the ledger has in Production.")
    parser.add_argument(
        "--policy", action="append", required=True, help="a path, a model name, a folder or a glob; may be repeated"
    )
    for entry in fields(Settings):
        if entry.name != "token":  # what stands on a command line, other users can read
            name, text = entry.name.replace("_", "-"), entry.metadata["text"]
            parser.add_argument(f"--{name}", help=f"{text} ({entry.default})".replace("%", "%%"))
    return parser


def _serve(policies: tuple[Policy, ...], settings: Settings) -> int:
    import uvicorn  # noqa: PLC0415  see main()

    from serving.app import create_app  # noqa: PLC0415  see main()
    from serving.gateway import Gateway  # noqa: PLC0415  see main()
    from serving.protocol import patient_for  # noqa: PLC0415  see main()
    from tasks.stores import Stores  # noqa: PLC0415  see main()

    app = create_app(Gateway(policies, Stores.from_environment(), settings))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=patient_for(settings.body_seconds),
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_CONNECTIONS,
        server_header=False,
    )
    uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
