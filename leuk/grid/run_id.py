"""Identity of a run of the grid, and the name of its folder."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from leuk.store.digest import digest

LEAKY = "_LEAKY"
"""Suffix of the name of a split whose stages may share patients."""

_LONGEST = 140
_ROOM_FOR_FOLD = 10

OF_AUGMENTATION = ("gan.", "gan_fit.", "augmentation.")
"""Prefixes of the keys of settings that matter only to the augmentation."""

CUT = "cut_"
"""Prefix of the hash at the end of a variant that was too long."""

_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
_NAME = re.compile(r"\w[\w .,+@=-]*")
_FOLD = re.compile(r"fold_(\d+)")
_BETWEEN_SETTINGS = re.compile(r"-(?=[A-Za-z])")
"""Separator of settings: their keys start with a letter, unlike the digits after -1 or 1e-05."""


@dataclass(frozen=True, order=True)
class RunId:
    """Identity of a run of the grid.

    Attributes:
        model: model such as ``cnn``.
        augmentation: augmentation such as ``dcgan``.
        split: split such as ``folds``.
        seed: seed of the initial weights, the order of images and sampling.
        variant: all other settings that change results and differ from the experiment's, as named
            by :func:`variant_of`; may be empty.
    """

    model: str
    augmentation: str
    split: str
    seed: int
    variant: str = ""

    @property
    def folder(self) -> str:
        """Folder name ``<model>-<augmentation>-<split>-s<seed>[-<variant>]``."""
        name = f"{self.model}-{self.augmentation}-{self.split}-s{self.seed}"
        return f"{name}-{self.variant}" if self.variant else name

    @cached_property
    def fold(self) -> int:
        """Fold of the split from the variant; 0, the default of splits, if it contains none."""
        folds = [found for text in self.settings if (found := _FOLD.fullmatch(text))]
        return int(folds[0][1]) if folds else 0

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """Settings in the variant, such as ``("fold_1", "resolution_96")``."""
        return tuple(_BETWEEN_SETTINGS.split(self.variant)) if self.variant else ()

    @cached_property
    def configuration(self) -> "RunId":
        """Configuration, common to all seeds and folds: this run with seed 0 and no fold."""
        kept = [text for text in self.settings if not _FOLD.fullmatch(text)]
        return replace(self, seed=0, variant="-".join(kept).strip("_"))

    @property
    def augmentation_settings(self) -> tuple[str, ...]:
        """Settings in the variant that matter only to the augmentation."""
        return tuple(text for text in self.settings if text.startswith(OF_AUGMENTATION))

    @cached_property
    def plain(self) -> "RunId":
        """The same run without augmentation and its settings."""
        kept = [text for text in self.settings if text not in self.augmentation_settings]
        return replace(self, augmentation="none", variant="-".join(kept).strip("_"))

    @property
    def title(self) -> str:
        """Name of the configuration in tables: the folder name without seed and fold."""
        parts = (self.model, self.augmentation, self.split, self.configuration.variant)
        return "-".join(part for part in parts if part)

    def check(self) -> None:
        """Check the names of a run that was read from a file.

        Raises:
            ValueError: a name contains characters that are not allowed in a folder name or would
                be markup in a report.
        """
        for axis in ("model", "augmentation", "split"):
            if not _NAME.fullmatch(getattr(self, axis)):
                raise ValueError(f"run.{axis}={getattr(self, axis)!a}: not a valid name")
        if _UNSAFE.search(self.variant.replace("_", "")):
            raise ValueError(f"run.variant={self.variant!a}: not a valid name")

    def to_dict(self) -> dict[str, Any]:
        """Plain values as saved in a record."""
        return asdict(self)


def sweep_folder(outputs: str, name: str) -> Path:
    """Folder ``<outputs>/runs/<name>`` with the run folders of a sweep."""
    return Path(outputs) / "runs" / name


def variant_of(settings: Mapping[str, Any]) -> str:
    """Return a name for settings that differ from the experiment's.

    ``{"data.resolution": 96}`` gives ``resolution_96``: only the last component of a key is used,
    unless two keys share it. Settings of the augmentation keep their whole key, so that they can be
    recognized. If the name is too long for a folder, the longest settings but the fold are dropped,
    and a hash of all settings but the fold is appended, so that the folds of a configuration keep
    matching names.

    Args:
        settings: values by key, such as ``data.resolution``.
    """
    short = {key: key.rpartition(".")[2] for key in settings if not key.startswith(OF_AUGMENTATION)}
    shared = Counter(short.values())
    parts = []
    for key in settings:
        name = short[key] if key in short and shared[short[key]] == 1 else key
        parts.append(_UNSAFE.sub("_", f"{name}_{settings[key]}"))
    fold = [part for part in parts if _FOLD.fullmatch(part)]
    rest = [part for part in parts if part not in fold]
    # Neither length nor hash depends on the fold, so all folds of a configuration match.
    if len("-".join(rest)) <= _LONGEST - _ROOM_FOR_FOLD:
        return "-".join(sorted(parts)).strip("_")
    cut = f"{CUT}{digest({key: settings[key] for key in settings if key != 'split.fold'})}"
    rest.sort(key=lambda part: (len(part), part))
    while len("-".join([*rest, cut])) > _LONGEST - _ROOM_FOR_FOLD:
        rest.pop()
    return "-".join([*sorted([*rest, *fold]), cut])
