from __future__ import annotations

import html
import io
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from twofold import datasets, load, metrics
from twofold.cli.demo import page
from twofold.cli.demo import run as demo
from twofold.errors import (
    DataError,
    DatasetUnavailable,
    LosesToPCAWarning,
    OptionError,
    OutputExistsError,
)
from twofold.estimators.autoencoder import Autoencoder
from twofold.training.events import Event

NETS = ("stacked", "tied")
SUBSTITUTE = "scikit-learn's digits (8x8), because MNIST could not be had"


def quiet(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Run:
    """What one run of the demo said and wrote."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.text = folder, said(console)
        self.numbers: dict[str, Any] = json.loads((folder / "figures.json").read_text("utf-8"))
        self.page = html.unescape((folder / "index.html").read_text("utf-8"))


def perform(folder: Path, dataset: str = "digits", **options: Any) -> Run:
    console = quiet()
    return Run(demo.run(dataset, output=folder, console=console, **options), console)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return perform(tmp_path_factory.mktemp("demo") / "out", epochs=2)


@pytest.fixture(scope="module")
def substituted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that asked for MNIST where no source has it."""
    original = datasets.load

    def unavailable(name: str, **options: Any) -> datasets.Images:
        if name == "mnist":
            raise DatasetUnavailable("MNIST was not found anywhere. Tried: nothing.")
        return original(name, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", unavailable)
        yield perform(tmp_path_factory.mktemp("demo") / "out", dataset="mnist", epochs=1)


def interrupting(*moments: tuple[str, int]) -> type:
    """A progress display that presses Ctrl-C when the named network has done so many epochs."""

    class Impatient:
        def __init__(self, title: str = "") -> None:
            self.title = title

        def __enter__(self) -> Impatient:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self, event: Event) -> None:
            if event.kind in ("start", "epoch") and (self.title, event.epoch) in moments:
                raise KeyboardInterrupt

    return Impatient


def test_the_recipe_is_the_tutorials() -> None:
    ae = demo.recipe(784, tied=True)
    expected = {
        "n_components": 196,
        "hidden_layers": (392,),
        "activation": "selu",
        "code_activation": "selu",
        "likelihood": "bernoulli",
        "optimizer": "sgd",
        "learning_rate": 1.5,
        "schedule": "constant",
        "batch_size": 32,
        "epochs": 20,
        "patience": None,
    }
    assert {name: getattr(ae, name) for name in expected} == expected


@pytest.mark.parametrize(("width", "hidden", "code"), [(784, 392, 196), (64, 32, 16), (5, 3, 2)])
def test_the_recipe_halves_and_quarters_any_width(width: int, hidden: int, code: int) -> None:
    ae = demo.recipe(width, tied=False, epochs=3, random_state=7)
    assert (ae.hidden_layers, ae.n_components, ae.tied) == ((hidden,), code, False)
    assert (ae.epochs, ae.random_state) == (3, 7)


@pytest.mark.parametrize(
    ("tied", "last"),
    [(False, "770,084 parameters, untied weights"), (True, "385,924 parameters, tied weights")],
)
def test_parameters_are_counted_before_anything_is_trained(tied: bool, last: str) -> None:
    assert demo._summary(784, tied).splitlines()[-1] == last


@pytest.mark.usefixtures("untouched_random_state")
def test_no_global_random_state_is_touched(tmp_path: Path) -> None:
    perform(tmp_path, epochs=1)


def test_the_story_is_told_in_order(done: Run) -> None:
    stations = [
        "1,325 images of 8x8 to train on, 175 to validate, 297 to test",
        "█",
        "5,264 parameters, untied weights",
        "2,704 parameters, tied weights",
        "Both train for 2 epochs",
        "Note: PCA with as many components reconstructs these rows better",
        "validation loss",
        "What this shows",
        "The tied network has 51.4 % of the stacked one's parameters",
        "Written to",
        "index.html in a browser",
    ]
    places = [done.text.find(station) for station in stations]
    assert -1 not in places
    assert places == sorted(places)


def test_a_warning_is_one_plain_line(done: Run) -> None:
    notes = [line for line in done.text.splitlines() if "PCA with as many components" in line]
    assert len(notes) == 2
    assert all(re.fullmatch(r"Note: .*\.", note) for note in notes)


def test_other_warnings_take_their_usual_way() -> None:
    with (
        pytest.warns(DeprecationWarning, match="old"),
        demo._fit_warnings(quiet()),
    ):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_the_folder_holds_everything(done: Run) -> None:
    assert {path.name for path in done.folder.iterdir()} == {
        "stacked",
        "tied",
        "reconstructions.png",
        "history.png",
        "figures.json",
        "index.html",
    }


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_are_those_of_the_saved_models(done: Run, name: str) -> None:
    images, row = datasets.digits(), done.numbers["rows"][name]
    x = images.train[-175:] / np.float32(255)
    ae = load(done.folder / name)
    assert row["parameters"] == ae.network_.n_parameters
    assert row["epochs"] == len(ae.history_) == 2
    assert row["seconds"] == ae.history_[-1]["seconds"]
    assert row["bytes"] == (done.folder / name / "weights.safetensors").stat().st_size
    assert row["squared_error_validation"] == metrics.squared_error(x, ae.reconstruct(x))
    test = images.test / np.float32(255)
    assert row["squared_error_test"] == metrics.squared_error(test, ae.reconstruct(test))
    assert row["validation_loss"] == pytest.approx(ae.history_[-1]["validation_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("key", "rows"), [("loss", slice(0, -175)), ("validation_loss", slice(-175, None))]
)
def test_losses_are_cross_entropies_of_the_saved_model(done: Run, key: str, rows: slice) -> None:
    x = datasets.digits().train[rows] / 255.0
    p = load(done.folder / "tied").reconstruct(x)
    expected = -(x * np.log(p) + (1 - x) * np.log1p(-p)).mean()
    assert done.numbers["rows"]["tied"][key] == pytest.approx(expected, rel=1e-5)


def test_overfitting_is_the_gap_between_the_losses(done: Run) -> None:
    for name in NETS:
        row = done.numbers["rows"][name]
        assert row["overfitting"] == row["validation_loss"] - row["loss"]


def test_pca_has_the_same_code_size_and_no_cross_entropy(done: Run) -> None:
    row = done.numbers["rows"]["PCA"]
    pca = load(done.folder / "tied").pca_
    x = (datasets.digits().test / np.float32(255)).reshape(-1, 64)
    assert pca.components.shape == (16, 64)
    assert row["parameters"] == 17 * 64
    assert row["bytes"] == 4 * 17 * 64
    assert row["squared_error_test"] == metrics.squared_error(x, pca.reconstruct(x))
    assert not {"loss", "validation_loss", "epochs"} & set(row)


def test_no_reconstruction_beats_the_least_loss() -> None:
    x = np.array([[0.0, 0.5, 1.0, 0.25]])
    entropy = -(2 * 0.5 * np.log(0.5) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 4
    assert demo._least_loss(x) == pytest.approx(entropy)


def test_the_circumstances_are_kept(done: Run) -> None:
    assert {"twofold", "python", "torch", "numpy"} <= set(done.numbers["versions"])
    assert done.numbers["machine"]["threads"] == 1
    assert done.numbers["dataset"]["source"] == "scikit-learn's embedded digits"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", done.numbers["date"])


def test_the_same_seed_gives_the_same_numbers(done: Run, tmp_path: Path) -> None:
    again = perform(tmp_path, epochs=2).numbers["rows"]
    for name, row in done.numbers["rows"].items():
        for key in row.keys() - {"seconds", "seconds_per_epoch", "bytes"}:
            assert again[name][key] == row[key]


def test_the_page_and_the_terminal_show_the_same_numbers(done: Run) -> None:
    for row in done.numbers["rows"].values():
        for cell in (f"{row['parameters']:,}", f"{row['squared_error_test']:.3f}"):
            assert cell in done.page
            assert cell in done.text


def test_the_page_shows_code_that_makes_the_tied_network(done: Run) -> None:
    script = re.search(r"from twofold import .*?random_state=0\)", done.page, re.DOTALL)
    assert script is not None
    made: dict[str, Any] = {}
    with pytest.warns(LosesToPCAWarning):
        exec(script[0], made)
    ae = made["autoencoder"]
    assert ae.get_params() == demo.recipe(64, tied=True, epochs=2).get_params()
    assert metrics.squared_error(made["test"], ae.reconstruct(made["test"])) == pytest.approx(
        done.numbers["rows"]["tied"]["squared_error_test"], rel=1e-6
    )
    assert made["new"].shape == (10, 8, 8)


def test_a_substitute_is_announced_in_one_line(substituted: Run) -> None:
    assert "MNIST was not found anywhere. Tried: nothing.\n" in substituted.text
    assert f"Going on with {SUBSTITUTE}.\n" in substituted.text


def test_a_substitute_is_named_wherever_its_numbers_are(substituted: Run) -> None:
    assert f"{SUBSTITUTE}: 1 epoch\n" in substituted.text
    assert substituted.numbers["dataset"]["title"] == SUBSTITUTE
    assert substituted.numbers["dataset"]["requested"] == "mnist"
    assert SUBSTITUTE in substituted.page


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail where the demo gets as far as training."""

    def fit(*_: object, **__: object) -> None:
        pytest.fail("the demo trained before it looked")

    monkeypatch.setattr(Autoencoder, "fit", fit)


@pytest.mark.usefixtures("untrained")
def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="already exists"):
        demo.run("digits", output=tmp_path, console=quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.usefixtures("untrained")
def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="not a folder"):
        demo.run("digits", output=tmp_path / "out", force=True, console=quiet())


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("name", ["tied", "index.html"])
def test_force_replaces_only_what_the_demo_writes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=name):
        demo.run("digits", output=tmp_path, force=True, console=quiet())


@pytest.mark.usefixtures("untrained")
def test_a_folder_that_cannot_be_written_is_found_out_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear", encoding="utf-8")
    with pytest.raises(DataError, match="could not be written"):
        demo.run("digits", output=tmp_path / "file" / "out", console=quiet())


@pytest.mark.usefixtures("untrained")
def test_meaningless_epochs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="epochs"):
        demo.run("digits", epochs=0, output=tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("untrained")
def test_an_unknown_data_set_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 'letters'"):
        demo.run("letters", output=tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


def test_force_replaces_an_earlier_run_and_keeps_the_rest(tmp_path: Path) -> None:
    perform(tmp_path, epochs=1)
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    assert perform(tmp_path, epochs=2, force=True).numbers["rows"]["tied"]["epochs"] == 2
    assert (tmp_path / "letter.txt").read_text("utf-8") == "dear"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("finished", [0, 2])
def test_an_interrupt_keeps_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    monkeypatch.setattr(demo, "Progress", interrupting(("stacked", finished)))
    run = perform(tmp_path, epochs=5)
    stacked, tied = (run.numbers["rows"][name] for name in NETS)
    assert (stacked["epochs"], stacked["interrupted"]) == (finished, True)
    assert (tied["epochs"], tied["interrupted"]) == (max(finished, 1), False)
    assert f"stacked, interrupted after {finished} of 5 epochs" in run.page
    assert "Ctrl-C again ends the demo." in run.text


def test_an_interrupt_of_the_last_training_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Progress", interrupting(("tied", 1)))
    run = perform(tmp_path, epochs=3)
    assert [run.numbers["rows"][name]["epochs"] for name in NETS] == [3, 1]
    assert "tied, interrupted after 1 of 3 epochs" in page.readme_table(run.numbers)


def test_a_second_interrupt_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "Progress", interrupting(("stacked", 3), ("tied", 2)))
    with pytest.raises(KeyboardInterrupt):
        demo.run("digits", epochs=5, output=tmp_path, console=quiet())
    assert not list(tmp_path.iterdir())
