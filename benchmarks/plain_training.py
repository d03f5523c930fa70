"""The scikit-learn work of one retraining as a plain script, without a product around it.

``python -m benchmarks.plain_training prepare FOLDER [--rows N]`` makes a home with customers in a database, a policy
and a first version in Production; ``train FOLDER`` reads the same rows, fits the same estimator, lets it and the last
model score the holdout, times a thousand single rows and saves the model.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

ROWS, TREES = 60_000, 300
ESTIMATOR = {
    "estimator": "sklearn.ensemble:RandomForestClassifier",
    "params": {"n_estimators": TREES, "min_samples_leaf": 5},
}
_HOLDOUT, _CALLS, _WARMUP = 0.2, 1_000, 20


def prepare(folder: Path, rows: int) -> None:
    """The home, with Production trained as the policy says."""
    import yaml  # noqa: PLC0415  not the script's

    from benchmarks import quiet_home  # noqa: PLC0415  see above

    home = quiet_home.make(folder, models=0, rows=rows)
    policy = yaml.safe_load(home.policy.read_text("utf-8"))
    policy["training"] = ESTIMATOR
    policy["gate"] = {"performance": {"at_least": 0.6}, "latency": {"p99": "10s", "calls": _CALLS}}
    home.policy.write_text(yaml.safe_dump(policy, sort_keys=False), "utf-8")


def train(folder: Path) -> None:
    """What the estimator and the models have to do, and no more."""
    import joblib  # noqa: PLC0415  the script's imports are measured, the preparation's are not
    import numpy as np  # noqa: PLC0415  see above
    import pandas as pd  # noqa: PLC0415  see above
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415  see above
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  see above
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  see above
    from sklearn.metrics import accuracy_score, f1_score  # noqa: PLC0415  see above
    from sklearn.pipeline import Pipeline, make_pipeline  # noqa: PLC0415  see above
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415  see above
    from sqlalchemy import create_engine  # noqa: PLC0415  see above

    rows = pd.read_sql(
        "SELECT * FROM customers ORDER BY observed_at", create_engine(f"sqlite:///{folder}/customers.db")
    )
    truth = rows.pop("churned").to_numpy()
    rows = rows.drop(columns=["customer_id", "observed_at"])
    numbers = [name for name in rows if pd.api.types.is_numeric_dtype(rows[name])]
    words = [name for name in rows if name not in numbers]
    codes = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False))
    steps = ColumnTransformer(
        [
            ("numbers", "passthrough", numbers),
            ("words", codes, words),
        ]
    )
    cut = int(len(rows) * (1 - _HOLDOUT))
    newer, held = rows.iloc[cut:], truth[cut:]
    last = folder / "last.joblib"
    before = joblib.load(last) if last.exists() else None
    model = Pipeline([("columns", steps), ("model", RandomForestClassifier(**ESTIMATOR["params"]))])  # type: ignore[arg-type]
    model.fit(rows.iloc[:cut], truth[:cut])
    for one in (model, before or model):
        answers = model.classes_[np.argmax(one.predict_proba(newer), axis=1)]
        print(accuracy_score(held, answers), f1_score(held, answers, average="weighted"))
    singles = [newer.iloc[[place]] for place in range(200)]
    for call in range(_CALLS + _WARMUP):
        start = time.perf_counter()
        model.predict(singles[call % 200])
        taken = time.perf_counter() - start
    print(taken)
    joblib.dump(model, last)


def main() -> None:
    """Prepare, or train."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.plain_training")
    asked.add_argument("what", choices=("prepare", "train"))
    asked.add_argument("folder", type=Path)
    asked.add_argument("--rows", type=int, default=ROWS)
    given = asked.parse_args()
    os.environ["BACKSTOP_HOME"] = str(given.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
        if given.what == "prepare":
            prepare(given.folder.resolve(), given.rows)
        else:
            train(given.folder.resolve())


if __name__ == "__main__":
    main()
