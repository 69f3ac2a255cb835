"""The grid at a glance: AUROC of each model under each augmentation, light to dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leuk.report.drawing import by_model
from leuk.report.naming import AUGMENTATIONS
from leuk.report.results import Configuration
from leuk.report.rows import Row
from leuk.report.sections import Grid, Section, interval_text

LEVELS = 8
"""Shades from the lowest to the highest AUROC."""

_NARROWEST = 0.02
"""AUROC over which the shades are spread at least: less is no difference to show."""

NOTES = """\
AUROC on the test part, mean over folds and seeds, with 95 % intervals over persons. Shades run from
the lowest to the highest figure of this grid, so that a dark one is not necessarily a good one; a
dash stands where no complete cell is. AUROC weighs every image the same, AUROC (patients) every
patient of a class; the shades are of the former."""


@dataclass(frozen=True, eq=False)
class HeatMap:
    """AUROC of models (rows) under augmentations (columns).

    Attributes:
        rows: names of the models, with their settings where these differ.
        columns: augmentations that the sweep has.
        lines: by row and column; None where there is no figure.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[tuple[Row | None, ...], ...]

    @property
    def values(self) -> list[list[float]]:
        """AUROC by row and column, NaN where there is none."""
        return [
            [float("nan") if line is None else line.metrics["auroc"][0] for line in row]
            for row in self.lines
        ]

    def level(self, row: int, column: int) -> int | None:
        """Shade of a place, from 0 to :data:`LEVELS` - 1; None where there is no figure."""
        if self.lines[row][column] is None:
            return None
        low, high = self.span
        share = (self.values[row][column] - low) / (high - low)
        return min(LEVELS - 1, max(0, int(share * LEVELS)))

    @property
    def span(self) -> tuple[float, float]:
        """The AUROCs of the lightest and the darkest shade."""
        found = np.array(self.values)
        low, high = float(np.nanmin(found)), float(np.nanmax(found))
        spare = max(0.0, _NARROWEST - (high - low)) / 2
        return low - spare, high + spare

    @property
    def section(self) -> Section:
        """The same as a table."""
        table = pd.DataFrame(self.values, columns=list(self.columns))
        table.insert(0, "model", self.rows)
        for place, column in enumerate(self.columns):
            table[f"{column}_patients"] = [_by_patient(lines[place]) for lines in self.lines]
        parts = (self._grid("AUROC", "auroc"), self.by_patient, NOTES)
        return Section("grid", "The grid", parts, table)

    @property
    def by_patient(self) -> Grid:
        """AUROC where every patient of a class weighs the same."""
        return self._grid("AUROC (patients)", "auroc_patients")

    def _grid(self, heading: str, metric: str) -> Grid:
        rows = [
            (name, *(_text(line, metric) for line in lines))
            for name, lines in zip(self.rows, self.lines, strict=True)
        ]
        return Grid((heading, *self.columns), tuple(rows))


def heat_map(groups: Sequence[Configuration], lines: Sequence[Row]) -> HeatMap | None:
    """The grid of a sweep.

    Args:
        groups: of the report.
        lines: of these groups, in their order.

    Returns:
        None where no line has a figure.
    """
    found = {id(group): line for group, line in zip(groups, lines, strict=True)}
    named = {
        name: {
            group.run.augmentation: found[id(group)]
            for group in reversed(members)
            if "auroc" in found[id(group)].metrics
        }
        for name, members in by_model(groups).items()
    }
    present = {augmentation for row in named.values() for augmentation in row}
    if not present:
        return None
    columns = [name for name in AUGMENTATIONS if name in present]
    columns += sorted(present - set(columns))
    rows = [tuple(row.get(name) for name in columns) for row in named.values()]
    return HeatMap(tuple(named), tuple(columns), tuple(rows))


def _text(line: Row | None, metric: str) -> str:
    if line is None or metric not in line.metrics:
        return "-"
    return interval_text(*line.metrics[metric])


def _by_patient(line: Row | None) -> float | None:
    return line.metrics["auroc_patients"][0] if line and "auroc_patients" in line.metrics else None


def heat_map_figure(heat: HeatMap) -> Figure:
    """The grid as a picture, a figure in each place."""
    room = 0.3 + 0.075 * max(map(len, heat.rows))
    wide, high = room + 1.15 * len(heat.columns) + 1.2, 0.6 + 0.46 * len(heat.rows)
    figure = Figure(figsize=(wide, high))
    ax = figure.add_axes((room / wide, 0.4 / high, 1 - (room + 1.2) / wide, 1 - 0.6 / high))
    shades = figure.add_axes((1 - 1.0 / wide, 0.4 / high, 0.14 / wide, 1 - 0.6 / high))
    values = np.ma.masked_invalid(heat.values)
    least, most = heat.span
    image = ax.pcolormesh(values, cmap="Blues", vmin=least, vmax=most, edgecolors="white", lw=2)
    for row, lines in enumerate(heat.lines):
        for column, line in enumerate(lines):
            dark = (heat.level(row, column) or 0) > LEVELS * 0.6
            text = "-" if line is None else f"{line.metrics['auroc'][0]:.3f}"
            looks: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
            ax.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **looks)
    ax.set_xticks(np.arange(len(heat.columns)) + 0.5, heat.columns, fontsize=8)
    ax.set_yticks(np.arange(len(heat.rows)) + 0.5, heat.rows, fontsize=8)
    ax.set_ylim(len(heat.rows), 0)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    figure.colorbar(image, cax=shades, label="test AUROC").ax.tick_params(labelsize=8)
    return figure
