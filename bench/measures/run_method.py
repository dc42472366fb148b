"""Runs methods of twofold's environment, one request after another, and writes their answers."""

from __future__ import annotations

import time
import traceback
import warnings
from typing import Any

import numpy as np
from channel import Channel
from methods import METHODS

Arrays = dict[str, np.ndarray]


def main() -> None:
    import torch

    channel = Channel()
    warnings.simplefilter("ignore")  # what a method warns of is not what is measured
    torch.set_num_threads(int(channel.settings["threads"]))
    for request in channel.requests():
        try:
            with np.load(request["given"]) as found:
                given = {name: found[name] for name in found.files}
            start = time.perf_counter()
            answer = call(given, request)
            seconds = time.perf_counter() - start
            np.savez(request["answer"], **answer)
        except Exception as error:  # the other methods go on; the log has the rest
            traceback.print_exc()
            channel.send(failed=f"{type(error).__name__}: {error}"[:300])
        else:
            channel.send(seconds=seconds)


def call(given: Arrays, request: dict[str, Any]) -> Arrays:
    """Call the method as its sort is called."""
    function = METHODS[request["call"]][request["method"]].function
    seed = request["seed"]
    match request["call"]:
        case "detector":
            return {"scores": function(given["train"], given["test"], seed)}
        case "imputer":
            return {"filled": _impute(function, given, seed)}
    return function(given, seed, request["options"])


def _impute(function: Any, given: Arrays, seed: int) -> np.ndarray:
    """Impute a matrix; where it comes with a column of text, a frame, of which numbers return."""
    x = given["X"]
    if "text" not in given:
        return np.asarray(function(x, seed))
    import pandas

    names = [f"x{i}" for i in range(x.shape[1])]
    frame = pandas.DataFrame(x, columns=names)
    frame["text"] = pandas.array(given["text"].tolist(), dtype="str")
    filled = function(frame, seed)
    if isinstance(filled, pandas.DataFrame):
        filled = filled[names].to_numpy()
    return np.asarray(filled)[:, : x.shape[1]]


if __name__ == "__main__":
    main()
