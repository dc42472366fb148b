"""Every verb is declared once, and each face has exactly those."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import typer

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.distributed.results import APPLY
from twofold.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", sorted(VERBS))
def test_command_says_what_the_declaration_says(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    verb = VERBS[name]
    assert command.help.startswith(verb.help)
    assert verb.details in command.help
    assert "For example:" in command.help


@pytest.mark.parametrize("name", sorted(VERBS))
def test_estimator_has_the_method(name: str) -> None:
    assert callable(getattr(Autoencoder, VERBS[name].method))


def test_service_has_a_route_per_verb() -> None:
    pytest.importorskip("starlette", reason="the extra `service` is not installed")
    from twofold.service import create_app

    x = np.outer(np.random.default_rng(0).normal(size=100), [1.0, 2.0, 3.0])
    ae = Autoencoder(n_components=1, hidden_layers=(), pretraining="pca").fit(x)
    paths = create_app(ae).state.service.document()["paths"]
    summaries = {p[1:]: found["post"]["summary"] for p, found in paths.items() if "post" in found}
    assert summaries == {name: verb.help for name, verb in VERBS.items()}


def test_the_docs_say_which_verbs_work_by_parts() -> None:
    text = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w ;]+) \|", text, re.MULTILINE))
    said = {name: rows[name] == "part by part" for name in VERBS}
    assert said == {name: verb.by_parts for name, verb in VERBS.items()}


def test_bulk_inference_has_the_verbs_that_work_by_parts() -> None:
    # Of an explanation's many lines per row, bulk inference has no use.
    by_parts = {name for name, verb in VERBS.items() if verb.by_parts}
    assert set(APPLY) == by_parts - {"explain"}
