"""The results of the quality bench as the Markdown tables that the documentation holds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]
DETECTION = {
    "adbench": "ADBench's protocol",
    "adbench-clean": "without copies",
    "odds": "ODDS, PyOD's protocol",
}
# Han et al., 2022, "ADBench", table D4: mean over the sets of this bench.
PUBLISHED_IFOREST = 0.7937


def markdown(result: Result) -> str:
    """Return every table that the results allow, each under its title."""
    parts = [f"### {title}\n\n{make(result)}" for title, (make, _) in TABLES.items()]
    return "\n\n".join(parts) + "\n"


def table(title: str) -> Callable[[Result], str]:
    """Return what makes the table called `title`."""
    return TABLES[title][0]


def available(result: Result, title: str) -> bool:
    """Whether any row that the table shows was measured."""
    return any(_row(result, name) for name in TABLES[title][1])


def measured_on(result: Result) -> str:
    if "machine" not in result:
        return "Not measured yet."
    versions = result["versions"]
    where = {_where(result, row) for row in result["rows"].values()} or {_where(result, {})}
    rows = result["rows"].values()
    where |= {_day(row["peers_measured"]) for row in rows if "peers_measured" in row}
    named = {
        "twofold": "twofold",
        "torch": "PyTorch",
        "scikit-learn": "scikit-learn",
        "pyod": "PyOD",
    }
    listed = ", ".join(f"{title} {versions[name]}" for name, title in named.items())
    quick = "**A quick run: these figures only show that everything runs.** " * result["quick"]
    return (
        f"{quick}Measured with {listed} on {result['machine']['cores_used']} cores "
        f"({'; '.join(sorted(where))}); `make quality` measures all of it again."
    )


def _where(result: Result, row: Result) -> str:
    """Return on what a row was measured, and when: with all others, or on a day of its own."""
    usual = {"processor": result["machine"]["processor"], "made": result["made"]}
    return _day(row.get("measured", usual))


def _day(measured: Result) -> str:
    return f"{measured['processor']}, {measured['made'][:10]}"


def detection(result: Result) -> str:
    """Means over sets, per method and protocol."""
    rows = {name: row for name in DETECTION if (row := _row(result, name))}
    if not rows:
        return _absent(result, *DETECTION)
    heads, lines = ["method"], []
    for name in rows:
        heads += [f"{DETECTION[name]}: AUROC", "average precision"]
    names = list(dict.fromkeys(method for row in rows.values() for method in row["methods"]))
    for method in names:
        cells = [_bold(method)]
        for row in rows.values():
            found = row["methods"].get(method)
            mark = "" if found is None or not found["failed"] else " †"
            cells += [_spread(found, figure) + mark for figure in ("auroc", "ap")]
        lines.append(cells)
    said = [_detection_words(rows)]
    for name, row in rows.items():
        for method, found in row["methods"].items():
            if found["failed"]:
                sets = ", ".join(re.sub(r"^\d+_", "", failed) for failed in found["failed"])
                said.append(
                    f"- † {method} failed on {len(found['failed'])} of the sets ({sets}; "
                    f"{DETECTION[name]}), which its means leave out. "
                    + _same_sets(row, method, DETECTION[name])
                )
    return _table(heads, lines) + "\n\n" + said[0] + "\n\n" + "\n".join(said[1:])


def _same_sets(row: Result, method: str, protocol: str) -> str:
    """Return what twofold's means are on the sets that another method's are of."""
    failed = row["methods"][method]["failed"]
    sets = [found["methods"]["twofold"] for key, found in row["sets"].items() if key not in failed]
    auroc, ap = (
        statistics.mean(mean for one in sets if (mean := _mean(one[figure])) is not None)
        for figure in ("auroc", "ap")
    )
    return (
        f"On the {len(sets)} sets that {method} has means of ({protocol}), twofold's are "
        f"{auroc:.3f} and {ap:.3f}."
    )


def _detection_words(rows: Result) -> str:
    parts = []
    for name, row in rows.items():
        seeds = max(found["seeds"] for found in row["methods"].values())
        parts.append(f"{DETECTION[name]}: {len(row['sets'])} sets, {seeds} seeds")
    words = f"Means over sets and seeds, ± the standard deviation over seeds ({'; '.join(parts)})."
    if "adbench" in rows and len(rows["adbench"]["sets"]) == 24:
        words += f" ADBench's own figure for IForest on these 24 sets is {PUBLISHED_IFOREST:.3f}."
    others = {
        row["peers_measured"]["made"][:10] for row in rows.values() if "peers_measured" in row
    }
    if others:
        own = max(row["measured"]["made"][:10] for row in rows.values() if "measured" in row)
        words += f" twofold's rows are of {own}, the others, of the same data, of {max(others)}."
    return words


def per_set(name: str) -> Callable[[Result], str]:
    """AUROC of every method on every set of one protocol, the best in bold."""

    def make(result: Result) -> str:
        row = _row(result, name)
        if not row:
            return _absent(result, name)
        methods = list(row["methods"])
        lines = []
        for key, found in row["sets"].items():
            means = [_mean(found["methods"][method]["auroc"]) for method in methods]
            best = max((round(m, 3) for m in means if m is not None), default=None)
            cells = [
                "failed" if m is None else f"**{m:.3f}**" if round(m, 3) == best else f"{m:.3f}"
                for m in means
            ]
            facts = [f"{found['rows']:,}", str(found["columns"]), f"{found['anomalies']:.1%}"]
            lines.append([key.partition("_")[2] or key, *facts, *cells])
        return _table(["set", "rows", "columns", "anomalies", *methods], lines)

    return make


def ablation(result: Result) -> str:
    row = _row(result, "ablation")
    if not row:
        return _absent(result, "ablation")
    lines = [
        [_bold(method), _spread(found, "auroc"), _spread(found, "ap")]
        for method, found in row["methods"].items()
    ]
    words = f"ADBench's protocol, {len(row['sets'])} sets, {_seeds(row)} seeds."
    return _table(["scored by", "AUROC", "average precision"], lines) + "\n\n" + words


def false_alarms(result: Result) -> str:
    row = _row(result, "false-alarms")
    if not row:
        return _absent(result, "false-alarms")
    lines, said = [], []
    for name, found in row["tables"].items():
        title = name.partition("_")[2] or name
        if found["failures"]:
            tried = found["failures"] + found["repetitions"]
            said.append(
                f"{title}: {found['failures']} of {tried} repetitions failed ({found['failed']}) "
                f"and are not in the shares."
            )
        if not found["repetitions"]:
            lines.append([title, "failed"])
            continue
        facts = [str(found["columns"]), f"{found['train']:,}", f"{found['fresh']:,}"]
        lines.append([title, *facts, *map(_interval, found["shares"].values())])
    heads = ["table", "columns", "trained on", "fresh rows"]
    heads += ["p ≤ 1 %", "p ≤ 5 %", "p ≤ 10 %", "`predict` says -1"]
    n = max(found["repetitions"] for found in row["tables"].values())
    words = (
        f"Share of fresh normal rows below each p-value: mean over {n} repetitions and its 95 % "
        f"interval."
    )
    return _table(heads, lines) + "\n\n" + " ".join([words, *said])


def planted(result: Result) -> str:
    row = _row(result, "planted")
    if not row or "failed" in row:
        return _absent(result, "planted")
    lines = [
        [name, f"{n:,}", f"{flagged / n:.0%}", f"{named / flagged:.0%}" if flagged else "–"]
        for name, (n, flagged, named) in row["columns"].items()
    ]
    n = sum(counts[0] for counts in row["columns"].values())
    whole = [f"{row['flagged']:.1%}", f"{row['named']:.1%}"]
    lines.append(["**all columns**", f"{n:,}", *(f"**{share}**" for share in whole)])
    words = (
        f"{row['seeds']} seeds; before, {row['flagged_before']:.1%} of the held-out rows were "
        f"flagged, and errors went into the others."
    )
    heads = ["wrong cell in", "rows", "flagged", "of these, `explain` names it first"]
    return _table(heads, lines) + "\n\n" + words


def imputation(result: Result) -> str:
    row = _row(result, "imputation")
    if not row:
        return _absent(result, "imputation")
    sets = row["sets"]
    methods = list(dict.fromkeys(m for found in sets.values() for m in found["methods"]))
    lines = []
    for name, found in sets.items():
        means = [found["methods"].get(method, {}).get("mean") for method in methods]
        best = min((round(m, 4) for m in means if m is not None), default=None)
        cells = []
        for method, mean in zip(methods, means, strict=True):
            if mean is None:
                cells.append("failed" if method in found["methods"] else "–")
                continue
            spread = found["methods"][method]["spread"]
            said = f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
            cells.append(f"**{said}**" if round(mean, 4) == best else said)
        size = f"{found['rows']:,} × {found['columns']}"
        lines.append([name, size, f"{found['hidden']:.0%}", *cells])
    seeds = max((len(m["rmse"]) for f in sets.values() for m in f["methods"].values()), default=0)
    words = (
        f"Root mean squared error on the hidden cells, columns scaled to [0, 1]; mean over up to "
        f"{seeds} seeds ± standard deviation; the lowest in bold; – was not run."
    )
    return _table(["table", "size", "hidden", *methods], lines) + "\n\n" + words


def round_trip(result: Result) -> str:
    row = _row(result, "imputation")
    if not row or not row["round trip"]:
        return _absent(result, "imputation")
    lines = []
    for name, found in row["round trip"].items():
        if "failed" in found:
            lines.append([name, f"failed ({found['failed']})"])
            continue
        yes = [
            "yes" if found[key] else "**no**"
            for key in ("observed_cells_same", "types_kept", "order_kept")
        ]
        lines.append([name, str(found["holes"]), str(found["holes_left"]), *yes])
    heads = [
        "table",
        "missing",
        "left",
        "observed cells bit for bit",
        "types",
        "order of rows, columns",
    ]
    return _table(heads, lines)


def large(result: Result) -> str:
    row = _row(result, "large")
    if not row:
        return _absent(result, "large")
    lines, words = [], ""
    for name, found in row["tables"].items():
        if "failed" in found:
            lines.append([name, f"failed ({found['failed']})"])
            continue
        cells = [name]
        for call in ("fit", "score_samples"):
            seconds = found[call]["seconds"]
            cells += [f"{seconds:.0f} s", f"{found[call]['extra_bytes'] / 1e9:.2f} GB"]
        lines.append(cells)
        words = (
            f"{found['n_rows']:,} rows of {found['n_columns']} mixed columns "
            f"({found['table_bytes'] / 1e9:.2f} GB as an Arrow table, {found['width']} inputs), "
            f"{found['epochs']} epochs, {found['threads']} threads."
        )
    heads = ["held as", "`fit`", "memory beyond the table", "`score_samples`", "memory beyond it"]
    return _table(heads, lines) + "\n\n" + words


# Row -> what was trained, and the figures that are shown of it.
FAMILY = {
    "deep": (
        "784-1000-500-250-30, tied",
        ("test_error", "train_error", "logistic", "neighbours"),
    ),
    "codes": ("the same, made to undo warping", ("logistic", "neighbours", "amount")),
    "deep-training": ("the same, no regularisation", ("train_error",)),
    "denoising": ("784-1000-500, noise of standard deviation 0.5", ("error",)),
    "denoising-conv": ("the same, convolutional", ("error",)),
    "variational": ("784-500-500-50, variational", ("estimate", "bound")),
    "importance": ("the same, with 5 importance samples and weight decay", ("estimate", "bound")),
    "classifier": ("784-1000-1000-1000, layer by layer, then tuned on labels", ("wrong",)),
    "classifier-warp": ("the same, tuned on warped images", ("wrong",)),
    "tutorial": (
        "784-392-196, in the time of the tutorial's script",
        ("validation", "test", "epochs", "tutorial_seconds"),
    ),
}
FIGURES = {
    "test_error": "squared error, test images",
    "train_error": "squared error, training images",
    "logistic": "right by logistic regression",
    "neighbours": "right by five nearest neighbours",
    "amount": "amount of warping taken",
    "error": "squared error per pixel",
    "estimate": "minus log p by 5,000 draws, nats",
    "bound": "bound of minus log p, nats",
    "wrong": "wrong",
    "validation": "cross-entropy, held-out images",
    "test": "cross-entropy, test images",
    "epochs": "epochs in that time",
    "tutorial_seconds": "seconds of the tutorial's script",
}
IMAGES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
TWINS = IMAGES | {
    "gain_letter": "letter (16 numbers)",
    "gain_spam": "spam (57 numbers)",
}
ORDERED = {
    "cut": "cut, every size taught",
    "named": "cut, these three sizes taught",
    "own": "a net for each size",
    "pca": "PCA",
}


def family(result: Result) -> str:
    """Each kind of autoencoder on images: a line per figure, its network named on the first."""
    lines = []
    for name, (title, figures) in FAMILY.items():
        for key, found in _row(result, name).get("sets", {}).items():
            heads = [title, IMAGES.get(key, key)]
            if "failed" in found:
                lines.append([*heads, f"failed ({found['failed']})"])
                continue
            tails = [str(found["seeds"]), f"{found['seconds']['mean']:,.0f}"]
            for figure in (name for name in figures if name in found):
                lines.append([*heads, FIGURES[figure], _with_spread(found[figure]), *tails])
                heads, tails = ["", ""], ["", ""]
    if not lines:
        return _absent(result, *FAMILY)
    heads = ["network", "images", "figure", "mean ± spread", "seeds", "seconds"]
    return _table(heads, lines, words=3)


def twins(result: Result) -> str:
    """Tied and untied nets with the defaults, and a tied one with as many parameters as untied."""
    row = _row(result, "twins")
    if not row.get("sets"):
        return _absent(result, "twins")
    nets, lines = ("tied", "untied", "wider"), []
    for key, found in row["sets"].items():
        if "failed" in found:
            lines.append([f"{key}: failed ({found['failed']})"])
            continue
        errors = [_with_spread(found[f"{name}_error"]) for name in nets]
        seconds = " / ".join(f"{found[f'{name}_seconds']['mean']:.2g}" for name in nets)
        lines.append([TWINS.get(key, key), *errors, seconds, str(found["seeds"])])
    heads = [
        "squared error over PCA's",
        "tied",
        "untied",
        "tied, as many parameters as untied",
        "seconds",
        "seeds",
    ]
    words = f"Test rows, means ± spread over seeds. {_where(result, row)}."
    return f"{_table(heads, lines)}\n\n{words}"


def ordered(result: Result) -> str:
    """Errors of an ordered code cut off at k, of nets made for k, and of PCA."""
    sets = _row(result, "ordered").get("sets", {})
    if not sets:
        return _absent(result, "ordered")
    lines = []
    for key, found in sets.items():
        name = IMAGES.get(key, key)
        if "failed" in found:
            lines.append([f"{name}: failed ({found['failed']})"])
            continue
        for kind, title in ORDERED.items():
            spreads = found[kind]["spread"] or [None] * len(found[kind]["mean"])
            cells = [
                _with_spread({"mean": mean, "spread": spread})
                for mean, spread in zip(found[kind]["mean"], spreads, strict=True)
            ]
            lines.append([f"{name}: {title}", *cells, str(found["seeds"])])
    return _table(["squared error per image", "k = 2", "k = 10", "k = 30", "seeds"], lines)


def _with_spread(found: Result) -> str:
    mean, spread = found["mean"], found["spread"]
    if spread is None:
        return f"{mean:.4g}"
    # What no chance goes into, such as PCA, varies by rounding alone.
    return f"{mean:.4g} ± {spread if spread > 1e-9 * abs(mean) else 0:.2g}"


# Title -> what makes the table, and the rows it shows. Pages name tables by these titles.
TABLES: dict[str, tuple[Callable[[Result], str], tuple[str, ...]]] = {
    "detection": (detection, tuple(DETECTION)),
    "adbench": (per_set("adbench"), ("adbench",)),
    "odds": (per_set("odds"), ("odds",)),
    "ablation": (ablation, ("ablation",)),
    "false alarms": (false_alarms, ("false-alarms",)),
    "planted errors": (planted, ("planted",)),
    "large": (large, ("large",)),
    "imputation": (imputation, ("imputation",)),
    "round trip": (round_trip, ("imputation",)),
    "family": (family, tuple(FAMILY)),
    "twins": (twins, ("twins",)),
    "ordered": (ordered, ("ordered",)),
    "family made": (measured_on, (*FAMILY, "twins", "ordered")),
    "measured on": (measured_on, (*DETECTION, "ablation", "imputation", "planted", "large")),
}


def _row(result: Result, name: str) -> Result:
    """Return a row's figures; empty where it was not measured."""
    row: Result = result["rows"].get(name, {})
    return {} if "skipped" in row else row


def _absent(result: Result, *names: str) -> str:
    reasons = {result["rows"].get(name, {}).get("skipped", "") for name in names} - {""}
    return f"Not measured yet{''.join(f' ({reason})' for reason in sorted(reasons))}."


def _table(heads: list[str], lines: list[list[str]], words: int = 1) -> str:
    """Return a table whose first columns, so many, hold words, and all others figures."""
    rule = [*["---"] * words, *["--:"] * (len(heads) - words)]
    filled = [[*line, *[""] * (len(heads) - len(line))] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *filled))


def _bold(method: str) -> str:
    return f"**{method}**" if method == "twofold" else method


def _spread(found: Result | None, figure: str) -> str:
    if found is None or found[figure] is None:
        return "–"
    spread = found[f"{figure}_spread"]
    return f"{found[figure]:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _interval(share: Result) -> str:
    if share["half_width"] is None:
        return f"{share['mean']:.2%}"
    return f"{100 * share['mean']:.2f} ± {100 * share['half_width']:.2f} %"


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return statistics.mean(known) if known else None


def _seeds(row: Result) -> int:
    return max(found["seeds"] for found in row["methods"].values())
