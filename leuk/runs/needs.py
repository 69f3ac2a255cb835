"""What cells need beside themselves: decoded data, GANs, room; found out without making any."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from leuk.config.targets import instantiate
from leuk.data.cnmc import index_cells, labelled_cells
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import THUMB
from leuk.data.labels import Label
from leuk.runs.device import name_of
from leuk.runs.gan_fit import gan_key, gan_key_of
from leuk.runs.identity import choice_of, uses_gan
from leuk.runs.synthesis import classes_of, fits_of, wanted
from leuk.store.artefacts import NotMadeError, is_whole, only_found
from leuk.store.digest import digest

_FLOAT = 4
_WITH_MOMENTS = 3
"""Weights, and the two running means that Adam keeps of each."""

_PICTURES = 10_000_000
"""Bytes of a cell's pictures, maps, predictions and logs, generously."""

_PARTS = 4
"""Parts of stand-in cells."""


@dataclass(frozen=True, eq=False)
class GAN:
    """A GAN that cells of a sweep need.

    Attributes:
        name: form, classes, split and seed.
        folder: its artefact.
        key: what determines it; without the cells' content where they are not decoded yet.
        there: whether it is fitted.
        needed: how many of the cells to run need it.
        device: what it would be fitted on.
        size: bytes of its weights.
    """

    name: str
    folder: Path
    key: dict[str, Any]
    there: bool
    needed: int
    device: str
    size: int


class Needs:
    """Looks at the data of cells, each data set once, and at the artefacts that are there."""

    def __init__(self) -> None:
        self._data: dict[str, CNMCDataModule | None] = {}

    def gans(self, cells: Sequence[DictConfig], to_run: Sequence[DictConfig]) -> list[GAN]:
        """The GANs of ``cells``, in their order; counted by those ``to_run``.

        Raises:
            DataError: the data cannot be used, or is too little for a GAN.
        """
        found: dict[Path, GAN] = {}
        needed: Counter[Path] = Counter()
        for cfg in filter(uses_gan, cells):
            for labels, key in self._fits(cfg):
                folder = Path(str(cfg.outputs)) / "artefacts" / "gan" / digest(key)
                needed[folder] += any(cfg is one for one in to_run)
                if folder not in found:
                    found[folder] = _gan(cfg, labels, folder, key)
        return [GAN(**{**vars(gan), "needed": needed[folder]}) for folder, gan in found.items()]

    def _fits(self, cfg: DictConfig) -> list[tuple[tuple[Label, ...], dict[str, Any]]]:
        """The classes that each GAN of a cell is fitted on, and its key."""
        data = self._open(cfg)
        made = classes_of(cfg) if data is None else list(wanted(cfg, data))
        seen = dict.fromkeys(fits_of(cfg, made).values())
        if data is None:
            return [(labels, gan_key(cfg, f"{_source(cfg)} {labels}")) for labels in seen]
        return [(labels, gan_key_of(cfg, data, labels)) for labels in seen]

    def _open(self, cfg: DictConfig) -> CNMCDataModule | None:
        """The data of a cell, split; None where it is not decoded yet."""
        source = _source(cfg)
        if source not in self._data:
            try:
                with only_found():
                    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
                    data.setup()
                self._data[source] = data
            except NotMadeError:
                self._data[source] = None
        return self._data[source]

    def room(self, to_run: Sequence[DictConfig], gans: Sequence[GAN]) -> dict[str, int]:
        """Bytes that ``to_run`` will take at most, by what takes them."""
        sizes: Counter[str] = Counter()
        stores: dict[str, int] = {}
        for cfg in to_run:
            # The best weights, and those that a stopped fit goes on from.
            sizes["cells"] += 2 * _WITH_MOMENTS * _size_of(cfg.model) + _PICTURES
            data = self._open(cfg)
            if data is None:
                stores[_store(cfg)] = _images(cfg) * (3 * int(cfg.data.resolution) ** 2 + THUMB**2)
            elif uses_gan(cfg):
                sizes["made cells"] += sum(wanted(cfg, data).values()) * 3 * data.resolution**2
        # Two checkpoints while one takes the other's place, and the weights.
        missing = [gan.size for gan in gans if gan.needed and not gan.there]
        sizes["GANs"] = sum(missing) * (2 * _WITH_MOMENTS + 1)
        sizes["decoded images"] = sum(stores.values())
        return dict(sizes)


def _gan(cfg: DictConfig, labels: Sequence[Label], folder: Path, key: dict[str, Any]) -> GAN:
    classes = " and ".join(label.folder for label in labels)
    fold = f" fold {cfg.split.fold}" if "fold" in cfg.split else ""
    name = f"{choice_of('gan', cfg)} of {classes}, {choice_of('split', cfg)}{fold}, seed {cfg.seed}"
    device = name_of(cfg.trainer.accelerator)
    return GAN(name, folder, key, is_whole(folder), 0, device, _size_of(cfg.gan))


def _source(cfg: DictConfig) -> str:
    """What the rows of a cell's stages depend on, as text."""
    return f"{_store(cfg)} {_plain(cfg.split)}"


def _store(cfg: DictConfig) -> str:
    """What a store of pixels depends on, as text."""
    return _plain(cfg.data, without=("seed", "batch_size", "workers"))


def _plain(node: DictConfig, without: Collection[str] = ()) -> str:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    kept = {key: value for key, value in values.items() if key not in without}
    return json.dumps(kept, sort_keys=True)


def _images(cfg: DictConfig) -> int:
    if "root" not in cfg.data:
        return _PARTS * int(cfg.data.cells_per_part)
    root = Path(str(cfg.data.root)).expanduser()
    return len(labelled_cells(index_cells(root, cfg.data.on_corrupt)))


def _size_of(node: DictConfig) -> int:
    """Bytes of the weights of what a node describes."""
    with torch.device("meta"):
        network: nn.Module = instantiate(node)
    return _FLOAT * sum(parameter.numel() for parameter in network.parameters())
