"""The results as the Markdown tables that the README holds."""

from __future__ import annotations

import statistics
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """Return every table that the results allow, and what they were measured on."""
    parts = []
    if result.get("quick"):
        parts.append("**A quick run: these figures only show that everything runs.**")
    if "peers" in result.get("epoch", {}):
        parts += [_epochs(result["epoch"]), *_footnotes(result["epoch"])]
    parts += [_others(result), _failures(result), _machine(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _failures(result: dict[str, Any]) -> str:
    """Return one line per row of the bench that failed as a whole."""
    return "\n".join(
        f"{name}: failed ({row['failed']})."
        for name, row in result.items()
        if isinstance(row, dict) and isinstance(row.get("failed"), str)
    )


def _epochs(epoch: dict[str, Any]) -> str:
    lines = [
        "| one epoch | tied | against twofold | untied | against twofold |",
        "|---|--:|--:|--:|--:|",
    ]
    notes = [name for name, entry in epoch["peers"].items() if entry.get("differs")]
    for name, entry in epoch["peers"].items():
        title = entry["title"]
        if name == "twofold":
            title = f"**{title}**"
        elif name == "products":
            title = f"*{title}*"
        mark = f" [{notes.index(name) + 1}]" if name in notes else ""
        cells = [cell for case in ("tied", "untied") for cell in _cells(entry.get(case))]
        lines.append(f"| {title}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(found: dict[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "–", "–"
    if "median_seconds" not in found:
        return "failed", "–"
    ratio = found.get("median_ratio")
    return f"{found['median_seconds']:.2f} s", "–" if ratio is None else _times(ratio)


def _footnotes(epoch: dict[str, Any]) -> list[str]:
    lines = []
    different = [entry for entry in epoch["peers"].values() if entry.get("differs")]
    for number, entry in enumerate(different, start=1):
        lines.append(f"[{number}] {entry['differs']}.")
    for entry in epoch["peers"].values():
        for case, found in entry.items():
            if isinstance(found, dict) and "failed" in found:
                lines.append(f"{entry['title']}, {case}: failed ({found['failed']}).")
    return [" ".join(lines)] if lines else []


def _others(result: dict[str, Any]) -> str:
    rows = [
        *_shares(result.get("epoch", {})),
        *_steps(result.get("steps", {})),
        *_tables(result.get("tables", {})),
        *_to_loss(result.get("to-loss", {})),
        *_transform(result.get("transform", {})),
        *_busy(result.get("busy", {})),
        *_start(result.get("start", {})),
        *_growth(result.get("growth", {})),
    ]
    if not rows:
        return ""
    lines = ["| also measured | twofold |", "|---|---|"]
    return "\n".join(lines + [f"| {what} | {found} |" for what, found in rows])


def _shares(epoch: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if "tied_to_untied" in epoch:
        ratio = epoch["tied_to_untied"]["median"]
        rows.append(("a tied epoch against an untied one", f"{ratio:.2f} of its time"))
    products = epoch.get("peers", {}).get("products", {})
    shares = [
        f"{100 * products[case]['median_ratio']:.0f} % at batch {size}"
        for case, size in (("tied", "32"), ("tied-1024", "1,024"))
        if "median_ratio" in products.get(case, {})
    ]
    if shares:
        rows.append(("share of a tied epoch that its matrix products need", ", ".join(shares)))
    return rows


def _tables(row: dict[str, Any]) -> list[tuple[str, str]]:
    titles = {
        "twofold": "",
        "pyod": "PyOD's AutoEncoder ",
        "mlp": "scikit-learn's MLPRegressor ",
        "pca": "its PCA ",
    }
    rows = []
    for size, entry in row.items():
        if "×" not in size:
            continue
        said = [
            f"{titles[who]}{entry[who]['median']:.2g} s"
            for who in titles
            if "median" in entry.get(who, {})
        ]
        rows.append((f"`fit` of {size} numbers with all defaults, one thread", "; ".join(said)))
    return rows


def _to_loss(row: dict[str, Any]) -> list[tuple[str, str]]:
    if not row or "failed" in row:
        return []
    rows = []
    theirs = row.get("tutorial", {})
    for precision in ("float32", "auto"):
        runs = row[precision]
        times = sorted(run["seconds"] or float("inf") for run in runs)
        losses = [run["best_validation_loss"] for run in runs]
        said = f"{statistics.median(times):.1f} s"
        if "seconds" in theirs:
            said += (
                f"; the tutorial's script on Keras/TensorFlow {theirs['seconds']:.0f} s "
                f"({theirs['how']}), {_times(row['ratios'][precision])}"
            )
        elif "failed" in theirs:
            said += f"; the tutorial's script failed ({theirs['failed']})"
        whole = statistics.median(run["training_seconds"] for run in runs)
        said += (
            f"; all {len(runs[0]['epochs'])} epochs {whole:.0f} s, to "
            f"{statistics.median(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"
        )
        options = "default options" + (', `precision="auto"`' if precision == "auto" else "")
        rows.append((f"{options}, from `fit` until validation loss {row['target']}", said))
    return rows


def _transform(row: dict[str, Any]) -> list[tuple[str, str]]:
    if not row or "failed" in row:
        return []
    what = f"`transform` of {row['n_rows']:,} × 784"
    rate, share = row["rows_per_second"], row["share_of_bound"]
    extra = row["most_extra_bytes"] / 1e6
    return [
        (
            what,
            f"{rate:,.0f} rows/s; its matrix products need {100 * share:.0f} % of the time; "
            f"{extra:.0f} MB beyond input and output",
        )
    ]


def _busy(row: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for n, what in (
        ("1", "another process keeps one core"),
        ("3", "three processes keep the cores"),
    ):
        said = []
        for name, title in (
            ("twofold", ""),
            ("twofold, one thread", "with one thread "),
            ("torch", "plain PyTorch loop "),
        ):
            found = row.get(name, {})
            ratios = found.get("median_ratio", {})
            if n in ratios:
                said.append(f"{title}{_times(ratios[n])} the undisturbed time")
            elif "failed" in found:
                said.append(f"{title}failed ({found['failed']})")
        if said:
            rows.append((f"training while {what} busy", "; ".join(said)))
    return rows


def _steps(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how near the native step comes to the processor's peak, and what tying costs it."""
    if "cases" not in row:
        return []
    best, peak = max(row["peak_gflops_one_thread"].items(), key=lambda pair: pair[1])
    cases = row["cases"]
    threads = max(int(way.rsplit(",", 1)[1]) for way in cases["tied"])

    def share(case: str, n: int) -> str:
        return f"{100 * cases[case][f'native {best}, {n}']['gflops'] / (n * peak):.0f} %"

    def ratio(case: str, to: str) -> str:
        ours, other = (cases[name][f"native {best}, {threads}"] for name in (case, to))
        return f"{ours['microseconds_per_step'] / other['microseconds_per_step']:.2f}"

    adam = cases["tied, Adam"]
    fused = min(found["ratio_to_native"] for way, found in adam.items() if "fused" in way)
    return [
        (
            f"share of the peak ({peak:.0f} GFLOP/s a core, {best}) that a tied step reaches",
            f"{share('tied', 1)} with one thread, {share('tied', threads)} with {threads}; "
            f"{share('tied, batch 1024', threads)} at batch 1,024",
        ),
        (
            "a tied step against an untied one",
            f"{ratio('tied', 'untied')} of its time with SGD, {ratio('tied, Adam', 'untied, Adam')}"
            f" with Adam, {ratio('2048-1024-256, tied', '2048-1024-256, untied')} "
            "in a net of 2048-1024-256",
        ),
        ("a tied step with Adam against the same without native code", f"{1 / fused:.2f}"),
    ]


def _start(row: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name in ("import twofold", "twofold --help"):
        found = row.get(name)
        if not found:
            continue
        said = found.get("failed") and f"failed ({found['failed']})"
        bare = row["bare python"].get("median", 0.0)
        rows.append(
            (f"`{name}`", said or f"{found['median']:.2f} s (Python alone takes {bare:.2f} s)")
        )
    return rows


def _growth(row: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for kind, size in (("rows", "n_rows"), ("columns", "n_columns")):
        points = row.get(kind) or []
        if len(points) < 2:
            continue
        first, last = points[0], points[-1]
        said = ", ".join(
            f"{name} {_times(last['seconds'][name] / first['seconds'][name])}"
            for name in ("fit", "transform")
        )
        grown = last[size] / first[size]
        what = f"time for {grown:,.0f} times the {kind} ({first[size]:,} to {last[size]:,})"
        rows.append((what, said))
    return rows


def _machine(result: dict[str, Any]) -> str:
    made = result["machine"]
    versions: dict[str, str] = {}
    for found in result.get("versions", {}).values():
        versions |= found
    named = (
        ("torch", "PyTorch"),
        ("tensorflow-cpu", "TensorFlow"),
        ("jax", "JAX"),
        ("keras", "Keras"),
        ("pyod", "PyOD"),
        ("scikit-learn", "scikit-learn"),
        ("numpy", "NumPy"),
    )
    listed = ", ".join(f"{title} {versions[key]}" for key, title in named if key in versions)
    quiet = result["quiet"]
    state = {True: "Quiet machine", False: "**The machine was not quiet**", None: "Load unknown"}
    lines = [
        f"Medians of {result['rounds']} rounds in turn, float32, {result['threads']} threads on "
        f"{made['cores_used']} of {made['cores_present']} cores ({made['processor']}; "
        f"{made['memory_gb']} GB; {made['system']}), {result['made'][:10]}.",
        f"{state[quiet['quiet']]}: {quiet['words']}.",
        f"Python {made['python']}, {listed}." if listed else f"Python {made['python']}.",
    ]
    return "  \n".join(lines)


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio >= 0.95 else f"{ratio:.2f}×"
