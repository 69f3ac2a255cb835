"""The identity of a cell of the grid, and the folder it names."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from leuk.store.digest import digest

LEAKY = "_LEAKY"
"""Ends the name of a split whose stages may share persons, wherever the name is seen."""

_LONGEST = 80


@dataclass(frozen=True, order=True)
class Cell:
    """What makes one cell of the grid different from every other.

    Attributes:
        model: such as ``cnn``.
        augmentation: such as ``dcgan``.
        split: such as ``folds``.
        seed: of weights, order and sampling.
        variant: every other setting that differs from the experiment's and changes results; empty
            if there is none.
    """

    model: str
    augmentation: str
    split: str
    seed: int
    variant: str = ""

    @property
    def folder(self) -> str:
        """``<model>-<augmentation>-<split>-s<seed>[-<variant>]``."""
        name = f"{self.model}-{self.augmentation}-{self.split}-s{self.seed}"
        return f"{name}-{self.variant}" if self.variant else name

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a record."""
        return asdict(self)


def variant_of(settings: Mapping[str, Any]) -> str:
    """Name settings that differ from the experiment's.

    ``{"data.resolution": 96}`` gives ``resolution_96``: the last part of a key is enough unless two
    keys share it. A name too long for a folder is cut and ends in a hash of the whole.
    """
    last = [key.rpartition(".")[2] for key in settings]
    parts = []
    for key, short in zip(settings, last, strict=True):
        name = key if last.count(short) > 1 else short
        parts.append(f"{name}_{settings[key]}")
    text = re.sub(r"[^A-Za-z0-9.+-]+", "_", "-".join(sorted(parts))).strip("_")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 17]}-{digest(dict(settings))}"
