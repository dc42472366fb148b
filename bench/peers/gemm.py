"""Not a library but the floor under all of them: the matrix products of the epoch, alone."""

from __future__ import annotations

import numpy as np
import torch
from channel import Channel
from gemm_bound import Bound, step_products, total

SIZES = (784, 392, 196)


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    cases = wanted["cases"]
    # The gradient of a tied matrix is one product over twice the batch, or two and an addition.
    steps = {
        name: [step_products(SIZES, case["batch_size"], t) for t in {case["tied"], False}]
        for name, case in cases.items()
    }
    channel.start(["torch", "numpy"], torch.get_num_threads)
    products = [product for ways in steps.values() for counts in ways for product in counts]
    bound = Bound(products, wanted["threads"])
    while True:
        seconds = bound.measure()
        channel.epoch_done(
            np.nan,
            bounds={
                name: min(total(counts, seconds) for counts in ways)
                * (wanted["n_rows"] / cases[name]["batch_size"])
                for name, ways in steps.items()
            },
            ways=bound.words(),
        )


if __name__ == "__main__":
    main()
