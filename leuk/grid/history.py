"""Estimates of run times for a dry run, from the records of earlier runs."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from leuk.grid.record import RESUMED, Record, read_records

_ELSEWHERE = ("seed", "augmentation", "gan", "gan_fit", "split.fold", "split.seed")
"""Settings that hardly affect run times, from which the training of GANs is excluded."""


_THREADS = re.compile(r", \d+ threads")


@dataclass(frozen=True)
class Estimate:
    """Estimated duration of a run.

    Attributes:
        seconds: median of the earlier durations.
        records: names of the records used.
        rough: True if these have other settings, and durations were scaled by epochs.
    """

    seconds: float
    records: frozenset[str]
    rough: bool = False


@dataclass(frozen=True, eq=False)
class History:
    """Records of complete, uninterrupted runs on the same device.

    Attributes:
        records: records by ``<sweep>/<run folder>``.
    """

    records: Mapping[str, Record]

    @classmethod
    def read(cls, runs: Path, device: str) -> "History":
        """Read the records of all sweeps.

        Args:
            runs: folder of the sweeps; if it is missing, the history is empty.
            device: device name as in ``record.device["name"]``.
        """
        sweeps = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
        return cls(
            {
                f"{sweep.name}/{record.run.folder}": record
                for sweep in sweeps
                for record in read_records(sweep)[0]
                if _usable(record, device)
            }
        )

    def estimate(self, planned: Record, explained: bool) -> Estimate | None:
        """Estimate the duration of a run without the training of its GAN.

        Runs with the same settings are used, whatever their seed, fold and augmentation; if none
        exist, runs of the same model at the same resolution, scaled by epochs.

        Args:
            planned: initial record of the run.
            explained: True if the run explains test images.

        Returns:
            The estimate, or None without comparable runs.
        """
        known = {
            k: past for k, past in self.records.items() if bool(past.explanations) == explained
        }
        own = _comparable(planned.settings)
        same = {k: _seconds(past) for k, past in known.items() if _comparable(past.settings) == own}
        if same:
            return Estimate(median(same.values()), frozenset(same))
        similar = {
            k: _seconds(past, _at(planned, "fit", "epochs") / _at(past, "fit", "epochs"))
            for k, past in known.items()
            if past.run.model == planned.run.model
            and _at(past, "data", "resolution") == _at(planned, "data", "resolution")
        }
        return Estimate(median(similar.values()), frozenset(similar), True) if similar else None


def same_device(first: str, second: str) -> bool:
    """Return True if two device names are equal apart from the number of threads."""
    return _THREADS.sub("", first) == _THREADS.sub("", second)


def _usable(record: Record, device: str) -> bool:
    return (
        record.status == "complete"
        and bool(record.settings)
        and same_device(str(record.device.get("name")), device)
        and RESUMED not in record.warnings
    )


def _seconds(record: Record, longer: float = 1.0) -> float:
    """Seconds of all stages but the augmentation, with the fit ``longer`` times as long."""
    stages = {k: v for k, v in record.timings.items() if k not in ("augmentation", "total")}
    return sum(stages.values()) + stages.get("fit", 0.0) * (longer - 1.0)


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
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
