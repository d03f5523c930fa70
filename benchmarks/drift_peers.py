"""Drift between two Parquet files by Backstop or a peer, in a process of its own, and what it cost.

``python -m benchmarks.drift_peers evidently reference.parquet recent.parquet [--numbers]`` prints one JSON line with
the processor seconds and the memory beyond what the rows themselves take, imports and reading left out: a small part of
the rows goes first. It needs nothing but the contender itself, since the peers live in environments of their own.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Numbers = dict[str, float]


def backstop(reference: pd.DataFrame, recent: pd.DataFrame, *, ks: bool = False) -> Numbers:
    """The reference described, the recent rows counted in its bins, every column judged, its schema too."""
    from tasks import upstream  # noqa: PLC0415  only where Backstop is asked
    from tasks.decide import drift  # noqa: PLC0415  see above
    from tasks.policy import DriftTrigger  # noqa: PLC0415  see above
    from tasks.profile import count, describe  # noqa: PLC0415  see above

    profile = describe(reference, ks=ks)
    counted = count(recent, profile)
    found = drift.judge_columns(profile, counted, DriftTrigger(ks=ks))
    upstream.changes(recent, profile, counted)
    # A column of identifiers has no index.
    said = {one.name: one.evidence.get("ks") if ks else one.value for one in found}
    return {name: float(value) for name, value in said.items() if value is not None}


def backstop_ks(reference: pd.DataFrame, recent: pd.DataFrame) -> Numbers:
    """The same with the Kolmogorov-Smirnov distance of every number."""
    return backstop(reference, recent, ks=True)


def evidently(reference: pd.DataFrame, recent: pd.DataFrame) -> Numbers:
    """Its preset for drift, with PSI for every column."""
    from evidently import Report  # noqa: PLC0415  only where it is asked
    from evidently.presets import DataDriftPreset  # noqa: PLC0415  see above

    report = Report([DataDriftPreset(method="psi")]).run(recent, reference)
    return {str(number): 0.0 for number, _ in enumerate(report.dict()["metrics"])}


def nannyml(reference: pd.DataFrame, recent: pd.DataFrame, method: str = "kolmogorov_smirnov") -> Numbers:
    """Its calculator for single columns, all recent rows as one chunk."""
    import nannyml as nml  # noqa: PLC0415  only where it is asked

    names = list(reference.columns)
    words = [name for name in names if not pd.api.types.is_numeric_dtype(reference[name].dtype)]
    numeric = "jensen_shannon" if method == "jensen_shannon" else "kolmogorov_smirnov"
    calculator = nml.UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=words,
        continuous_methods=[numeric],
        categorical_methods=["jensen_shannon"],
        chunk_number=1,
    )
    calculator.fit(reference)
    return dict.fromkeys(names, float(len(calculator.calculate(recent).to_df())))


def nannyml_js(reference: pd.DataFrame, recent: pd.DataFrame) -> Numbers:
    """Its default method: the Jensen-Shannon distance."""
    return nannyml(reference, recent, "jensen_shannon")


def alibi(reference: pd.DataFrame, recent: pd.DataFrame) -> Numbers:
    """Its Kolmogorov-Smirnov detector; numbers only."""
    from alibi_detect.cd import KSDrift  # noqa: PLC0415  only where it is asked

    found = KSDrift(reference.to_numpy(np.float64)).predict(recent.to_numpy(np.float64))
    return dict(zip(reference.columns, found["data"]["distance"].tolist(), strict=True))


def scipy(reference: pd.DataFrame, recent: pd.DataFrame) -> Numbers:
    """Its two-sample Kolmogorov-Smirnov test, column by column; numbers only, without nulls."""
    from scipy.stats import ks_2samp  # noqa: PLC0415  only where it is asked

    return {
        name: float(ks_2samp(reference[name].dropna().to_numpy(), recent[name].dropna().to_numpy()).statistic)
        for name in reference.columns
    }


CONTENDERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], Numbers]] = {
    "backstop": backstop,
    "backstop_ks": backstop_ks,
    "evidently": evidently,
    "nannyml": nannyml,
    "nannyml_js": nannyml_js,
    "alibi": alibi,
    "scipy": scipy,
}


def extra(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What a function gives, its processor seconds, and the bytes that the process grew by at most meanwhile."""
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak begins anew
    before, begun = _memory("VmRSS"), time.process_time()
    found = work()
    return found, time.process_time() - begun, _memory("VmHWM") - before


def _memory(name: str) -> int:
    told = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in told if line.startswith(f"{name}:"))


def streamed(reference: Path, recent: Path) -> Numbers:
    """Backstop again, with neither file ever in memory."""
    from tasks import streamed as files  # noqa: PLC0415  only where Backstop is asked
    from tasks.decide import drift  # noqa: PLC0415  see above
    from tasks.policy import DriftTrigger  # noqa: PLC0415  see above

    profile = files.describe(reference)
    found = drift.judge_columns(profile, files.count(recent, profile), DriftTrigger())
    return {one.name: float(one.value or 0.0) for one in found}


def main() -> None:
    """Measure one contender."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_peers", description=__doc__)
    parser.add_argument("contender", choices=[*sorted(CONTENDERS), "streamed"])
    parser.add_argument("reference", type=Path)
    parser.add_argument("recent", type=Path)
    parser.add_argument("--numbers", action="store_true", help="columns of numbers without nulls only")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.contender == "streamed":
        import tasks.decide.drift  # noqa: PLC0415  imports are not counted, as for the others
        import tasks.streamed  # noqa: F401, PLC0415  see above

        found, cpu, memory = extra(lambda: streamed(asked.reference, asked.recent))
        print(json.dumps({"cpu": cpu, "extra": memory, "columns": len(found), "found": found}))
        return
    tables = [pd.read_parquet(path) for path in (asked.reference, asked.recent)]
    if asked.numbers:
        names = [name for name in tables[0] if tables[0][name].dtype.kind in "fi" and tables[0][name].notna().all()]
        tables = [one[names].copy() for one in tables]
    contender = CONTENDERS[asked.contender]
    contender(*(one.head(2000).copy() for one in tables))
    found, cpu, memory = extra(lambda: contender(*tables))
    print(json.dumps({"cpu": cpu, "extra": memory, "columns": len(tables[0].columns), "found": found}))


if __name__ == "__main__":
    main()
