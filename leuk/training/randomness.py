"""Random streams that depend on seed, epoch and process alone.

A fit continued from the end of an epoch then draws what an unbroken one would have drawn.
"""

import torch

_EPOCHS, _RANKS = 1_000_003, 7_919
"""Primes that keep the streams of epochs and processes apart."""


def start_stream(seed: int, epoch: int, rank: int) -> None:
    """Seed torch's generators for one epoch of one process."""
    torch.manual_seed((seed + epoch * _EPOCHS + rank * _RANKS) % 2**63)
