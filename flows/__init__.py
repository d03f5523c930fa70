"""What Prefect runs: one file, one flow, one sentence of what happens."""

import os

# The embedded Prefect server needs more than its default of 20 s on a small machine; whoever set it, wins.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# A tool that guards production does not phone home unless it is told to.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
