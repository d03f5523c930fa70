"""A fresh process: load an artifact, answer its stored example, say in one line of JSON how it went.

Run as ``python -m tasks.fresh <options as JSON>``, with the folder as a line of standard input; see
:mod:`tasks.tryout`.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import scipy.special  # noqa: F401  skops looks for functions in all modules, in the order in which they came

from tasks import artifact, example


def attempt(folder: Path, *, trusted_types: tuple[str, ...], allow_pickle: bool) -> tuple[bool | None, str]:
    """Whether the model loads and answers as it did, and why; None when there is nothing to compare with."""
    start = time.perf_counter()
    try:
        model = artifact.load(folder, trusted_types=trusted_types, allow_pickle=allow_pickle)
    except Exception as error:  # noqa: BLE001  whatever loading raises is the answer
        return False, f"it does not load: {type(error).__name__}: {error}"
    loaded = time.perf_counter() - start
    try:
        difference = example.check(folder, model)
    except FileNotFoundError:
        return None, f"it loads, but the artifact holds no {example.FILE} to answer; train it with Backstop"
    except Exception as error:  # noqa: BLE001  whatever the model raises is the answer
        return False, f"it loads and does not answer: {type(error).__name__}: {error}"
    if difference:
        return False, f"it answers differently: {difference}"
    return True, f"loaded in {loaded:.1f} s in a fresh process and answered the stored rows as it did when trained"


def main(arguments: list[str]) -> int:
    """Print ``{"answers": true | false | null, "reason": "..."}`` as the last line."""
    options = json.loads(arguments[0])
    import skops.io  # noqa: F401, PLC0415  what every model needs, while the starter still looks for the files

    folder = sys.stdin.readline().strip()
    if not folder:
        return 0  # whoever started this has nothing to ask
    answers, reason = attempt(
        Path(folder), trusted_types=tuple(options["trusted_types"]), allow_pickle=bool(options["allow_pickle"])
    )
    sys.stdout.write("\n" + json.dumps({"answers": answers, "reason": reason}) + "\n")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.freeze()  # the starter waits for the end, and taking the modules apart is a third of a second of it
    sys.exit(code)
