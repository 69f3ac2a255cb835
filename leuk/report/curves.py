"""ROC, precision-recall and calibration curves of all configurations, in small multiples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Sample
from leuk.metrics.calibration import reliability
from leuk.metrics.thresholds import called_at_each
from leuk.report.derived import AREA, baseline_of
from leuk.report.drawing import by_model, figure_of, panels, style_of, titled
from leuk.report.load import Configuration

_GRID = np.linspace(0, 1, 201)
_TICKS = (0, 0.5, 1)
_BELOW, _BESIDE = 0.125, 0.165
"""Offsets of axis labels, as fractions of the axes, that leave room for tick labels."""

_AREA_STYLE: Mapping[str, Any] = {"color": "0.6", "linewidth": 3, "alpha": 0.6}

Corner = Literal["lower right", "lower left"]

Curve = Callable[[Sample], Floats]
"""Function from a sample to the heights of its curve at 201 points from 0 to 1."""


def roc_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean ROC curves, a panel per model, a line per augmentation; gray: cell area alone."""
    axes = _curves(configurations, roc_of, ("1 - specificity", "sensitivity"), "lower right")
    for ax in axes:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    return figure_of(axes)


def precision_recall_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean precision over recall; the horizontal line is the share of leukemic cells."""
    axes = _curves(
        configurations, precision_of, ("recall (sensitivity)", "precision"), "lower left"
    )
    for ax, members in zip(axes, by_model(configurations).values(), strict=True):
        labels = np.concatenate([run.test.sample.labels for run in members[0].runs])
        ax.axhline(labels.mean(), color="0.8", linewidth=0.8, zorder=0)
    return figure_of(axes)


def _curves(
    configurations: Sequence[Configuration],
    curve: Curve,
    axis_names: tuple[str, str],
    corner: Corner,
) -> list[Axes]:
    models = by_model(configurations)
    _, axes = panels(len(models))
    for ax, (title, members) in zip(axes, models.items(), strict=True):
        titled(ax, title)
        if (area := baseline_of(members[0], AREA)) is not None:
            ax.plot(_GRID, _mean_curve(area, curve), label="area alone", **_AREA_STYLE)
        names = [configuration.run.augmentation for configuration in members]
        for configuration, name in zip(members, names, strict=True):
            label = name if names.count(name) == 1 else configuration.title
            ax.plot(_GRID, _mean_curve(configuration, curve), label=label, **style_of(name))
        _square(ax, *axis_names)
        ax.legend(fontsize=7, loc=corner, frameon=False, handlelength=2.8)
    return axes


def _mean_curve(configuration: Configuration, curve: Curve) -> Floats:
    return np.asarray(np.mean([curve(run.test.sample) for run in configuration.runs], axis=0))


def roc_of(sample: Sample) -> Floats:
    """Sensitivity at 201 values of 1 - specificity from 0 to 1."""
    _, false, true = called_at_each(sample.scores, sample.labels)
    heights: Floats = np.interp(
        _GRID, np.append(0, false / false[-1]), np.append(0, true / true[-1])
    )
    heights[0] = 0.0
    return heights


def precision_of(sample: Sample) -> Floats:
    """Precision at 201 values of recall from 0 to 1."""
    _, false, true = called_at_each(sample.scores, sample.labels)
    precision = np.append(1.0, true / (true + false))
    return np.asarray(np.interp(_GRID, np.append(0, true / true[-1]), precision))


def reliability_figure(configurations: Sequence[Configuration]) -> Figure:
    """Observed share of leukemic cells over the score, a panel per model; pale: uncalibrated."""
    models = by_model(configurations)
    _, axes = panels(len(models))
    for ax, (title, members) in zip(axes, models.items(), strict=True):
        titled(ax, title)
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        names = [configuration.run.augmentation for configuration in members]
        for configuration, name in zip(members, names, strict=True):
            pooled = pooled_images(configuration)
            looks = style_of(name) | {"marker": "o", "ms": 3}
            raw = reliability(pooled.scores, pooled.labels)
            ax.plot(raw["score"], raw["observed"], **looks | {"alpha": 0.25})
            if pooled.calibrated is not None:
                after = reliability(pooled.calibrated, pooled.labels)
                label = name if names.count(name) == 1 else configuration.title
                ax.plot(after["score"], after["observed"], label=label, **looks)
        _square(ax, "score", "observed share leukemic")
        ax.legend(
            fontsize=7, loc=_emptier_corner(ax), framealpha=0.7, edgecolor="w", handlelength=2.8
        )
    return figure_of(axes)


def _emptier_corner(ax: Axes) -> Literal["upper left", "lower right"]:
    """Return the corner on the side of the diagonal with fewer lines."""
    points = np.concatenate([line.get_xydata() for line in ax.get_lines()])
    return "upper left" if np.diff(points).mean() < 0 else "lower right"


def pooled_images(configuration: Configuration) -> Sample:
    """Test images of all runs of a configuration, for counting and calibration, not for ranking."""
    samples = [run.test.sample for run in configuration.runs]
    calibrated = [sample.calibrated for sample in samples if sample.calibrated is not None]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
        np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
    )


def _square(ax: Axes, x: str, y: str) -> None:
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xticks=_TICKS, yticks=_TICKS)
    ax.set_xlabel(x, fontsize=7.5)
    ax.set_ylabel(y, fontsize=7.5)
    # With fixed positions, matplotlib need not measure all tick labels again for each file.
    ax.xaxis.set_label_coords(0.5, -_BELOW)
    ax.yaxis.set_label_coords(-_BESIDE, 0.5)
    ax.tick_params(labelsize=7)
