"""Dry run of a sweep: its runs and GANs, estimated time and disk space; nothing is written.

Counterpart of :mod:`leuk.runs.train`, with the same configs.
"""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import THUMB
from leuk.data.labels import Label
from leuk.data.layouts import index_images, labeled_images
from leuk.runs.gan import FACTS, classes_of, gan_classes, gan_key, gan_key_of, images_to_add
from leuk.runs.preconditions import inspect
from leuk.runs.run import choice_of, folder_of, initial_record, uses_gan
from leuk.runs.state import Estimate, Found, History, State, same_device
from leuk.runs.trainer import clock, name_of
from leuk.store import MANIFEST, MissingArtifactError, digest, is_whole, read_only

# --- Requirements of runs for the dry run: decoded data, GANs, disk space; nothing is created

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


_SKIPPED = (State.COMPLETE, State.RUNNING, State.UNREADABLE)
_CONFLICTING = (State.OTHER, State.UNREADABLE)


@dataclass(frozen=True, eq=False)
class Planned:
    """Plan of a run.

    Attributes:
        folder: folder of the run, existing or not.
        found: its state.
        runs: whether a start of the sweep executes it.
        estimate: time without its GAN; None if unknown or if the run is not executed.
    """

    folder: Path
    found: Found
    runs: bool
    estimate: Estimate | None


def plan(configs: Sequence[DictConfig]) -> str:
    """Describe the effect of starting these runs.

    Args:
        configs: config of each run, with its ``hydra`` node.

    Raises:
        DataError: the data are not usable; a start would fail too.
    """
    planned = _planned(configs)
    to_run = [cfg for cfg, item in zip(configs, planned, strict=True) if item.runs]
    needs = Needs()
    gans = needs.gans(configs, to_run)
    fits = {gan.folder: _estimate(gan) for gan in gans if gan.needed and not gan.trained}
    lines = [
        *_run_rows(planned),
        *_gan_rows(gans, fits),
        *_totals(planned, fits),
        *_disk_space(str(configs[0].outputs), needs.disk_space(to_run, gans)),
        "dry run: nothing was executed or written",
    ]
    return "\n".join(lines)


def _planned(configs: Sequence[DictConfig]) -> list[Planned]:
    history = cache(History.read)
    planned = []
    for cfg in configs:
        found, estimate = inspect(cfg), None
        runs = found.state not in _SKIPPED
        if found.state == State.OTHER:
            runs = cfg.grid.on_mismatch == "rerun"
        if runs:
            known = history(Path(str(cfg.outputs)) / "runs", name_of(cfg.trainer.accelerator))
            explained = any(node is not None for node in cfg.explain.values())
            estimate = known.estimate(initial_record(cfg, cfg.hydra), explained)
        planned.append(Planned(folder_of(cfg, cfg.hydra), found, runs, estimate))
    return planned


def _estimate(gan: GAN) -> Estimate | None:
    """Estimate from trained GANs with the same settings, on any images and with any seed."""
    seconds: dict[str, float] = {}
    for path in gan.folder.parent.glob(f"*/{FACTS}"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        key = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))["key"]
        device = same_device(facts["device"], gan.device)
        if facts["whole"] and device and _bare(key) == _bare(gan.key):
            seconds[path.parent.name] = facts["seconds"]
    return Estimate(median(seconds.values()), frozenset(seconds)) if seconds else None


def _bare(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in ("images", "seed")}


def _run_rows(planned: Sequence[Planned]) -> Iterable[str]:
    for sweep in dict.fromkeys(item.folder.parent for item in planned):
        yield f"runs of {sweep}:"
        for item in planned:
            if item.folder.parent == sweep:
                reason = f": {item.found.message}" if item.found.message else ""
                time = _clock(item.estimate)
                yield f"  {item.found.state:<14}  {time}  {item.folder.name}{reason}"


def _gan_rows(gans: Sequence[GAN], fits: Mapping[Path, Estimate | None]) -> Iterable[str]:
    if gans:
        yield "GANs, each trained once:"
    for gan in gans:
        state = "trained" if gan.trained else "missing" if gan.needed else "not needed"
        use = f"needed by {gan.needed} of the runs" if gan.needed else "needed by none of the runs"
        yield f"  {state:<14}  {_clock(fits.get(gan.folder))}  {gan.name}, {use}"


def _totals(planned: Sequence[Planned], fits: Mapping[Path, Estimate | None]) -> Iterable[str]:
    """Total number of runs and GANs, conflicting folders, and total time."""
    running = [item for item in planned if item.runs]
    yield f"{len(running)} of {len(planned)} runs to execute, {len(fits)} GANs to train"
    refused = [item for item in planned if item.found.state in _CONFLICTING and not item.runs]
    if refused:
        yield (
            f"{len(refused)} folders in conflict, so that a start is refused: choose another "
            "name=NAME, or repeat runs with other settings by grid.on_mismatch=rerun"
        )
    estimates = [*(item.estimate for item in running), *fits.values()]
    known = [estimate for estimate in estimates if estimate is not None]
    if known:
        rough = "; ~ scaled from other settings" if any(item.rough for item in known) else ""
        records = frozenset[str]().union(*(item.records for item in known))
        yield (
            f"time: about {clock(sum(item.seconds for item in known))} one after another, from "
            f"{len(records)} records of this device{rough}"
        )
    if unknown := len(estimates) - len(known):
        yield f"time of {unknown} of them unknown: no comparable record on this device yet"


def _disk_space(outputs: str, needed: Mapping[str, int]) -> Iterable[str]:
    folder = Path(outputs).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, total = shutil.disk_usage(existing).free, sum(needed.values())
    listed = ", ".join(f"{item} {size / 1e9:.2f}" for item, size in needed.items() if size)
    short = "" if total <= free else "; TOO LITTLE, choose another disk with outputs=DIR"
    yield (
        f"disk space: at most {total / 1e9:.2f} GB{f' ({listed})' if listed else ''}, "
        f"{free / 1e9:.2f} GB free in {outputs}{short}"
    )


def _clock(estimate: Estimate | None) -> str:
    if estimate is None:
        return " " * 8
    return f"{'~' if estimate.rough else ''}{clock(estimate.seconds)}".rjust(8)
