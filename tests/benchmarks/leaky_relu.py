"""Speed of a discriminator with leuk's fused LeakyReLU and dropout, compared with torch's layers.

usage: python tests/benchmarks/leaky_relu.py [resolution [batch]]
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from leuk.gans.dcgan import Discriminator
from leuk.gans.layers import LeakyReLU
from leuk.gans.penalties import gradient_penalty


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Shortest time of several rounds, after one round of warm-up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def with_torch_layers(network: nn.Sequential) -> nn.Sequential:
    """Copy in which leuk's LeakyReLU layers are replaced by torch's LeakyReLU and dropout."""
    layers: list[nn.Module] = []
    for layer in network:
        ours = isinstance(layer, LeakyReLU)
        layers += [nn.LeakyReLU(layer.slope), nn.Dropout(layer.dropout)] if ours else [layer]
    return nn.Sequential(*layers)


def main(resolution: int = 64, batch: int = 32) -> None:
    """Print the speed-ups of a discriminator step and of a gradient penalty."""
    ours = Discriminator(resolution, (64, 128), 0.5, "torch").to(memory_format=torch.channels_last)
    theirs = with_torch_layers(ours)
    images = torch.randn(batch, 3, resolution, resolution)
    images = images.contiguous(memory_format=torch.channels_last)
    shares = torch.rand(batch, 1, 1, 1)

    def step(network: nn.Module) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = network(images).float().sum()
        loss.backward()

    def penalty(network: nn.Module) -> None:
        gradient_penalty(network, images, -images, shares).backward()

    for name, work in (("step", step), ("gradient penalty", penalty)):
        ratio = seconds(lambda w=work: w(theirs)) / seconds(lambda w=work: w(ours))
        print(f"discriminator {name}: {ratio:.1f}x (CPU, {resolution} px, batch {batch})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
