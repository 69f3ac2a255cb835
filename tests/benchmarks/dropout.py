"""How much faster a step of the DCGAN's discriminator is with our dropout than with torch's.

usage: python tests/benchmarks/dropout.py [resolution [batch]]
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from leuk.gans.blocks import Dropout
from leuk.gans.dcgan import Discriminator


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Best time of several rounds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def with_torch_dropout(network: nn.Sequential) -> nn.Sequential:
    """The same layers, each of our dropouts replaced by torch's."""
    return nn.Sequential(
        *(nn.Dropout(layer.share) if isinstance(layer, Dropout) else layer for layer in network)
    )


def main(resolution: int = 64, batch: int = 32) -> None:
    """Print the ratios of the layer alone and of a whole step."""
    values = torch.randn(batch, 64, resolution // 2, resolution // 2)
    values = values.contiguous(memory_format=torch.channels_last)
    layer = seconds(lambda: nn.Dropout(0.5)(values)) / seconds(lambda: Dropout(0.5)(values))
    ours = Discriminator(resolution, (64, 128), 0.5).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, resolution, resolution)
    images = images.contiguous(memory_format=torch.channels_last)

    def step(network: nn.Module) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(images).float().sum()
        loss.backward()

    theirs = with_torch_dropout(ours)
    whole = seconds(lambda: step(theirs)) / seconds(lambda: step(ours))
    print(f"dropout alone {layer:.1f}x, discriminator step {whole:.1f}x (CPU, {resolution} px)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
