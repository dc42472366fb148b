"""A type checker sees the mistakes in a user's script, and accepts what runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

PACKAGE = Path(__file__).resolve().parents[2] / "src"
RIGHT = """
from twofold import Autoencoder, Conv, Sparse, callbacks, load

ae = Autoencoder(hidden_layers=[8, 4], activation="relu", likelihood={"age": "poisson"})
Autoencoder(hidden_layers=(Conv(8, 3), 16), bottleneck=Sparse("topk"), learning_rate=0.01)
Autoencoder(hidden_layers="wide", epochs="auto", patience=None, n_components=0.9, warm_start=True)
ae.fit([[1.0, 2.0]], sample_weight=[1.0], callbacks=[callbacks.EarlyStopping(patience=3)])
ae.sample(5).head()
ae.impute([[1.0]]).shape
load("model").score([[1.0]]) + 1.0
for table in ae.impute([[1.0]], n_draws=3):
    print(table)
"""
WRONG = {
    'Autoencoder(activation="rellu")': "arg-type",
    'Autoencoder(optimizer="rmsprop")': "arg-type",
    "Autoencoder(hidden_layers=[8.5])": "list-item",
    'Autoencoder(likelihood={"age": "normal"})': "dict-item",
    'Autoencoder(batch_size="large")': "arg-type",
    "Autoencoder().fit(X=[[1.0]], callback=[])": "call-arg",
    "Autoencoder().summary() + 1": "operator",
}

FOLLOWED = ("", ".estimators.autoencoder", ".options", ".nn.layers", ".nn.bottlenecks")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy says of a script with right and wrong lines, of which only twofold is followed."""
    folder = tmp_path_factory.mktemp("typing")
    script, settings = folder / "script.py", folder / "mypy.ini"
    script.write_text(RIGHT + "\n".join(WRONG))
    settings.write_text(
        "[mypy]\nstrict = true\nfollow_imports = skip\ndisallow_subclassing_any = false\n"
        "[mypy-numpy.*,pandas.*,torch.*,matplotlib.*,sklearn.*]\nfollow_imports_for_stubs = true\n"
        + "".join(f"[mypy-twofold{room}]\nfollow_imports = silent\n" for room in FOLLOWED)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(PACKAGE))
        out, errors, _ = api.run(
            ["--config-file", str(settings), "--cache-dir", str(folder), str(script)]
        )
    assert not errors
    return [line for line in out.splitlines() if ": error: " in line]


def test_what_runs_is_accepted(reported: list[str]) -> None:
    assert [line for line in reported if int(line.split(":")[1]) <= RIGHT.count("\n")] == []


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_are_seen(line: str, reported: list[str]) -> None:
    number = RIGHT.count("\n") + 1 + list(WRONG).index(line)
    found = [one for one in reported if one.split(":")[1] == str(number)]
    assert any(one.endswith(f"[{WRONG[line]}]") for one in found), found
