"""What earlier cells took, from their records: the estimates of a dry run."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from leuk.grid.record import WENT_ON, Record, read_records

_ELSEWHERE = ("seed", "augmentation", "gan", "gan_fit", "split.fold", "split.seed")
"""Settings that hardly change how long a classifier takes, as the fits of GANs are not counted."""


_THREADS = re.compile(r", \d+ threads")


@dataclass(frozen=True)
class Estimate:
    """How long something will take.

    Attributes:
        seconds: the median of what it took.
        records: names of the records that is from.
        rough: whether they are of other settings, and the time is scaled by epochs.
    """

    seconds: float
    records: frozenset[str]
    rough: bool = False


@dataclass(frozen=True, eq=False)
class History:
    """Complete records of one device, whose times are those of unbroken runs.

    Attributes:
        records: by sweep and cell.
    """

    records: Mapping[str, Record]

    @classmethod
    def read(cls, runs: Path, device: str) -> "History":
        """Read every sweep below ``runs``.

        Args:
            runs: the folder of the sweeps; none there is no history.
            device: its name, as in ``record.device["name"]``.
        """
        sweeps = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
        return cls(
            {
                f"{sweep.name}/{record.cell.folder}": record
                for sweep in sweeps
                for record in read_records(sweep)[0]
                if _tells(record, device)
            }
        )

    def estimate(self, cell: Record, explained: bool) -> Estimate | None:
        """How long a cell takes beside the fit of its GAN; None where nothing is known.

        Records of the same settings are asked first, whatever their seed, fold and augmentation;
        then those of the same model at the same resolution, scaled by epochs.

        Args:
            cell: the record that it would begin with.
            explained: whether its test cells are explained, which takes its time.
        """
        known = {k: one for k, one in self.records.items() if bool(one.explanations) == explained}
        own = _bare(cell.settings)
        same = {k: _seconds(one) for k, one in known.items() if _bare(one.settings) == own}
        if same:
            return Estimate(median(same.values()), frozenset(same))
        akin = {
            k: _seconds(one, _at(cell, "fit", "epochs") / _at(one, "fit", "epochs"))
            for k, one in known.items()
            if one.cell.model == cell.cell.model
            and _at(one, "data", "resolution") == _at(cell, "data", "resolution")
        }
        return Estimate(median(akin.values()), frozenset(akin), rough=True) if akin else None


def same_device(one: str, other: str) -> bool:
    """Whether two names are of one device; how many threads it works with is not asked."""
    return _THREADS.sub("", one) == _THREADS.sub("", other)


def _tells(record: Record, device: str) -> bool:
    return (
        record.status == "complete"
        and bool(record.settings)
        and same_device(str(record.device.get("name")), device)
        and WENT_ON not in record.warnings
    )


def _seconds(record: Record, longer: float = 1.0) -> float:
    """Seconds beside the augmentation's, with the fit ``longer`` times as long."""
    stages = {k: v for k, v in record.timings.items() if k not in ("augmentation", "total")}
    return sum(stages.values()) + stages.get("fit", 0.0) * (longer - 1.0)


def _bare(settings: dict[str, Any]) -> dict[str, Any]:
    kept = deepcopy(settings)
    for key in _ELSEWHERE:
        *parents, last = key.split(".")
        node = kept
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return kept


def _at(record: Record, *keys: str) -> Any:
    value: Any = record.settings
    for key in keys:
        value = value[key]
    return value
