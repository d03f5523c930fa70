"""Everything that the flows need on one machine, started and ended together: `make up`, `make status`, `make down`.

A Prefect server, an MLflow server and a worker, under supervisord, which starts again what dies and ends exactly what
it started. Everything listens on 127.0.0.1 and keeps what lasts under ``BACKSTOP_HOME`` (``.backstop``).
"""
