"""Judgement: pure functions from records to records; no I/O, no Prefect, no MLflow."""
