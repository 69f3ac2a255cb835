"""Random streams that depend only on seed, epoch and process.

A fit resumed at the end of an epoch therefore draws the same numbers as an uninterrupted one.
"""

import torch

_EPOCHS, _RANKS = 1_000_003, 7_919
"""Primes, so that epochs and processes get different seeds."""


def start_stream(seed: int, epoch: int, rank: int) -> None:
    """Seed torch's generators for an epoch of the process with this rank."""
    torch.manual_seed((seed + epoch * _EPOCHS + rank * _RANKS) % 2**63)
