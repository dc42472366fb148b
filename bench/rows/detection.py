"""Anomaly detection against peers: ADBench's protocol, the same without copies, and PyOD's.

Methods are given training and test rows; labels stay with the judge.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sources
from methods import detectors
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from trials import Arrays, Entry, Rows, Settings, Trial

METHODS = ("twofold", *detectors.PEERS, "scikit-learn IForest")
ABLATED = ("twofold", *detectors.ABLATIONS, "probabilistic PCA")
LEAST, MOST = 1_000, 10_000  # rows that ADBench's protocol brings every set between
QUICK_SETS = 3


def adbench_trials(settings: Settings) -> list[Trial]:
    return _trials("adbench", METHODS, settings, 5, adbench_rows)


def adbench_clean_trials(settings: Settings) -> list[Trial]:
    make = partial(adbench_rows, with_copies=False)
    return _trials("adbench-clean", METHODS, settings, 3, make)


def ablation_trials(settings: Settings) -> list[Trial]:
    return _trials("ablation", ABLATED, settings, 2, adbench_rows)


def odds_trials(settings: Settings) -> list[Trial]:
    return _trials("odds", METHODS, settings, 3, odds_rows, ("odds", "*.mat"), first_seed=0)


def _trials(
    row: str,
    methods: tuple[str, ...],
    settings: Settings,
    n_seeds: int,
    make: Any,
    where: tuple[str, str] = ("adbench", "*.npz"),
    first_seed: int = 1,  # ADBench's own seeds are 1, 2, 3
) -> list[Trial]:
    paths = sources.files(*where)
    if settings.quick:
        paths = paths[:QUICK_SETS]
    seeds = range(first_seed, first_seed + settings.count(n_seeds))
    return [
        Trial(row, path.stem, seed, "detector", methods, partial(make, path, seed), judge)
        for seed in seeds
        for path in paths
    ]


def adbench_rows(path: Path, seed: int, with_copies: bool = True) -> Rows:
    """Prepare a set as ADBench does (Han et al., 2022, "ADBench", its DataGenerator).

    Sets under 1,000 rows are drawn up to 1,000 with replacement, those over 10,000 down to 10,000;
    30 % of the rows, in each class, are the test; columns are scaled to [0, 1] by the training
    rows, among which anomalies stay. Numbers are drawn in the order in which ADBench draws them, so
    a seed gives its very rows. Drawing with replacement puts copies of test rows into the training
    rows; `with_copies=False` leaves small sets as they are.
    """
    x, y = sources.labelled(path)
    facts = _facts(x, y)
    rng = np.random.RandomState(seed)
    if with_copies and len(y) < LEAST:
        at = rng.choice(np.arange(len(y)), LEAST, replace=True)
        x, y = x[at], y[at]
    elif len(y) > MOST:
        at = rng.choice(np.arange(len(y)), MOST, replace=False)
        x, y = x[at], y[at]
    train, test, _, labels = train_test_split(
        x, y, test_size=0.3, shuffle=True, stratify=y, random_state=rng
    )
    scaler = MinMaxScaler().fit(train)
    given = {"train": scaler.transform(train), "test": scaler.transform(test)}
    return Rows(given, {"labels": labels}, facts)


def odds_rows(path: Path, seed: int) -> Rows:
    """Prepare a set as PyOD's benchmark does (its notebooks/benchmark.py).

    A random 40 % of the rows are the test; columns are standardised by the training rows, as
    `pyod.utils.utility.standardizer` does it.
    """
    x, y = sources.labelled(path)
    train, test, _, labels = train_test_split(
        x, y, test_size=0.4, random_state=np.random.RandomState(seed)
    )
    scaler = StandardScaler().fit(train)
    given = {"train": scaler.transform(train), "test": scaler.transform(test)}
    return Rows(given, {"labels": labels}, _facts(x, y))


def _facts(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {"rows": len(x), "columns": x.shape[1], "anomalies": float(np.mean(y))}


def judge(answer: Arrays, rows: Rows) -> dict[str, float]:
    """Return the area under the ROC curve, and average precision."""
    labels, scores = rows.kept["labels"], answer["scores"]
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.sum(~np.isfinite(scores))} scores are no finite numbers")
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
    }


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Return figures per set and, per method, means over the sets and their spread over seeds.

    The spread is the standard deviation over seeds of the mean over sets. Sets on which a method
    failed under any seed are left out of its means and named.
    """
    sets: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    for entry in entries:
        found = sets.setdefault(entry["set"], {"methods": {}})
        found |= entry.get("facts", {})
        figures = found["methods"].setdefault(entry["method"], {"auroc": [], "ap": []})
        for name in ("auroc", "ap"):
            figures[name].append(entry["result"][name] if "result" in entry else None)
        method = methods.setdefault(entry["method"], {"seconds": 0.0, "failed": {}})
        method["seconds"] += entry.get("seconds", 0.0)
        if "failed" in entry:
            method["failed"][entry["set"]] = entry["failed"]
    for name, method in methods.items():
        whole = [s["methods"][name] for key, s in sets.items() if key not in method["failed"]]
        method["n_sets"] = len(whole)
        for figure in ("auroc", "ap"):
            means = [
                statistics.mean(part) for part in zip(*(s[figure] for s in whole), strict=True)
            ]
            method[figure] = statistics.mean(means) if means else None
            method[f"{figure}_spread"] = statistics.stdev(means) if len(means) > 1 else None
        method["seeds"] = max((len(s["auroc"]) for s in whole), default=0)
    return {"sets": dict(sorted(sets.items())), "methods": methods}
