"""The identity of a cell of the grid, and the folder it names."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from leuk.store.digest import digest

LEAKY = "_LEAKY"
"""Ends the name of a split whose stages may share persons, wherever the name is seen."""

_LONGEST = 140
_ROOM_FOR_FOLD = 10

OF_AUGMENTATION = ("gan.", "gan_fit.", "augmentation.")
"""What the keys of settings begin with that count for the augmentation alone."""

CUT = "cut_"
"""Before the hash that ends the variant of a cell with too many settings."""

_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
_NAME = re.compile(r"\w[\w .,+@=-]*")
_FOLD = re.compile(r"fold_(\d+)")
_BETWEEN_SETTINGS = re.compile(r"-(?=[A-Za-z])")
"""Keys begin with a letter, and what follows the dash of -1 or 1e-05 does not."""


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

    @cached_property
    def fold(self) -> int:
        """The fold of the split that the variant names; 0 where none does, as splits have it."""
        folds = [found for text in self.settings if (found := _FOLD.fullmatch(text))]
        return int(folds[0][1]) if folds else 0

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The parts of the variant, such as ``("fold_1", "resolution_96")``."""
        return tuple(_BETWEEN_SETTINGS.split(self.variant)) if self.variant else ()

    @cached_property
    def line(self) -> "Cell":
        """The cell that stands for all seeds and folds of this one: seed 0, no fold named."""
        kept = [text for text in self.settings if not _FOLD.fullmatch(text)]
        return replace(self, seed=0, variant="-".join(kept).strip("_"))

    @property
    def augmentation_settings(self) -> tuple[str, ...]:
        """The settings that count for the augmentation alone."""
        return tuple(text for text in self.settings if text.startswith(OF_AUGMENTATION))

    @cached_property
    def plain(self) -> "Cell":
        """The same model without augmentation, and so without settings of it."""
        kept = [text for text in self.settings if text not in self.augmentation_settings]
        return replace(self, augmentation="none", variant="-".join(kept).strip("_"))

    @property
    def title(self) -> str:
        """The folder's name without seed and fold, for a line of a table."""
        parts = (self.model, self.augmentation, self.split, self.line.variant)
        return "-".join(part for part in parts if part)

    def check(self) -> None:
        """Refuse names that no cell has.

        Raises:
            ValueError: one that could not be a folder's, or would mean something on a page.
        """
        for axis in ("model", "augmentation", "split"):
            if not _NAME.fullmatch(getattr(self, axis)):
                raise ValueError(f"cell.{axis} is no name: {getattr(self, axis)!a}")
        if _UNSAFE.search(self.variant.replace("_", "")):
            raise ValueError(f"cell.variant is no name: {self.variant!a}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a record."""
        return asdict(self)


def sweep_folder(outputs: str, name: str) -> Path:
    """``<outputs>/runs/<name>``, where the cells of a sweep lie."""
    return Path(outputs) / "runs" / name


def variant_of(settings: Mapping[str, Any]) -> str:
    """Name settings that differ from the experiment's.

    ``{"data.resolution": 96}`` gives ``resolution_96``: the last part of a key is enough unless two
    keys share it. Settings of the augmentation keep their whole key, so that a line can be told
    from the same model's without made cells. A name too long for a folder loses its longest
    settings, never the fold, and ends in a hash of all but the fold, so that the folds of one model
    stay recognisable.
    """
    short = {key: key.rpartition(".")[2] for key in settings if not key.startswith(OF_AUGMENTATION)}
    shared = Counter(short.values())
    parts = []
    for key in settings:
        name = short[key] if key in short and shared[short[key]] == 1 else key
        parts.append(_UNSAFE.sub("_", f"{name}_{settings[key]}"))
    fold = [part for part in parts if _FOLD.fullmatch(part)]
    rest = [part for part in parts if part not in fold]
    # The fold takes no part in what is cut: without it all folds of a line have one name.
    if len("-".join(rest)) <= _LONGEST - _ROOM_FOR_FOLD:
        return "-".join(sorted(parts)).strip("_")
    cut = f"{CUT}{digest({key: settings[key] for key in settings if key != 'split.fold'})}"
    rest.sort(key=lambda part: (len(part), part))
    while len("-".join([*rest, cut])) > _LONGEST - _ROOM_FOR_FOLD:
        rest.pop()
    return "-".join([*sorted([*rest, *fold]), cut])
