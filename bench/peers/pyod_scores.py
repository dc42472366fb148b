"""Detectors of PyOD with their default options, one request after another."""

from __future__ import annotations

import time
import traceback
import warnings
from importlib import import_module

import numpy as np
from channel import Channel


def main() -> None:
    import torch

    channel = Channel()
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(channel.settings["threads"]))
    for request in channel.requests():
        try:
            module, _, name = request["path"].partition(":")
            options = dict(request["options"])
            if request["seeded"]:
                options["random_state"] = request["seed"]
            with np.load(request["given"]) as given:
                train, test = given["train"], given["test"]
            detector = getattr(import_module(module), name)(**options)
            start = time.perf_counter()
            scores = detector.fit(train).decision_function(test)
            seconds = time.perf_counter() - start
            np.savez(request["answer"], scores=scores)
        except Exception as error:  # the other detectors go on; the log has the rest
            traceback.print_exc()
            channel.send(failed=f"{type(error).__name__}: {error}"[:300])
        else:
            channel.send(seconds=seconds)


if __name__ == "__main__":
    main()
