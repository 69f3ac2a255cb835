"""Dry run of a sweep: its runs and GANs, estimated time and disk space; nothing is written.

Counterpart of :mod:`leuk.runs.train`, with the same configs.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig

from leuk.grid.history import Estimate, History, same_device
from leuk.grid.state import Found, State
from leuk.runs.device import name_of
from leuk.runs.gan_fit import FACTS
from leuk.runs.identity import folder_of, initial_record
from leuk.runs.needs import GAN, Needs
from leuk.runs.preconditions import inspect
from leuk.runs.progress import clock
from leuk.store.artifacts import MANIFEST

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
