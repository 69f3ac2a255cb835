"""AUROC of each model with each augmentation, as a table with shades."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leuk.report.load import Configuration, augmentations_of
from leuk.report.rows import Row
from leuk.runs.record import OF_AUGMENTATION, RunId, setting_texts

LEVELS = 8
"""Number of shades from the lowest to the highest AUROC."""

_NARROWEST = 0.02
"""Smallest AUROC range that the shades cover: smaller differences should look the same."""


@dataclass(frozen=True, eq=False)
class HeatMap:
    """AUROC of models (rows) under augmentations (columns).

    Attributes:
        rows: names of the models, with the settings that differ.
        columns: augmentations of the sweep.
        entries: table rows by model and augmentation; None where no run is complete.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    entries: tuple[tuple[Row | None, ...], ...]

    @property
    def values(self) -> list[list[float]]:
        """AUROC by row and column, NaN where no run is complete."""
        return [
            [float("nan") if one is None else one.metrics["auroc"][0] for one in entries]
            for entries in self.entries
        ]

    def level(self, row: int, column: int) -> int | None:
        """Shade of an entry, from 0 to :data:`LEVELS` - 1; None if it is empty."""
        if self.entries[row][column] is None:
            return None
        low, high = self.span
        share = (self.values[row][column] - low) / (high - low)
        return min(LEVELS - 1, max(0, int(share * LEVELS)))

    @property
    def span(self) -> tuple[float, float]:
        """AUROC of the lightest and of the darkest shade."""
        found = np.array(self.values)
        low, high = float(np.nanmin(found)), float(np.nanmax(found))
        spare = max(0.0, _NARROWEST - (high - low)) / 2
        return low - spare, high + spare


def heat_map(configurations: Sequence[Configuration], rows: Sequence[Row]) -> HeatMap | None:
    """Return the heat map of configurations and their rows; None without any AUROC."""
    found = {one.run: row for one, row in zip(configurations, rows, strict=True)}
    named = {
        name: {
            one.run.augmentation: found[one.run]
            for one in reversed(members)
            if "auroc" in found[one.run].metrics
        }
        for name, members in by_model(configurations).items()
    }
    present = {augmentation for row in named.values() for augmentation in row}
    if not present:
        return None
    columns = [name for name in augmentations_of(found) if name in present]
    entries = [tuple(row.get(name) for name in columns) for row in named.values()]
    return HeatMap(tuple(named), tuple(columns), tuple(entries))


def by_model(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Return configurations that differ only in the augmentation, by their name without it."""
    found: dict[RunId, list[Configuration]] = {}
    for configuration in configurations:
        found.setdefault(configuration.run.plain, []).append(configuration)
    named = {}
    for members in found.values():
        name, run = members[0].title, members[0].run
        settings = setting_texts(run.settings).items()
        own = [text for key, text in settings if key.startswith(OF_AUGMENTATION)]
        for text in (run.augmentation, *own):
            name = name.replace(f"-{text}", "", 1)
        named[name] = members
    return named
