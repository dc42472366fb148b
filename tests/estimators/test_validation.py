"""Rows and codes are checked on their way in, and come back in the caller's container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, Files, load
from twofold.errors import DataError, OptionError
from twofold.estimators import validation
from twofold.nn.bottlenecks import Ordered
from twofold.nn.network import Network
from twofold.schema.schema import Schema
from twofold.training.batches import InMemory
from twofold.training.streaming import Stream

ROWS = np.random.default_rng(0).normal(size=(30, 4))


def test_names_are_those_of_the_training_frame() -> None:
    ae = Autoencoder()
    assert validation.names_of(ae) is None
    validation.table(ae, pd.DataFrame(ROWS, columns=list("abcd")), reset=True)
    assert list(validation.names_of(ae)) == list("abcd")


def test_a_masked_cell_is_missing() -> None:
    masked = np.ma.masked_array(ROWS, mask=ROWS > 2)
    table = validation.table(Autoencoder(), masked, reset=True)
    assert np.array_equal(np.isnan(table.values), ROWS > 2)


def test_other_columns_than_in_training_are_refused() -> None:
    ae = Autoencoder()
    validation.table(ae, ROWS, reset=True)
    with pytest.raises(DataError, match="3 features"):
        validation.table(ae, ROWS[:, :3], reset=False)


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (5,)])
def test_codes_have_the_networks_number_of_components(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="Expected codes with 2 components, got"):
        validation.codes(Network(4, (), 2), np.zeros(shape))


def test_codes_are_numbers() -> None:
    rows = pd.DataFrame({"a": [1.0], "town": ["Bern"]})
    with pytest.raises(DataError, match="numbers, got text in column 'town'"):
        validation.codes(Network(4, (), 2), rows)


def test_the_first_components_of_an_ordered_code_are_enough() -> None:
    network = Network(4, (), 2, bottleneck=Ordered())
    codes, index = validation.codes(network, np.ones((5, 1)))
    assert codes.tolist() == [[1.0, 0.0]] * 5
    assert index is None
    with pytest.raises(DataError, match="2 components or fewer"):
        validation.codes(network, np.ones((5, 3)))


def test_only_kinds_that_need_a_type_ask_for_one() -> None:
    kinds = {"a": "real", "b": "count", "c": "time", "d": "category"}
    expected = {"a": "number", "b": "number", "c": "time"}
    assert validation.wanted_types(kinds) == expected
    assert validation.wanted_types("auto") == {}


def test_rows_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="Expected rows of equal length"):
        validation.table(Autoencoder(), [[1.0, 2.0], [3.0]], reset=True)


def test_files_become_a_stream_and_leave_the_generator_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    rng = np.random.RandomState(0)
    files = Files(tmp_path / "rows.npy", stream=True)
    rows = validation.training_rows(Autoencoder(), files, rng, 0.1, reset=True)
    assert isinstance(rows, Stream)
    assert rng.randint(2**31) == np.random.RandomState(0).randint(2**31)


def test_rows_come_back_in_the_container_of_the_training_table() -> None:
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    schema = Schema.infer(validation.table(Autoencoder(), frame, reset=True))
    pd.testing.assert_frame_equal(validation.give_back(schema, ROWS), frame)


def test_rows_come_back_in_the_container_they_were_given_in() -> None:
    frame, ae = pd.DataFrame(ROWS, columns=list("abcd")), Autoencoder()
    schema = Schema.infer(validation.table(ae, frame, reset=True))
    given = validation.table(Autoencoder(), ROWS, reset=True)
    assert isinstance(validation.give_back(schema, ROWS, given), np.ndarray)


def copies(weight: object, rows: np.ndarray = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a weight, and as how many each counts."""
    table = validation.table(Autoencoder(), rows, reset=True)
    found = validation.weighted(InMemory(table, np.random.RandomState(seed), 0.0), weight)
    assert isinstance(found, InMemory)
    assert found.copies is not None
    return found.sample.values, found.copies


def test_whole_weights_are_numbers_of_equal_rows() -> None:
    rows, found = copies([0, 1, 3] * 10)
    np.testing.assert_array_equal(rows, ROWS.reshape(10, 3, 4)[:, 1:].reshape(20, 4))
    assert list(found) == [1, 3] * 10


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e5])
def test_other_weights_count_in_proportion(scale: float) -> None:
    weight = scale * np.tile([0.25, 0.4, 1.0], 10)
    found = np.mean([copies(weight, seed=seed)[1] for seed in range(50)], axis=0)
    np.testing.assert_allclose(found, weight / weight.min(), rtol=0.2)


def test_few_heavy_rows_are_not_copied_without_end() -> None:
    assert copies([1e9] + [1e-9] * 29)[1].sum() <= 300


@pytest.mark.parametrize(
    ("weight", "text"),
    [([1.0] * 29, "shape"), ([-1.0] * 30, "[Nn]egative"), ([np.nan] * 30, "NaN")],
)
def test_weights_that_cannot_be_are_refused(weight: list[float], text: str) -> None:
    with pytest.raises(DataError, match=text):
        Autoencoder().fit(ROWS, sample_weight=weight)


def test_a_pair_as_in_keras_is_refused_as_validation_data() -> None:
    with pytest.raises(DataError, match="Pass validation_data=X_valid"):
        Autoencoder(epochs=1).fit(ROWS, validation_data=(ROWS, ROWS))


def test_a_callback_alone_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Write callbacks=\[\.\.\.\]"):
        Autoencoder(epochs=1).fit(ROWS, callbacks=print)  # type: ignore[arg-type]


def test_images_of_another_size_are_told_which_was_expected() -> None:
    images = np.zeros((30, 4, 4))
    images[:, :2] = np.arange(30)[:, None, None]
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(images)
    with pytest.raises(DataError, match=r"shape \(4, 4\), as in training, got \(5, 4\)"):
        ae.predict(np.zeros((3, 5, 4)))


def test_weights_of_rows_in_files_are_refused(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="Expected rows in memory for sample_weight"):
        Autoencoder().fit(Files(str(tmp_path / "rows.csv"), stream=True), sample_weight=[1.0] * 30)


LABELS = [
    [0, 1, 2],
    [2020, 2021, 2022],
    pd.MultiIndex.from_product([["A"], ["x", "y", "z"]]),
    pd.date_range("2020", periods=3),
]


@pytest.mark.parametrize("labels", LABELS, ids=["numbers", "years", "levels", "times"])
def test_frames_keep_labels_that_are_no_text(labels: Any, tmp_path: Path) -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=labels)
    ae = Autoencoder(epochs=1, random_state=0).fit(X)
    for made in (ae.reconstruct(X), ae.sample(2), ae.inverse_transform(ae.transform(X))):
        assert made.columns.equals(X.columns)
    ae.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.reconstruct(X).columns.equals(X.columns)
    assert loaded.sample(1).columns.equals(X.columns) or labels is LABELS[-1]


@pytest.mark.parametrize("labels", LABELS[:3], ids=["numbers", "years", "levels"])
def test_columns_in_another_order_are_refused_whatever_their_labels(labels: Any) -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=labels)
    ae = Autoencoder(epochs=1, random_state=0).fit(X)
    with pytest.raises(DataError, match="in that order"):
        ae.score_samples(X[X.columns[::-1]])
    assert ae.transform(X.to_numpy()).shape == ae.transform(X).shape


def test_frames_keep_their_labels_where_a_model_knows_none() -> None:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=[3, 5])
    ae = Autoencoder(epochs=1, n_components=1, random_state=0).fit(X.to_numpy())
    assert ae.reconstruct(X).columns.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": [1.0], "b": [2.0]}, "got a mapping"),
        ([{"a": 1.0}, {"a": 2.0}], "got a list of mappings"),
        (np.zeros(3, [("a", "f8"), ("b", "f8")]), "got an array of records"),
        (np.arange(500.0), "got 1D array instead.\nReshape your data"),
        (np.ones((500, 2), complex), "Complex data not supported. Pass real"),
        (np.array([["1", "a"]] * 9), "Column 1 holds 'a' in row 0"),
    ],
    ids=["mapping", "mappings", "records", "cells", "complex", "text"],
)
def test_what_is_no_table_is_refused_in_a_sentence(rows: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        Autoencoder(epochs=1).fit(rows)
    assert message in str(error.value)
    assert len(str(error.value)) < 250
