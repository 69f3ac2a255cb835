"""What a sweep would do: its cells and GANs, how long they take, how much room; nothing is written.

The counterpart of :mod:`leuk.runs.cell_run`, from the same configs.
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
from leuk.runs.beforehand import inspect
from leuk.runs.device import name_of
from leuk.runs.gan_fit import FACTS
from leuk.runs.identity import begin, folder_of
from leuk.runs.needs import GAN, Needs
from leuk.runs.progress import clock
from leuk.store.artefacts import MANIFEST

_LEFT_ALONE = (State.COMPLETE, State.RUNNING, State.UNREADABLE)
_IN_THE_WAY = (State.OTHER, State.UNREADABLE)


@dataclass(frozen=True, eq=False)
class Planned:
    """One cell of the sweep.

    Attributes:
        folder: where it is or will be.
        found: how far it is.
        runs: whether a start runs it.
        estimate: how long it takes beside its GAN; None where nothing is known, or to be done.
    """

    folder: Path
    found: Found
    runs: bool
    estimate: Estimate | None


def plan(cells: Sequence[DictConfig]) -> str:
    """Say what a start with these cells would do.

    Args:
        cells: the config of each, with its ``hydra`` node.

    Raises:
        DataError: data that a start would refuse too.
    """
    planned = _planned(cells)
    to_run = [cfg for cfg, one in zip(cells, planned, strict=True) if one.runs]
    needs = Needs()
    gans = needs.gans(cells, to_run)
    fits = {gan.folder: _estimate_of(gan) for gan in gans if gan.needed and not gan.there}
    lines = [
        *_cell_lines(planned),
        *_gan_lines(gans, fits),
        *_sum_lines(planned, fits),
        *_room_lines(str(cells[0].outputs), needs.room(to_run, gans)),
        "nothing was run or written",
    ]
    return "\n".join(lines)


def _planned(cells: Sequence[DictConfig]) -> list[Planned]:
    history = cache(History.read)
    planned = []
    for cfg in cells:
        found, estimate = inspect(cfg), None
        runs = found.state not in _LEFT_ALONE
        if found.state == State.OTHER:
            runs = cfg.grid.on_mismatch == "rerun"
        if runs:
            known = history(Path(str(cfg.outputs)) / "runs", name_of(cfg.trainer.accelerator))
            explained = any(node is not None for node in cfg.explain.values())
            estimate = known.estimate(begin(cfg, cfg.hydra), explained)
        planned.append(Planned(folder_of(cfg, cfg.hydra), found, runs, estimate))
    return planned


def _estimate_of(gan: GAN) -> Estimate | None:
    """From fits of the same form with the same settings, on whatever cells and with any seed."""
    seconds: dict[str, float] = {}
    for path in gan.folder.parent.glob(f"*/{FACTS}"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        key = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))["key"]
        device = same_device(facts["device"], gan.device)
        if facts["whole"] and device and _bare(key) == _bare(gan.key):
            seconds[path.parent.name] = facts["seconds"]
    return Estimate(median(seconds.values()), frozenset(seconds)) if seconds else None


def _bare(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in ("cells", "seed")}


def _cell_lines(planned: Sequence[Planned]) -> Iterable[str]:
    for sweep in dict.fromkeys(one.folder.parent for one in planned):
        yield f"cells of {sweep}:"
        for one in planned:
            if one.folder.parent == sweep:
                why = f": {one.found.said}" if one.found.said else ""
                yield f"  {one.found.state:<14}  {_clock(one.estimate)}  {one.folder.name}{why}"


def _gan_lines(gans: Sequence[GAN], fits: Mapping[Path, Estimate | None]) -> Iterable[str]:
    if gans:
        yield "GANs, each fitted once:"
    for gan in gans:
        state = "there" if gan.there else "missing" if gan.needed else "not needed"
        asking = f"for {gan.needed} of the cells to run" if gan.needed else "for no cell to run"
        yield f"  {state:<14}  {_clock(fits.get(gan.folder))}  {gan.name}, {asking}"


def _sum_lines(planned: Sequence[Planned], fits: Mapping[Path, Estimate | None]) -> Iterable[str]:
    """How much there is to do, whether it can be done, and how long it takes one by one."""
    running = [one for one in planned if one.runs]
    yield f"{len(running)} of {len(planned)} cells to run, {len(fits)} GANs to fit"
    refused = [one for one in planned if one.found.state in _IN_THE_WAY and not one.runs]
    if refused:
        yield (
            f"{len(refused)} in the way, so that a start is refused: choose another name=NAME, or "
            "run those of other settings again with grid.on_mismatch=rerun"
        )
    asked = [*(one.estimate for one in running), *fits.values()]
    known = [estimate for estimate in asked if estimate is not None]
    if known:
        rough = "; ~ is scaled from other settings" if any(one.rough for one in known) else ""
        records = frozenset[str]().union(*(one.records for one in known))
        yield (
            f"time: about {clock(sum(one.seconds for one in known))} one after another, from "
            f"{len(records)} records of this device{rough}"
        )
    if len(known) < len(asked):
        yield f"time of {len(asked) - len(known)} of them unknown: no record of their kind here yet"


def _room_lines(outputs: str, needed: Mapping[str, int]) -> Iterable[str]:
    place = Path(outputs).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    free, total = shutil.disk_usage(there).free, sum(needed.values())
    parts = ", ".join(f"{what} {size / 1e9:.2f}" for what, size in needed.items() if size)
    short = "" if total <= free else "; TOO LITTLE, choose another disk with outputs=DIR"
    yield (
        f"room: at most {total / 1e9:.2f} GB{f' ({parts})' if parts else ''}, "
        f"{free / 1e9:.2f} GB free in {outputs}{short}"
    )


def _clock(estimate: Estimate | None) -> str:
    if estimate is None:
        return " " * 8
    return f"{'~' if estimate.rough else ''}{clock(estimate.seconds)}".rjust(8)
