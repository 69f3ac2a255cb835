"""Requirements of runs for the dry run: decoded data, GANs, disk space; nothing is created."""

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
from leuk.data.cnmc import index_images, labeled_images
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import THUMB
from leuk.data.labels import Label
from leuk.runs.device import name_of
from leuk.runs.gan_fit import gan_key, gan_key_of
from leuk.runs.identity import choice_of, uses_gan
from leuk.runs.synthesis import classes_of, gan_classes, images_to_add
from leuk.store.artifacts import MissingArtifactError, is_whole, read_only
from leuk.store.digest import digest

_FLOAT = 4
_WITH_MOMENTS = 3
"""Values per weight in a checkpoint: the weight and Adam's two running means."""

_OTHER_FILES = 10_000_000
"""Upper estimate in bytes of a run's figures, maps, predictions and logs."""

_SETS = 4
"""Number of sets in the phantom data: three folds and the preliminary test set."""


@dataclass(frozen=True, eq=False)
class GAN:
    """GAN that runs of a sweep need.

    Attributes:
        name: GAN, classes, split and seed.
        folder: folder of the artifact.
        key: key of the artifact; without a digest of the images if these are not decoded yet.
        trained: True if its artifact exists.
        needed: number of runs to execute that need it.
        device: name of the device for its training.
        size: size of its weights in bytes.
    """

    name: str
    folder: Path
    key: dict[str, Any]
    trained: bool
    needed: int
    device: str
    size: int


class Needs:
    """Finds requirements of runs from their data, each opened once, and from existing artifacts."""

    def __init__(self) -> None:
        self._data: dict[str, CNMCDataModule | None] = {}

    def gans(self, configs: Sequence[DictConfig], to_run: Sequence[DictConfig]) -> list[GAN]:
        """List the GANs of a sweep.

        Args:
            configs: configs of all runs.
            to_run: those of ``configs`` that will be executed, which ``needed`` counts.

        Raises:
            DataError: the data cannot be used, or are too few for a GAN.
        """
        found: dict[Path, GAN] = {}
        needed: Counter[Path] = Counter()
        for cfg in filter(uses_gan, configs):
            for labels, key in self._fits(cfg):
                folder = Path(str(cfg.outputs)) / "artifacts" / "gan" / digest(key)
                needed[folder] += any(cfg is other for other in to_run)
                if folder not in found:
                    found[folder] = _gan(cfg, labels, folder, key)
        return [GAN(**{**vars(gan), "needed": needed[folder]}) for folder, gan in found.items()]

    def _fits(self, cfg: DictConfig) -> list[tuple[tuple[Label, ...], dict[str, Any]]]:
        """Return the training classes and the key of each GAN of a run."""
        data = self._open(cfg)
        added = classes_of(cfg) if data is None else list(images_to_add(cfg, data))
        fits = dict.fromkeys(gan_classes(cfg, added).values())
        if data is None:
            return [(labels, gan_key(cfg, f"{_source(cfg)} {labels}")) for labels in fits]
        return [(labels, gan_key_of(cfg, data, labels)) for labels in fits]

    def _open(self, cfg: DictConfig) -> CNMCDataModule | None:
        """Open the data of a run; None if the images are not decoded yet."""
        source = _source(cfg)
        if source not in self._data:
            try:
                with read_only():
                    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
                    data.setup()
                self._data[source] = data
            except MissingArtifactError:
                self._data[source] = None
        return self._data[source]

    def disk_space(self, to_run: Sequence[DictConfig], gans: Sequence[GAN]) -> dict[str, int]:
        """Upper estimate of the disk space of the runs to execute, in bytes by kind of file."""
        sizes: Counter[str] = Counter()
        stores: dict[str, int] = {}
        for cfg in to_run:
            # A checkpoint with the best weights, and one for resuming.
            sizes["runs"] += 2 * _WITH_MOMENTS * _size_of(cfg.model) + _OTHER_FILES
            data = self._open(cfg)
            if data is None:
                stores[_store(cfg)] = _images(cfg) * (3 * int(cfg.data.resolution) ** 2 + THUMB**2)
            elif uses_gan(cfg):
                count = sum(images_to_add(cfg, data).values())
                sizes["synthetic images"] += count * 3 * data.resolution**2
        # Two checkpoints, while the new one replaces the old, and the final weights.
        missing = [gan.size for gan in gans if gan.needed and not gan.trained]
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
    """Serialize the settings that determine the rows of a run's stages."""
    return f"{_store(cfg)} {_plain(cfg.split)}"


def _store(cfg: DictConfig) -> str:
    """Serialize the settings that determine a pixel store."""
    return _plain(cfg.data, without=("seed", "batch_size", "workers"))


def _plain(node: DictConfig, without: Collection[str] = ()) -> str:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    kept = {key: value for key, value in values.items() if key not in without}
    return json.dumps(kept, sort_keys=True)


def _images(cfg: DictConfig) -> int:
    if "root" not in cfg.data:
        return _SETS * int(cfg.data.images_per_fold)
    root = Path(str(cfg.data.root)).expanduser()
    return len(labeled_images(index_images(root, cfg.data.on_corrupt)))


def _size_of(node: DictConfig) -> int:
    """Size in bytes of the weights of the network that a node describes."""
    with torch.device("meta"):
        network: nn.Module = instantiate(node)
    return _FLOAT * sum(parameter.numel() for parameter in network.parameters())
