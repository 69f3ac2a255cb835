"""Figures of decisions: confusion matrices, and how each person's cells are called."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leuk.evaluate.subjects import per_subject
from leuk.evaluate.vectors import Floats
from leuk.report.curves import pooled_cells
from leuk.report.drawing import HEALTHY, LEUKEMIC
from leuk.report.results import Group


def confusion_figure(groups: Sequence[Group]) -> Figure:
    """Confusion matrices laid flat, a row a group: at 0.5, and at each run's Youden threshold."""
    figure = Figure(figsize=(9, 0.36 * len(groups) + 1), layout="constrained")
    ax = figure.subplots()
    for left, cut, name in ((0.0, "default", "at 0.5"), (4.2, "youden", "at Youden's threshold")):
        counts = np.stack([confusion(group, cut) for group in groups])
        _flat(ax, left, counts)
        ax.text(left + 2, -0.95, name, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, 8.2), ylim=(len(groups), -0.05))
    ax.set_yticks(np.arange(len(groups)) + 0.5, [group.title for group in groups], fontsize=8)
    called = ["healthy:\nright", "healthy:\nwrong", "leukemic:\nwrong", "leukemic:\nright"]
    places = [left + place + 0.5 for left in (0, 4.2) for place in range(4)]
    ax.set_xticks(places, called * 2, fontsize=7)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


def confusion(group: Group, cut: str) -> Floats:
    """Counts ``(2, 2)``: rows healthy and leukemic, columns called so, summed over all runs."""
    counts = np.zeros((2, 2))
    for run in group.runs:
        sample = run.test.sample
        called = (sample.scores >= run.thresholds[cut]).astype(np.int64)
        np.add.at(counts, (sample.labels, called), 1)
    return counts


def _flat(ax: Axes, left: float, counts: Floats) -> None:
    """Draw matrices ``(G, 2, 2)`` side by side: shades are shares of the row's class."""
    shares = (counts / counts.sum(axis=2, keepdims=True)).reshape(len(counts), 4)
    edges = left + np.arange(5)
    ax.pcolormesh(edges, np.arange(len(counts) + 1), shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        ax.text(
            left + column + 0.5,
            row + 0.5,
            f"{share:.2f} ({counts[row].flat[column]:,.0f})",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if share > 0.6 else "black",
        )


def per_subject_figure(groups: Sequence[Group]) -> Figure:
    """A dot a person: which share of their cells is called rightly at 0.5; a row a group."""
    figure = Figure(figsize=(7.5, 0.42 * len(groups) + 1.1), layout="constrained")
    ax = figure.subplots()
    persons = [per_subject(pooled_cells(group), 0.5) for group in groups]
    for label, shift, colour, mark in ((0, -0.18, HEALTHY, "o"), (1, 0.18, LEUKEMIC, "^")):
        shares = [one.loc[one["label"] == label, "correct"].to_numpy() for one in persons]
        places = np.repeat(np.arange(len(groups)) + shift, list(map(len, shares)))
        looks: dict[str, Any] = {
            "s": 22,
            "marker": mark,
            "color": colour,
            "alpha": 0.55,
            "linewidths": 0,
        }
        ax.scatter(np.concatenate(shares), places, **looks)
        rows = np.arange(len(groups)) + shift
        ax.vlines(
            list(map(np.mean, shares)), rows - 0.15, rows + 0.15, color="black", linewidth=1.5
        )
    ax.set_yticks(range(len(groups)), [group.title for group in groups], fontsize=8)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(groups) - 0.5, -0.5))
    ax.set_xlabel("share of the person's cells called rightly at 0.5 (bar: mean of persons)")
    ax.grid(axis="x", color="0.9")
    for row in range(1, len(groups)):
        ax.axhline(row - 0.5, color="0.9", linewidth=0.8)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=HEALTHY, label="healthy persons"),
        Line2D([], [], marker="^", linestyle="", color=LEUKEMIC, label="leukemic persons"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure
