"""The figures in docs/decisions-proven.md, from what the proofs printed: ``python -m benchmarks.proven_page FOLDER``.

``make prove`` leaves one file per proof in the folder. A proof that did not come to its end is named, without figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.proof import last

PAGE = Path(__file__).resolve().parent.parent / "docs" / "decisions-proven.md"
MARK = "<!-- What follows is written by `make prove`. -->"
PROOFS = (
    *("sequential", "gate_power", "shadow_power", "drift_null", "drift_power", "delayed_labels", "shared_cause"),
    *("backtest_year", "scenarios"),
)


def page(text: str, folder: Path) -> str:
    """The page with new figures.

    Args:
        text: The page; what stands above the mark is kept.
        folder: With ``<proof>.txt`` of each proof.
    """
    printed = {name: _printed(folder / f"{name}.txt") for name in PROOFS}
    missing = [name for name, found in printed.items() if not found]
    figures = "Held against the limit is the bound; `SHORT` is a promise that is not kept."
    if missing:
        figures += f" Not run to the end here: {', '.join(missing)}."
    parts = [text.partition(MARK)[0] + MARK, "## What came out", figures]
    parts += [f"### `{name}`\n\n```\n{printed[name]}\n```" for name in PROOFS[:-1] if printed[name]]
    if printed["scenarios"]:
        parts.append(printed["scenarios"].split("\nrolled back: ")[0].strip())
    return "\n\n".join(parts) + "\n"


def _printed(path: Path) -> str:
    """What a proof printed, or nothing when it has not come to its last line."""
    text = path.read_text("utf-8").strip() if path.is_file() else ""
    return text if last(text) else ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8"), Path(sys.argv[1])), "utf-8")
