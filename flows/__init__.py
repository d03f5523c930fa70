"""What Prefect runs: one file, one flow, one sentence of what happens."""

import atexit
import gc
import os

# Most of what a flow run holds are the modules that it has imported, which never become garbage. Looking through all of
# them, as Python does whenever there are a quarter more, cost a retraining a second; the young are looked at as before.
gc.set_threshold(*gc.get_threshold()[:2], 1000)
# For the same reason taking them apart at the end of a process takes a quarter of a second, a tenth of a run that finds
# nothing to do. The system takes all of it back at once; what was to be closed is closed before.
atexit.register(gc.freeze)
# The embedded Prefect server needs more than its default of 20 s on a small machine; whoever set it, wins.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# A tool that guards production does not phone home unless it is told to.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
