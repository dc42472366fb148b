"""A job of training is plain data: it passes between processes as it is."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from twofold import Autoencoder, Masking
from twofold.distributed.job import TrainingJob

ROWS = np.arange(6.0).reshape(3, 2)


def job() -> TrainingJob:
    options = Autoencoder(n_components=1, corruption=Masking(0.2)).get_params(deep=False)
    return TrainingJob(options, ROWS, None, Path("checkpoints"), 60.0, Path("model"))


def test_a_worker_gets_the_rows_as_they_are() -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(job())).rows, ROWS)


def test_the_options_of_a_job_make_the_same_estimator() -> None:
    there = pickle.loads(pickle.dumps(job()))
    assert repr(Autoencoder(**there.options)) == repr(Autoencoder(**job().options))


def test_a_worker_cannot_change_its_job() -> None:
    with pytest.raises(FrozenInstanceError):
        job().seconds = 1.0  # type: ignore[misc]
