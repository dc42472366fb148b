"""Send the service requests that nobody meant, and count what it answers.

    python bench/fuzz.py                    to bench/results/fuzz.json
    python bench/fuzz.py --bodies 100 --examples 5

Schemathesis makes requests from the OpenAPI document, those that keep to it and those that do not,
one by one and in sequences that follow the document's links, and holds the answers to all of its
checks. What a schema cannot say is allowed for: rows times draws are bounded (413), and a parameter
is given in the body or in the query string. Then good bodies are changed, JSON and Arrow alike: one
half at random places (bytes replaced, cut out, put twice, taken from another body), the other half
cell by cell, so that they stay JSON, or a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
import warnings
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import machine
import service

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
CELLS = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**30,
    1e308,
    5e-324,
    "",
    " ",
    "Bern",
    "2024-02-30",
)
CELLS += ("1e5", "\x00", "\u2028", "x" * 5_000, [], [1], [[[]]], {}, {"a": 1})
AT_ONCE = 16
TYPES = {"JSON": service.JSON, "Arrow": service.ARROW}
ROUTES = ("score", "encode", "reconstruct", "impute", "explain")


def mixed() -> Any:
    """Return a frame with a column of every sort, and missing cells."""
    import numpy as np
    import pandas as pd

    rng, n = np.random.default_rng(0), 120
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n).round(1),
            "town": rng.choice(["Zürich", "Bern", "New York"], n),
            "visits": rng.negative_binomial(2, 0.6, n),
            "joined": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 2000, n), "h"),
            "smoker": rng.random(n) < 0.4,
        }
    )
    frame.loc[3, ["age", "town"]] = None
    return frame


def generated(app: Any, n_examples: int) -> dict[str, Any]:
    """Return what requests that Schemathesis makes come to."""
    import contextlib

    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Unsatisfiable
    from schemathesis.config import SchemathesisConfig
    from schemathesis.core.failures import FailureGroup

    frame = mixed()
    streams = st.integers(1, 40).map(lambda n: stream(table_of(frame[:n])))
    schemathesis.openapi.media_type(service.ARROW, streams)
    stamps = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(datetime.isoformat)
    schemathesis.openapi.format("date-time-local", stamps)
    expected = {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "413"]},
        "negative_data_rejection": {"expected-statuses": ["4xx"]},
    }
    schema = schemathesis.openapi.from_dict(
        app.state.service.document(), config=SchemathesisConfig.from_dict({"checks": expected})
    )
    schema.app = app
    registered = schemathesis.checks.CHECKS
    names = sorted(registered.get_all_names())
    checks = [registered.get_one(name) for name in names]
    of_any = [registered.get_one(name) for name in names if name not in expected]
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    common = settings(
        max_examples=n_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def check(answer: Any, case: Any) -> None:
        statuses[answer.status_code] += 1
        # The strategy for streams makes rows, and does not know that /decode takes codes.
        is_rows = isinstance(case.body, bytes) and case.path == "/decode"
        try:
            case.validate_response(answer, checks=of_any if is_rows else checks)
        except (FailureGroup, Exception) as error:
            failures.append(f"{case.method} {case.path}: {error!s:.500}")

    def prepare(case: Any) -> None:
        if isinstance(case.body, dict) and case.query:
            case.query = {name: v for name, v in case.query.items() if name not in case.body}

    def ask(case: Any) -> None:
        prepare(case)
        check(case.call(), case)

    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)
            run = common(given(case=strategy)(ask))
            with contextlib.suppress(Unsatisfiable):  # some routes take nothing that could be wrong
                run()
    alone = sum(statuses.values())

    class Sequences(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            prepare(case)

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            check(response, case)

    Sequences.run(settings=settings(common, stateful_step_count=6))
    return {
        "checks": names,
        "requests": alone,
        "requests_in_sequences": sum(statuses.values()) - alone,
        "statuses": {str(k): v for k, v in sorted(statuses.items())},
        "failures": failures[:20],
        "n_failures": len(failures),
    }


def changed(body: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return a body with a few faults, most often one."""
    found = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, n = rng.randrange(len(found) + 1), rng.randint(1, 40)
        kind = rng.randrange(5)
        if kind == 0:
            found[at : at + n] = rng.randbytes(rng.randint(0, n))
        elif kind == 1:
            del found[at : at + n]
        elif kind == 2:
            found[at:at] = found[at : at + n] * rng.randint(1, 50)
        elif kind == 3:
            start = rng.randrange(len(other))
            found[at : at + n] = other[start : start + n]
        else:
            found[at : at + 1] = rng.choice([b"\xff", b"\x00", b'"', b"[", b"{", b"]", b"9" * 400])
    return bytes(found)


def table_of(frame: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)


def stream(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def with_other_cells(good: Any, media_type: str, rng: random.Random) -> bytes:
    """Return good rows, or a good table, with cells, names or types that nobody meant."""
    import pyarrow as pa

    if media_type == service.JSON:
        rows = [dict(row) for row in good]
        for _ in range(rng.choice((1, 1, 2, 5))):
            row, name = rng.choice(rows), rng.choice(list(good[0]))
            if rng.random() < 0.2:
                row[rng.choice(["", "more", "x" * 300])] = row.pop(name, None)
            else:
                row[name] = rng.choice(CELLS)
        as_lists = rng.random() < 0.4
        given: dict[str, Any] = {"rows": [list(row.values()) for row in rows] if as_lists else rows}
        if rng.random() < 0.2:
            given[rng.choice(["n_draws", "random_state", "n", "codes"])] = rng.choice(CELLS)
        return json.dumps(given).encode()
    columns = dict(zip(good.column_names, good.columns, strict=True))
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(list(columns))
        cell = rng.choice([c for c in CELLS if not isinstance(c, int) or abs(c or 0) < 2**63])
        other = pa.array([cell] * len(good))
        kind = rng.randrange(4)
        if kind == 0 and len(columns) > 1:
            del columns[name]
        elif kind == 1 and not isinstance(cell, list | dict):
            columns[name] = other.dictionary_encode()
        elif kind == 2:
            columns[name] = pa.nulls(len(good))
        else:
            columns[name] = other
    return stream(pa.table(columns))


def mutated(app: Any, frame: Any, media_type: str, n_bodies: int, minutes: float) -> dict[str, Any]:
    """Return what good bodies come to that were changed at random, as many as the time allows."""
    import httpx

    rng = random.Random(0)
    bodies, parts = [], []
    for n in (1, 3, 40):
        if media_type == service.JSON:
            rows = json.loads(frame[:n].to_json(orient="records", date_format="iso"))
            parts.append(rows)
            bodies.append(json.dumps({"rows": rows}).encode())
            bodies.append(json.dumps({"rows": [list(row.values()) for row in rows]}).encode())
        else:
            parts.append(table_of(frame[:n]))
            bodies.append(stream(parts[-1]))
    statuses: Counter[int] = Counter()
    slowest = 0.0

    async def run() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def ask(number: int) -> None:
                nonlocal slowest
                if number % 2:
                    body = with_other_cells(rng.choice(parts), media_type, rng)
                else:
                    body = changed(rng.choice(bodies), rng.choice(bodies), rng)
                start = time.perf_counter()
                answer = await client.post(
                    f"/{ROUTES[number % len(ROUTES)]}",
                    content=body,
                    headers={"content-type": media_type},
                    timeout=60,
                )
                slowest = max(slowest, time.perf_counter() - start)
                statuses[answer.status_code] += 1

            end = time.perf_counter() + 60 * minutes
            for start in range(0, n_bodies, AT_ONCE):
                if time.perf_counter() > end:
                    break
                stop = min(start + AT_ONCE, n_bodies)
                await asyncio.gather(*(ask(number) for number in range(start, stop)))

    asyncio.run(run())
    return {
        "bodies": sum(statuses.values()),
        "statuses": {str(k): v for k, v in sorted(statuses.items())},
        "server_errors": sum(v for k, v in statuses.items() if k >= 500),
        "slowest_seconds": round(slowest, 2),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the results as sentences."""
    made = result["generated"]
    lines = [
        f"Schemathesis, {len(made['checks'])} checks: {made['requests']:,} requests one by one, "
        f"{made['requests_in_sequences']:,} in sequences, {made['n_failures']:,} unexpected "
        f"answers.",
    ]
    for name, found in result["mutated"].items():
        n_good = found["statuses"].get("200", 0)
        lines.append(
            f"{found['bodies']:,} bodies of {name} that were changed at random: {n_good:,} were "
            f"good still, {found['server_errors']} answers of 500 or above, the slowest took "
            f"{found['slowest_seconds']:.1f} s."
        )
    return "\n".join(f"- {line}" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--bodies", type=int, default=10_000, help="of each type")
    parser.add_argument("--examples", type=int, default=50, help="of each route and way")
    parser.add_argument("--minutes", type=float, default=60, help="at most, of each type")
    parser.add_argument("--only", choices=[*TYPES, "generated"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    from twofold import Autoencoder, load
    from twofold.errors import LosesToPCAWarning
    from twofold.service import create_app

    warnings.simplefilter("ignore", LosesToPCAWarning)
    frame = mixed()
    with tempfile.TemporaryDirectory() as folder:
        Autoencoder(epochs=2, random_state=0).fit(frame).save(Path(folder) / "model")
        app = create_app(load(Path(folder) / "model"), max_rows=50)
    kept = json.loads(given.output.read_text()) if given.output.exists() else {"mutated": {}}
    kept["machine"] = machine.describe(sorted(os.sched_getaffinity(0)))
    for name, media_type in TYPES.items():
        if given.only in (None, name):
            kept["mutated"][name] = mutated(app, frame, media_type, given.bodies, given.minutes)
            print(name, json.dumps(kept["mutated"][name]), flush=True)
            service.write_atomically(given.output, json.dumps(kept, indent=1) + "\n")
    if given.only in (None, "generated"):
        kept["generated"] = generated(app, given.examples)
        print(json.dumps(kept["generated"], indent=1), flush=True)
        service.write_atomically(given.output, json.dumps(kept, indent=1) + "\n")
    app.state.service.close()


if __name__ == "__main__":
    main()
