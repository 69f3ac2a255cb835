"""Figures of decisions: confusion matrices, and results by patient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import per_subject
from leuk.report.curves import pooled_images
from leuk.report.drawing import HEALTHY, LEUKEMIC, labeled_rows
from leuk.report.load import Configuration

_BESIDE = 4.2
"""Horizontal position of the second matrix, in columns."""


def confusion_figure(configurations: Sequence[Configuration]) -> Figure:
    """Confusion matrices, a row per configuration, at 0.5 and at each run's Youden threshold.

    Entries are shares of a class; the numbers of images are beside the name.

    Args:
        configurations: configurations with predictions.
    """
    cuts = {"default": "at 0.5", "youden": "at Youden's threshold"}
    counts = {
        cut: np.stack([confusion(configuration, cut) for configuration in configurations])
        for cut in cuts
    }
    classes = counts["default"].sum(axis=2)
    names = [
        f"{configuration.title} ({healthy:,.0f} + {leukemic:,.0f})"
        for configuration, (healthy, leukemic) in zip(configurations, classes, strict=True)
    ]
    figure, (ax,) = labeled_rows(names, 6.2, 0.3, (0.85, 0.1))
    for left, (cut, words) in zip((0.0, _BESIDE), cuts.items(), strict=True):
        _flat(ax, left, counts[cut])
        ax.text(left + 2, -1.9, words, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, _BESIDE + 4), xlabel="")
    called = [
        "healthy:\ncorrect",
        "healthy:\nwrong",
        "leukemic:\nwrong",
        "leukemic:\ncorrect",
    ]
    ticks = [left + column + 0.5 for left in (0.0, _BESIDE) for column in range(4)]
    ax.set_xticks(ticks, called * 2, fontsize=7)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


def confusion(configuration: Configuration, cut: str) -> Floats:
    """Sum the counts ``(2, 2)`` over all runs: true class by predicted class, healthy first.

    Args:
        configuration: a configuration with predictions.
        cut: name of a threshold of its runs.
    """
    counts = np.zeros((2, 2))
    for run in configuration.runs:
        sample = run.test.sample
        called = sample.scores >= run.thresholds[cut]
        counts += np.bincount(2 * sample.labels + called, minlength=4).reshape(2, 2)
    return counts


def _flat(ax: Axes, left: float, counts: Floats) -> None:
    """Draw matrices ``(G, 2, 2)`` as one row each; shades are shares of the true class."""
    shares = (counts / counts.sum(axis=2, keepdims=True)).reshape(len(counts), 4)
    edges = left + np.arange(5)
    rows = np.arange(len(counts) + 1) - 0.5
    ax.pcolormesh(edges, rows, shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.6 else "black"
        looks: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
        ax.text(left + column + 0.5, row, f"{share:.2f}", **looks)


def per_subject_figure(configurations: Sequence[Configuration]) -> Figure:
    """Share of correct images of each patient at 0.5, a row per configuration."""
    names = [configuration.title for configuration in configurations]
    figure, (ax,) = labeled_rows(names, 5.0, 0.42, (0.4, 0.55))
    patients = [per_subject(pooled_images(one), 0.5) for one in configurations]
    for label, shift, color, mark in ((0, -0.18, HEALTHY, "o"), (1, 0.18, LEUKEMIC, "^")):
        shares = [one.loc[one["label"] == label, "correct"].to_numpy() for one in patients]
        heights = np.repeat(np.arange(len(configurations)) + shift, list(map(len, shares)))
        looks: dict[str, Any] = {
            "s": 22,
            "marker": mark,
            "color": color,
            "alpha": 0.55,
            "linewidths": 0,
        }
        ax.scatter(np.concatenate(shares), heights, **looks)
        rows = np.arange(len(configurations)) + shift
        ax.vlines(
            list(map(np.mean, shares)), rows - 0.15, rows + 0.15, color="black", linewidth=1.5
        )
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of images classified correctly at 0.5 (bar: mean over patients)")
    ax.grid(axis="x", color="0.9")
    for row in range(1, len(configurations)):
        ax.axhline(row - 0.5, color="0.9", linewidth=0.8)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=HEALTHY, label="healthy patients"),
        Line2D([], [], marker="^", linestyle="", color=LEUKEMIC, label="leukemic patients"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=2, fontsize=8, frameon=False)
    return figure
