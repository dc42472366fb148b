"""Files as people have them through every command, and what came of it.

    python bench/everyday.py          the files that tests/integration/everyday.py draws
    python bench/everyday.py FOLDER   files of your own, to standard output only

`bench/results/everyday.json` has the counts, and says of each file that was refused or failed why.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.integration.everyday import Everyday, tables
from twofold import __version__
from twofold.cli.main import app

OUTPUT = Path(__file__).parent / "results" / "everyday.json"
FIT = ("--epochs", "2", "--random-state", "0", "--quiet", "--force")
VERBS = (
    *("fit", "info", "impute", "reconstruct", "score", "encode"),
    *("decode", "explain", "sample", "report"),
)


def through(path: Path, out: Path) -> dict[str, str]:
    """Take a file through all commands; return "whole" for each, or what was said."""
    model, codes = out / "model", out / "codes.csv"
    words = {
        "fit": (path, "-o", model, *FIT),
        "info": (model,),
        "explain": (model, path),
        "decode": (model, codes, "-o", out / "decode.csv"),
        "sample": (model, "--rows", 20, "-o", out / "sample.csv"),
        "report": (model, path, "-o", out / "report.html"),
    }
    found: dict[str, str] = {}
    for verb in VERBS:
        rows = codes if verb == "encode" else out / f"{verb}.csv"
        said = CliRunner().invoke(
            app, [verb, *map(str, words.get(verb, (model, path, "-o", rows)))]
        )
        if said.exit_code == 0:
            found[verb] = "whole"
            continue
        refused = said.exit_code == 2 and isinstance(said.exception, SystemExit)
        text = said.stderr.replace(f"{path.parent}/", "").strip().splitlines()
        found[verb] = (
            f"{'refused' if refused else 'failed'}: {text[-1] if text else repr(said.exception)}"
        )
        if verb == "fit":
            break
    return found


def changed(file: Everyday, path: Path) -> list[list[str]]:
    """Return the observed cells that `impute` wrote otherwise: column, before and after."""
    text = path.read_text(encoding="utf-8")
    lines = [row or [""] for row in csv.reader(io.StringIO(text, newline=""), delimiter=file.sep)]
    if len(lines) - 1 != len(file.rows):
        return [["", f"{len(file.rows)} rows", f"{len(lines) - 1} rows"]]
    return [
        [name, old, new]
        for before, after in zip(file.rows, lines[1:], strict=True)
        for name, old, new in zip(file.names, before, after, strict=True)
        if old != new and old not in file.missing and old.strip() not in file.missing
    ]


def examined(file: Everyday, folder: Path) -> dict[str, Any]:
    """Return what came of one of the drawn files."""
    path, out = folder / file.name, folder / f"{file.name}.out"
    path.write_bytes(file.content)
    out.mkdir()
    record: dict[str, Any] = {"file": file.name, "verbs": through(path, out)}
    if record["verbs"].get("impute") == "whole" and "json" not in file.name:
        record["changed"] = changed(file, out / "impute.csv")[:3]
    return record


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what came of the files."""
    counts = {verb: Counter[str]() for verb in VERBS}
    for record in records:
        for verb, said in record["verbs"].items():
            counts[verb][said.split(":")[0]] += 1
    return {
        "files": len(records),
        "verbs": {verb: dict(found) for verb, found in counts.items()},
        "compared": sum("changed" in record for record in records),
        "changed": sum(bool(record.get("changed")) for record in records),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table of `docs/files.md`."""
    found = result["summary"]
    lines = ["| command | files | done | refused | failed |", "| --- | --: | --: | --: | --: |"]
    for verb, counts in found["verbs"].items():
        cells = [sum(counts.values()), *(counts.get(k, 0) for k in ("whole", "refused", "failed"))]
        lines.append(f"| `{verb}` | " + " | ".join(map(str, cells)) + " |")
    refused = [r for r in result["not_whole"] if r["verbs"]["fit"].startswith("refused")]
    lines += [
        "",
        f"Of {found['compared']} files whose cells were compared, `impute` wrote observed cells "
        f"otherwise in {found['changed']}. Refused: "
        + "; ".join(f"{r['verbs']['fit'].split('Error: ')[-1].split('. ')[0]}" for r in refused)
        + ".",
    ]
    return "\n".join(lines)


def main() -> None:
    """Take all files through all commands, and write what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder is not None:
            records: list[dict[str, Any]] = []
            for i, path in enumerate(sorted(given.folder.iterdir())):
                out = Path(scratch, str(i))
                out.mkdir()
                records.append({"file": path.name, "verbs": through(path, out)})
                print(json.dumps(records[-1], ensure_ascii=False), flush=True)
        else:
            records = [examined(file, Path(scratch)) for file in tables()]
    counts = summary(records)
    print(json.dumps(counts, indent=1))
    if given.folder is None:
        bad = [
            record
            for record in records
            if {*record["verbs"].values()} != {"whole"} or record.get("changed")
        ]
        document = {"twofold": __version__, "summary": counts, "not_whole": bad}
        text = json.dumps(document, indent=1, ensure_ascii=False)
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
