"""Dry run of a sweep: its runs and GANs, estimated time and disk space; nothing is written.

Counterpart of :mod:`leuk.runs.train`, with the same configs.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.runs.gan import classes_of, gan_classes, gan_key, gan_rows, images_to_add
from leuk.runs.preconditions import inspect
from leuk.runs.record import RESUMED, Record, folders_of, read_records
from leuk.runs.run import choice_of, folder_of, uses_gan
from leuk.runs.state import Found, State
from leuk.runs.trainer import clock, name_of
from leuk.store import MissingArtifactError, digest, is_whole, read_only

_SKIPPED = (State.COMPLETE, State.RUNNING, State.UNREADABLE)
_CONFLICTING = (State.OTHER, State.UNREADABLE)


def plan(configs: Sequence[DictConfig]) -> str:
    """Describe the effect of starting these runs.

    Args:
        configs: config of each run, with its ``hydra`` node.

    Raises:
        DataError: the data are not usable; a start would fail too.
    """
    found = [inspect(cfg) for cfg in configs]
    starts = [_starts(cfg, one) for cfg, one in zip(configs, found, strict=True)]
    to_run = [cfg for cfg, start in zip(configs, starts, strict=True) if start]
    gans = _gans(configs, to_run)
    lines = list(_run_rows(configs, found))
    if gans:
        lines.append("GANs, each trained once:")
    for gan in gans:
        state = "trained" if gan.trained else "missing" if gan.needed else "not needed"
        use = f"needed by {gan.needed or 'none'} of the runs"
        lines.append(f"  {state:<14}  {gan.name}, {use}")
    new = sum(gan.needed > 0 and not gan.trained for gan in gans)
    lines.append(f"{len(to_run)} of {len(configs)} runs to execute, {new} GANs to train")
    conflicts = sum(
        one.state in _CONFLICTING and not start for one, start in zip(found, starts, strict=True)
    )
    if conflicts:
        lines.append(
            f"{conflicts} folders in conflict, so that a start is refused: choose another "
            "name=NAME, or repeat runs with other settings by grid.on_mismatch=rerun"
        )
    lines += _cost(to_run, Path(str(configs[0].outputs)))
    return "\n".join([*lines, "dry run: nothing was executed or written"])


def _starts(cfg: DictConfig, found: Found) -> bool:
    """Return True if a start of the sweep executes the run."""
    if found.state == State.OTHER:
        return bool(cfg.grid.on_mismatch == "rerun")
    return found.state not in _SKIPPED


def _run_rows(configs: Sequence[DictConfig], found: Sequence[Found]) -> Iterator[str]:
    folders = [folder_of(cfg, cfg.hydra) for cfg in configs]
    for sweep in dict.fromkeys(folder.parent for folder in folders):
        yield f"runs of {sweep}:"
        for folder, one in zip(folders, found, strict=True):
            if folder.parent == sweep:
                reason = f": {one.message}" if one.message else ""
                yield f"  {one.state:<14}  {folder.name}{reason}"


# --- GANs that runs of a sweep need


@dataclass(frozen=True)
class GAN:
    """GAN that runs of a sweep need.

    Attributes:
        name: GAN, classes, split and seed.
        trained: True if its artifact exists.
        needed: number of runs to execute that need it.
    """

    name: str
    trained: bool
    needed: int


def _gans(configs: Sequence[DictConfig], to_run: Sequence[DictConfig]) -> list[GAN]:
    """List the GANs of a sweep; the data of each split are opened once."""
    names: dict[Path, str] = {}
    needed: Counter[Path] = Counter()
    opened: dict[str, CNMCDataModule | None] = {}
    for cfg in filter(uses_gan, configs):
        source = json.dumps([_plain(cfg.data), _plain(cfg.split)], sort_keys=True)
        if source not in opened:
            opened[source] = _open(cfg)
        for labels, key in _fits(cfg, opened[source], source):
            folder = Path(str(cfg.outputs)) / "artifacts" / "gan" / digest(key)
            needed[folder] += any(cfg is other for other in to_run)
            names.setdefault(folder, _name(cfg, labels))
    return [GAN(name, is_whole(folder), needed[folder]) for folder, name in names.items()]


def _open(cfg: DictConfig) -> CNMCDataModule | None:
    """Open the data of a run; None if the images are not decoded yet."""
    try:
        with read_only():
            data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
            data.setup()
    except MissingArtifactError:
        return None
    return data


def _fits(
    cfg: DictConfig, data: CNMCDataModule | None, source: str
) -> list[tuple[tuple[Label, ...], dict[str, Any]]]:
    """Return the training classes and the key of each GAN of a run.

    Without decoded images, the settings ``source`` stand in for their digest in the key.
    """
    added = classes_of(cfg) if data is None else list(images_to_add(cfg, data))
    fits = dict.fromkeys(gan_classes(cfg, added).values())
    if data is None:
        return [(labels, gan_key(cfg, f"{source} {labels}")) for labels in fits]
    return [(labels, gan_key(cfg, data.content(gan_rows(cfg, data, labels)))) for labels in fits]


def _name(cfg: DictConfig, labels: Sequence[Label]) -> str:
    classes = " and ".join(label.folder for label in labels)
    fold = f" fold {cfg.split.fold}" if "fold" in cfg.split else ""
    return f"{choice_of('gan', cfg)} of {classes}, {choice_of('split', cfg)}{fold}, seed {cfg.seed}"


def _plain(node: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    kept = {str(key): value for key, value in values.items()}
    return {key: kept[key] for key in kept if key not in ("batch_size", "workers")}


# --- Time and disk space, from the records of earlier runs


def _cost(to_run: Sequence[DictConfig], outputs: Path) -> Iterator[str]:
    """Sentences on the time and the disk space that the runs will need."""
    runs = outputs / "runs"
    sweeps = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    complete = [record for sweep in sweeps for record in read_records(sweep)[0] if _usable(record)]
    known = [time for cfg in to_run if (time := expected_seconds(cfg, complete)) is not None]
    if known:
        yield (
            f"time: about {clock(sum(known))} for {len(known)} runs one after another, from "
            f"{len(complete)} records, without the training of GANs"
        )
    if unknown := len(to_run) - len(known):
        yield f"time of {unknown} runs unknown: no record of such a run on this device yet"
    sizes = [_size(folder) for sweep in sweeps for folder in folders_of(sweep)]
    existing = next(path for path in (outputs, *outputs.absolute().parents) if path.exists())
    free = f"{shutil.disk_usage(existing).free / 1e9:.2f} GB free in {outputs}"
    need = f"about {len(to_run) * mean(sizes) / 1e9:.2f} GB for the runs, " if sizes else ""
    yield f"disk space: {need}{free}"


def _usable(record: Record) -> bool:
    return record.status == "complete" and RESUMED not in record.warnings


def expected_seconds(cfg: DictConfig, complete: Sequence[Record]) -> float | None:
    """Median time of earlier runs of the same model, resolution and device, scaled by epochs.

    Args:
        cfg: config of the run.
        complete: records of earlier runs.

    Returns:
        Seconds without the augmentation; None if there are no such runs.
    """
    device = name_of(cfg.trainer.accelerator)
    found = []
    for record in complete:
        settings, stages = record.settings, record.timings
        same = (
            record.device.get("name") == device
            and settings.get("model", {}).get("_target_") == cfg.model._target_
            and settings.get("data", {}).get("resolution") == cfg.data.resolution
        )
        if same and "fit" in stages:
            others = stages["total"] - stages.get("augmentation", 0.0) - stages["fit"]
            found.append(others + stages["fit"] * cfg.fit.epochs / settings["fit"]["epochs"])
    return median(found) if found else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
