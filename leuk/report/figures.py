"""The figures of a sweep: curves, calibration, confusion, persons and differences.

Each is drawn for all groups at once, in small multiples or in rows, as PNG and PDF.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve, roc_curve

from leuk.evaluate.calibration import reliability
from leuk.evaluate.sample import Sample
from leuk.evaluate.subjects import per_subject
from leuk.evaluate.vectors import Floats
from leuk.report.baselines import AREA, baseline_of
from leuk.report.comparisons import FAMILIES, Comparison
from leuk.report.drawing import (
    HEALTHY,
    LEUKEMIC,
    by_model,
    panels,
    save_figure,
    style_of,
    titled,
)
from leuk.report.results import Group

_GRID = np.linspace(0, 1, 201)
_TICKS = (0, 0.5, 1)
_ALPHA = 0.05
_AREA_STYLE: Mapping[str, Any] = {"color": "0.6", "linewidth": 3, "alpha": 0.6}

Corner = Literal["lower right", "lower left"]

Curve = Callable[[Sample], Floats]
"""From a sample to heights at 201 places between 0 and 1."""


def write_figures(
    folder: Path, groups: Sequence[Group], comparisons: Sequence[Comparison]
) -> list[Path]:
    """Draw everything there is to draw into ``folder`` and say which files that were.

    Args:
        folder: where ``roc``, ``precision_recall``, ``reliability``, ``confusion``,
            ``per_subject`` and ``differences`` go, each as ``.png`` and ``.pdf``.
        groups: lines of the report; those without predictions are left out.
        comparisons: differences between them.
    """
    shown = [group for group in groups if group.runs]
    figures: dict[str, Figure] = {}
    if shown:
        figures |= {
            "roc": roc_figure(shown),
            "precision_recall": precision_recall_figure(shown),
            "reliability": reliability_figure(shown),
            "confusion": confusion_figure(shown),
            "per_subject": per_subject_figure(shown),
        }
    if any(one.result is not None for one in comparisons):
        figures["differences"] = differences_figure(comparisons)
    return [path for name in figures for path in save_figure(figures[name], folder, name)]


def roc_figure(groups: Sequence[Group]) -> Figure:
    """Mean ROC curves, a panel a model, a line an augmentation, the area of the cell alone grey."""
    axes = _curves(groups, _roc, ("1 - specificity", "sensitivity"), "lower right")
    for ax in axes:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    return _figure_of(axes)


def precision_recall_figure(groups: Sequence[Group]) -> Figure:
    """Mean precision over recall; the level of chance is the share of leukemic cells."""
    axes = _curves(groups, _precision, ("recall (sensitivity)", "precision"), "lower left")
    for ax, members in zip(axes, by_model(groups).values(), strict=True):
        labels = np.concatenate([run.test.sample.labels for run in members[0].runs])
        ax.axhline(labels.mean(), color="0.8", linewidth=0.8, zorder=0)
    return _figure_of(axes)


def _curves(
    groups: Sequence[Group], curve: Curve, axis_names: tuple[str, str], corner: Corner
) -> list[Axes]:
    models = by_model(groups)
    _, axes = panels(len(models))
    for ax, (title, members) in zip(axes, models.items(), strict=True):
        titled(ax, title)
        if (area := baseline_of(members[0], AREA)) is not None:
            ax.plot(_GRID, _mean_curve(area, curve), label="area alone", **_AREA_STYLE)
        names = [group.cell.augmentation for group in members]
        for group, name in zip(members, names, strict=True):
            label = name if names.count(name) == 1 else group.title
            ax.plot(_GRID, _mean_curve(group, curve), label=label, **style_of(name))
        _square(ax, *axis_names)
        ax.legend(fontsize=6.5, loc=corner, frameon=False, handlelength=2.8)
    return axes


def _mean_curve(group: Group, curve: Curve) -> Floats:
    return np.asarray(np.mean([curve(run.test.sample) for run in group.runs], axis=0))


def _roc(sample: Sample) -> Floats:
    false_positive, true_positive, _ = roc_curve(sample.labels, sample.scores)
    heights: Floats = np.interp(_GRID, false_positive, true_positive)
    heights[0] = 0.0
    return heights


def _precision(sample: Sample) -> Floats:
    precision, recall, _ = precision_recall_curve(sample.labels, sample.scores)
    return np.asarray(np.interp(_GRID, recall[::-1], precision[::-1]))


def reliability_figure(groups: Sequence[Group]) -> Figure:
    """Observed share of leukemic cells over the score, before and after temperature scaling."""
    figure, axes = panels(len(groups))
    for ax, group in zip(axes, groups, strict=True):
        titled(ax, group.title)
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        pooled = pooled_cells(group)
        kinds = (
            (pooled.scores, HEALTHY, "o-", "raw"),
            (pooled.calibrated, LEUKEMIC, "^--", "calibrated"),
        )
        for scores, colour, marks, label in kinds:
            if scores is not None:
                curve = reliability(scores, pooled.labels)
                ax.plot(
                    curve["score"],
                    curve["observed"],
                    marks,
                    color=colour,
                    label=label,
                    ms=3.5,
                    lw=1,
                )
        _square(ax, "score", "share leukemic")
        ax.legend(fontsize=6.5, loc="lower right", frameon=False)
    return figure


def pooled_cells(group: Group) -> Sample:
    """All test cells of all runs of a group: for counting and calibration, not for ranking."""
    samples = [run.test.sample for run in group.runs]
    calibrated = [sample.calibrated for sample in samples if sample.calibrated is not None]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
        np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
    )


def confusion_figure(groups: Sequence[Group]) -> Figure:
    """Confusion matrices at 0.5 and at each run's Youden threshold: share of the row, and cells."""
    figure, axes = panels(len(groups), width=3.4, height=2.2, columns=3)
    for ax, group in zip(axes, groups, strict=True):
        titled(ax, group.title)
        for left, cut, name in ((0, "default", "at 0.5"), (2.4, "youden", "at Youden")):
            _confusion(ax, left, confusion(group, cut))
            ax.text(left + 1, -0.08, name, ha="center", va="bottom", fontsize=7)
        ax.set(xlim=(0, 4.4), ylim=(2, -0.4), yticks=[0.5, 1.5])
        ax.set_yticklabels(["healthy", "leuk."], fontsize=7, rotation=90, va="center")
        ax.set_xticks([0.5, 1.5, 2.9, 3.9], ["called\nhealthy", "called\nleuk."] * 2, fontsize=6.5)
        ax.tick_params(length=0)
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


def _confusion(ax: Axes, left: float, counts: Floats) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True)
    ax.pcolormesh([left, left + 1, left + 2], [0, 1, 2], shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            share = shares[row, column]
            ax.text(
                left + column + 0.5,
                row + 0.5,
                f"{share:.2f}\n{counts[row, column]:,.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share > 0.6 else "black",
            )


def per_subject_figure(groups: Sequence[Group]) -> Figure:
    """A dot a person: which share of their cells is called rightly at 0.5; a row a group."""
    figure = Figure(figsize=(7.5, 0.42 * len(groups) + 1.1), layout="constrained")
    ax = figure.subplots()
    for row, group in enumerate(groups):
        persons = per_subject(pooled_cells(group), 0.5)
        for label, shift, colour, mark in ((0, -0.18, HEALTHY, "o"), (1, 0.18, LEUKEMIC, "^")):
            own = persons[persons["label"] == label]
            place = np.full(len(own), row + shift)
            ax.scatter(
                own["correct"], place, s=22, marker=mark, color=colour, alpha=0.55, linewidths=0
            )
            ax.plot(
                [own["correct"].mean()] * 2, [row + shift - 0.15, row + shift + 0.15], color="black"
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


def differences_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Forest plot: every difference with its interval, filled where Holm's p is below 0.05."""
    shown = [one for one in comparisons if one.result is not None]
    families = [name for name in FAMILIES if any(one.family == name for one in shown)]
    rows = len(shown) + len(families)
    figure = Figure(figsize=(9, 0.23 * rows + 1), layout="constrained")
    ax = figure.subplots()
    names: list[str] = []
    for family in families:
        ax.axhline(len(names), color="0.93", linewidth=9, zorder=0)
        names.append(FAMILIES[family])
        for one in (one for one in shown if one.family == family):
            _difference(ax, len(names), one)
            names.append(one.title)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(rows), names, fontsize=7)
    headings = {FAMILIES[family] for family in families}
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in headings else "normal")
    ax.set(
        ylim=(rows - 0.4, -0.6), xlabel="difference in AUROC, 95 % interval (filled: Holm p < 0.05)"
    )
    ax.grid(axis="x", color="0.9")
    return figure


def _difference(ax: Axes, row: int, comparison: Comparison) -> None:
    found = comparison.result
    assert found is not None
    sure = comparison.p is not None and comparison.p < _ALPHA
    colour = HEALTHY if sure else "0.45"
    ax.plot([found.low, found.high], [row, row], color=colour, linewidth=1.4)
    face = colour if sure else "white"
    ax.plot(found.difference, row, "o", markersize=4.5, color=colour, markerfacecolor=face)


def _square(ax: Axes, x: str, y: str) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xticks=_TICKS, yticks=_TICKS)
    ax.set_xlabel(x, fontsize=7)
    ax.set_ylabel(y, fontsize=7)
    ax.tick_params(labelsize=6.5)


def _figure_of(axes: Sequence[Axes]) -> Figure:
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    return figure
