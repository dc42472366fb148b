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
    steps = {
        name: step_products(SIZES, case["batch_size"], case["tied"])
        for name, case in wanted["cases"].items()
    }
    channel.start(["torch", "numpy"], torch.get_num_threads)
    bound = Bound([product for counts in steps.values() for product in counts], wanted["threads"])
    while True:
        seconds = bound.measure()
        channel.epoch_done(
            np.nan,
            bounds={
                name: total(counts, seconds) * wanted["n_rows"] / wanted["cases"][name]["batch_size"]
                for name, counts in steps.items()
            },
            ways=bound.words(),
        )


if __name__ == "__main__":
    main()
