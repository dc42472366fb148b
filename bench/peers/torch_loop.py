"""The same net as one writes it in PyTorch: a module, an optimizer, a loop over batches.

With `compile`, forward pass, loss and backward pass go through torch.compile.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from channel import Channel
from torch import Tensor, nn


class Stack(nn.Module):
    """784-392-196-392-784 with selu; returns log-odds. Tied, the decoder has biases of its own."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.up1, self.up2 = nn.Linear(784, 392), nn.Linear(392, 196)
        self.tied = tied
        if tied:
            self.bias2 = nn.Parameter(torch.zeros(392))
            self.bias1 = nn.Parameter(torch.zeros(784))
        else:
            self.down2, self.down1 = nn.Linear(196, 392), nn.Linear(392, 784)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = F.selu(self.up2(F.selu(self.up1(x))))
        if self.tied:
            h = F.selu(F.linear(h, self.up2.weight.t(), self.bias2))
            return F.linear(h, self.up1.weight.t(), self.bias1)
        return self.down1(F.selu(self.down2(h)))


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    torch.manual_seed(0)
    x = torch.from_numpy(np.load(wanted["train"])[: wanted["n_rows"]])
    net = Stack(wanted["tied"])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.5)

    def loss_of(rows: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(rows), rows)

    if wanted.get("compile"):
        # Each of the two batch sizes (the last batch is short) gets code of its own.
        loss_of = torch.compile(loss_of, dynamic=False)

    channel.start(["torch", "numpy"], torch.get_num_threads)
    while True:
        total = torch.zeros(())
        for at in torch.randperm(len(x)).split(wanted["batch_size"]):
            loss = loss_of(x[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(at)
        channel.epoch_done(float(total) / len(x))


if __name__ == "__main__":
    main()
