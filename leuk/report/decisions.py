"""Metrics of decisions: confusion matrices, and how each person's cells are called."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leuk.evaluate.subjects import per_subject
from leuk.evaluate.vectors import Floats
from leuk.report.curves import pooled_images
from leuk.report.drawing import HEALTHY, LEUKEMIC, labeled_rows
from leuk.report.results import Configuration

_BESIDE = 4.2
"""Where the second matrix begins, in places of the first."""


def confusion_figure(groups: Sequence[Configuration]) -> Figure:
    """Confusion matrices laid flat, a row a group: at 0.5, and at each run's Youden threshold.

    A place holds the share of its class; how many cells that is of stands beside the name.
    """
    cuts = {"default": "at 0.5", "youden": "at Youden's threshold"}
    counts = {cut: np.stack([confusion(group, cut) for group in groups]) for cut in cuts}
    classes = counts["default"].sum(axis=2)
    names = [
        f"{group.title} ({healthy:,.0f} + {leukemic:,.0f})"
        for group, (healthy, leukemic) in zip(groups, classes, strict=True)
    ]
    figure, (ax,) = labeled_rows(names, 6.2, 0.3, (0.85, 0.1))
    for left, (cut, words) in zip((0.0, _BESIDE), cuts.items(), strict=True):
        _flat(ax, left, counts[cut])
        ax.text(left + 2, -1.9, words, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, _BESIDE + 4), xlabel="")
    called = ["healthy:\nright", "healthy:\nwrong", "leukemic:\nwrong", "leukemic:\nright"]
    places = [left + place + 0.5 for left in (0.0, _BESIDE) for place in range(4)]
    ax.set_xticks(places, called * 2, fontsize=7)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


def confusion(group: Configuration, cut: str) -> Floats:
    """Counts ``(2, 2)``: rows healthy and leukemic, columns called so, summed over all runs."""
    counts = np.zeros((2, 2))
    for run in group.runs:
        sample = run.test.sample
        called = sample.scores >= run.thresholds[cut]
        counts += np.bincount(2 * sample.labels + called, minlength=4).reshape(2, 2)
    return counts


def _flat(ax: Axes, left: float, counts: Floats) -> None:
    """Draw matrices ``(G, 2, 2)`` side by side: shades are shares of the row's class."""
    shares = (counts / counts.sum(axis=2, keepdims=True)).reshape(len(counts), 4)
    edges = left + np.arange(5)
    rows = np.arange(len(counts) + 1) - 0.5
    ax.pcolormesh(edges, rows, shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.6 else "black"
        looks: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
        ax.text(left + column + 0.5, row, f"{share:.2f}", **looks)


def per_subject_figure(groups: Sequence[Configuration]) -> Figure:
    """A dot a person: which share of their cells is called rightly at 0.5; a row a group."""
    names = [group.title for group in groups]
    figure, (ax,) = labeled_rows(names, 5.0, 0.42, (0.4, 0.55))
    persons = [per_subject(pooled_images(group), 0.5) for group in groups]
    for label, shift, color, mark in ((0, -0.18, HEALTHY, "o"), (1, 0.18, LEUKEMIC, "^")):
        shares = [one.loc[one["label"] == label, "correct"].to_numpy() for one in persons]
        places = np.repeat(np.arange(len(groups)) + shift, list(map(len, shares)))
        looks: dict[str, Any] = {
            "s": 22,
            "marker": mark,
            "color": color,
            "alpha": 0.55,
            "linewidths": 0,
        }
        ax.scatter(np.concatenate(shares), places, **looks)
        rows = np.arange(len(groups)) + shift
        ax.vlines(
            list(map(np.mean, shares)), rows - 0.15, rows + 0.15, color="black", linewidth=1.5
        )
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of the person's cells called rightly at 0.5 (bar: mean of persons)")
    ax.grid(axis="x", color="0.9")
    for row in range(1, len(groups)):
        ax.axhline(row - 0.5, color="0.9", linewidth=0.8)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=HEALTHY, label="healthy persons"),
        Line2D([], [], marker="^", linestyle="", color=LEUKEMIC, label="leukemic persons"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=2, fontsize=8, frameon=False)
    return figure
