"""Dry run of a sweep: its runs and GANs, estimated time and disk space; nothing is written."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.runs.gan import classes_of, gan_classes, gan_key, gan_rows, images_to_add
from leuk.runs.preconditions import inspect
from leuk.runs.record import RESUMED, Record, folders_of, read_records
from leuk.runs.run import choice_of, folder_of, uses_gan
from leuk.runs.state import State
from leuk.runs.trainer import clock, name_of
from leuk.store import MissingArtifactError, digest, is_whole, read_only


def plan(configs: Sequence[DictConfig]) -> str:
    """Describe the effect of starting these runs."""
    rows: dict[Path, list[str]] = {}  # by sweep
    names: dict[Path, str] = {}  # of GANs, by artifact
    needed: Counter[Path] = Counter()  # runs to execute that need a GAN
    opened: dict[str, CNMCDataModule | None] = {}
    to_run, conflicts = [], 0
    for cfg in configs:
        folder, found = folder_of(cfg, cfg.hydra), inspect(cfg)
        reason = f": {found.message}" if found.message else ""
        rows.setdefault(folder.parent, []).append(f"  {found.state:<14}  {folder.name}{reason}")
        repeated = found.state == State.OTHER and cfg.grid.on_mismatch == "rerun"
        starts = repeated or found.state in (State.MISSING, State.FAILED, State.STOPPED)
        to_run += [cfg] if starts else []
        conflicts += not starts and found.state in (State.OTHER, State.UNREADABLE)
        for gan, name in _gans(cfg, opened):
            names.setdefault(gan, name)
            needed[gan] += starts

    lines = []
    for sweep, of_sweep in rows.items():
        lines += [f"runs of {sweep}:", *of_sweep]
    lines += ["GANs, each trained once:"] if names else []
    trained = {gan: is_whole(gan) for gan in names}
    for gan, name in names.items():
        state = "trained" if trained[gan] else "missing" if needed[gan] else "not needed"
        lines.append(f"  {state:<14}  {name}, needed by {needed[gan] or 'none'} of the runs")
    new = sum(needed[gan] > 0 and not trained[gan] for gan in names)
    lines.append(f"{len(to_run)} of {len(configs)} runs to execute, {new} GANs to train")
    if conflicts:
        lines.append(
            f"{conflicts} folders in conflict, so that a start is refused: choose another "
            "name=NAME, or repeat runs with other settings by grid.on_mismatch=rerun"
        )
    lines += _cost(to_run, Path(str(configs[0].outputs)))
    return "\n".join([*lines, "dry run: nothing was executed or written"])


def _gans(cfg: DictConfig, opened: dict[str, CNMCDataModule | None]) -> Iterator[tuple[Path, str]]:
    """Artifact and name of each GAN of a run.

    ``opened`` keeps the data of each split, or None if its images are not decoded yet; the settings
    then stand in for the digest of the images.
    """
    if not uses_gan(cfg):
        return
    nodes: list[Any] = [OmegaConf.to_container(n, resolve=True) for n in (cfg.data, cfg.split)]
    for key in ("batch_size", "workers"):
        nodes[0].pop(key, None)
    source = json.dumps(nodes, sort_keys=True)
    if source not in opened:
        try:
            with read_only():
                module: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
                module.setup()
                opened[source] = module
        except MissingArtifactError:
            opened[source] = None
    data = opened[source]
    added = images_to_add(cfg, data) if data else classes_of(cfg)
    fold = f" fold {cfg.split.fold}" if "fold" in cfg.split else ""
    for labels in dict.fromkeys(gan_classes(cfg, added).values()):
        content = data.content(gan_rows(cfg, data, labels)) if data else f"{source} {labels}"
        classes = " and ".join(label.folder for label in labels)
        yield (
            Path(str(cfg.outputs)) / "artifacts" / "gan" / digest(gan_key(cfg, content)),
            f"{choice_of('gan', cfg)} of {classes}, {choice_of('split', cfg)}{fold}, "
            f"seed {cfg.seed}",
        )


# --- Time and disk space, from the records of earlier runs


def _cost(to_run: Sequence[DictConfig], outputs: Path) -> Iterator[str]:
    """Sentences on the time and the disk space that the runs will need."""
    runs = outputs / "runs"
    sweeps = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    records = [record for sweep in sweeps for record in read_records(sweep)[0]]
    # The time of a resumed fit covers only its rest.
    complete = [r for r in records if r.status == "complete" and RESUMED not in r.warnings]
    known = [time for cfg in to_run if (time := expected_seconds(cfg, complete)) is not None]
    if known:
        yield (
            f"time: about {clock(sum(known))} for {len(known)} runs one after another, from "
            f"{len(complete)} records, without the training of GANs"
        )
    if unknown := len(to_run) - len(known):
        yield f"time of {unknown} runs unknown: no record of such a run on this device yet"
    sizes = [
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for sweep in sweeps
        for folder in folders_of(sweep)
    ]
    existing = next(path for path in (outputs, *outputs.absolute().parents) if path.exists())
    free = f"{shutil.disk_usage(existing).free / 1e9:.2f} GB free in {outputs}"
    need = f"about {len(to_run) * mean(sizes) / 1e9:.2f} GB for the runs, " if sizes else ""
    yield f"disk space: {need}{free}"


def expected_seconds(cfg: DictConfig, complete: Sequence[Record]) -> float | None:
    """Median seconds of earlier runs of the same model, resolution and device, scaled by epochs.

    The augmentation is not included; None if there are no such runs.
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
