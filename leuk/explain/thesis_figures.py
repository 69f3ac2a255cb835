"""Figures 9 to 11 of the thesis, drawn for any classifier and cohort.

Grad-CAM across layers, SHAP values by class, LIME's superpixels and patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.data.labels import UNLABELED, Label
from leuk.evaluate.vectors import Floats
from leuk.explain.cohort import Cohort
from leuk.explain.explainer import Attribution
from leuk.explain.gradcam import GradCAM, layers_of
from leuk.explain.overlays import (
    HEALTHY,
    LEUKEMIC,
    Canvas,
    Drawn,
    Pixels,
    drawn_of,
    to_pixels,
)
from leuk.explain.panels import captions
from leuk.store.atomic import whole_file

_MOST_LAYERS = 12
_BINS, _FEW_BINS = 62, 18
_MANY, _SHOWN = 1000, 99.9
"""Number of values from which the axis ends at a percentile of the magnitudes, and this percentile.
"""

_CLASSES = {
    int(Label.ALL): (LEUKEMIC, "-", "leukemic cells"),
    int(Label.HEM): (HEALTHY, "--", "healthy cells"),
    UNLABELED: ("0.3", ":", "cells without a label"),
}
"""Color, line style and legend entry of each label."""


def save_figure_9(path: Path, classifier: Classifier, cohort: Cohort, title: str) -> list[str]:
    """Draw Grad-CAM of both classes at every layer, for an image of each class.

    Magnitudes are not comparable between layers, so each layer has its own scale. Of more than
    twelve layers, twelve evenly spaced ones are shown.

    Args:
        path: output file.
        classifier: trained classifier; its device is used.
        cohort: images; see :func:`one_of_each` for the choice.
        title: title of the figure.

    Returns:
        Names of the layers shown.
    """
    every = layers_of(classifier)
    indices = np.linspace(0, len(every) - 1, min(_MOST_LAYERS, len(every))).round()
    layers = [every[int(index)] for index in np.unique(indices)]
    positions = one_of_each(cohort)
    images = cohort.images[positions].to(classifier.device)
    maps = torch.stack([GradCAM(layer).of_classes(classifier, images) for layer in layers])
    shown = f"{len(layers)} of {len(every)}" if len(layers) < len(every) else f"all {len(every)}"
    words = f"{title}\nGrad-CAM at {shown} layers, first to last, for the logit of each class"
    _across_layers(cohort, positions, layers, maps, words).save(path)
    return layers


def one_of_each(cohort: Cohort) -> list[int]:
    """Position of a shown image of each class, leukemic first, correctly predicted if possible.

    Without labels, the position of the first shown image.
    """
    labels = cohort.table["label"].to_numpy()
    outcomes = cohort.table["outcome"].tolist()
    chosen = []
    for label in reversed(Label):
        own = [position for position in cohort.shown if labels[position] == label]
        own.sort(key=lambda position: not outcomes[position].startswith("true"))
        chosen += own[:1]
    return chosen or cohort.shown[:1]


def _across_layers(
    cohort: Cohort, positions: Sequence[int], layers: Sequence[str], maps: Tensor, title: str
) -> Canvas:
    """Draw two rows per image; ``maps`` are ``(layers, 2, images, R, R)``, healthy logit first."""
    side, label, head, step = 1.35, 1.15, 1.15, 1.47
    canvas = Canvas(
        max(label + (1 + len(layers)) * step, 7.0), head + 2 * len(positions) * step + 0.7
    )
    canvas.text(title, 0.12, 0.1, 11)
    largest = maps.abs().amax(dim=(1, 2, 3, 4)).clamp(min=1e-30)
    scaled = maps / largest[:, None, None, None, None]
    for column, (layer, most) in enumerate(zip(layers, largest.tolist(), strict=True), start=1):
        words = f"{_broken(layer, 19)}\nscale: {most:.1g}"
        canvas.text(words, label + column * step, head - 0.04, 7.5, va="bottom")
    for number, cell in enumerate(to_pixels(cohort.images[positions])):
        top = head + 2 * number * step
        canvas.image(cell, label, top, side)
        words = captions(cohort, positions)[number].replace("   ", "\n")
        canvas.text(words, label, top + step, 9)
        for edge, target in zip((top, top + step), reversed(Label), strict=True):
            name = "leukemia" if target == Label.ALL else "healthy"
            canvas.text(f"evidence for\n{name}", 0.12, edge + 0.1, 9)
            for column, own in enumerate(scaled[:, target], start=1):
                drawn = _to_one(drawn_of("gradcam", Attribution(own, "pixel")))
                canvas.map(drawn, number, cell, (label + column * step, edge, side))
    bar = _to_one(drawn_of("gradcam", Attribution(scaled[0, 0], "pixel")))
    canvas.bar(bar, label + step, head + 2 * len(positions) * step, 4.0)
    return canvas


def _to_one(drawn: Drawn) -> Drawn:
    label = "activation x gradient of the class's logit, relative to the layer's scale"
    return replace(drawn, limit=1.0, label=label)


def _broken(name: str, width: int) -> str:
    """Break a dotted name into lines of at most ``width`` characters, if its parts allow."""
    lines = [""]
    for part in name.split("."):
        joined = f"{lines[-1]}.{part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines.append(f".{part}")
        else:
            lines[-1] = joined
    return "\n".join(lines)


def save_figure_10(
    path: Path, cohort: Cohort, found: Mapping[str, Attribution], title: str
) -> None:
    """Draw the distributions of the SHAP values of healthy and leukemic cells.

    The upper row shows single values (of pixels, or of whole regions and patches), without the most
    extreme 0.1 %. The lower row shows their sum per image, its log-odds relative to the reference.

    Args:
        path: output file.
        cohort: the images; without labels they form a single class.
        found: SHAP maps of all images, by method.
        title: title of the figure.
    """
    figure = Figure(figsize=(max(3.9 * len(found), 6.0), 6.2), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (name, maps) in enumerate(found.items()):
        drawn = drawn_of(name, maps)
        values = [_single(drawn, position) for position in range(len(drawn.values))]
        axes[0, column].set_title(drawn.title, fontsize=10)
        _histogram(axes[0, column], cohort, drawn, values)
        axes[0, column].set_xlabel(drawn.label, fontsize=8)
        sums = [np.atleast_1d(own.sum()).astype(np.float64) for own in maps.maps.numpy()]
        _histogram(axes[1, column], cohort, drawn, sums)
        axes[1, column].set_xlabel("sum over the image, log-odds", fontsize=8)
    axes[0, 0].set_ylabel("share of values (log scale)", fontsize=8)
    axes[1, 0].set_ylabel("share of images", fontsize=8)
    for axis in axes[0]:
        axis.set_yscale("log")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7.5, frameon=False, loc="upper left")
        else:
            axis.text(0.02, 0.9, "all degenerate", transform=axis.transAxes)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _single(drawn: Drawn, position: int) -> Floats:
    """Return a value per segment of a map, or per pixel without segments."""
    values: Floats = drawn.values[position].ravel().astype(np.float64)
    if drawn.segments is None:
        return values
    parts, first = np.unique(drawn.segments[position].ravel(), return_index=True)
    chosen: Floats = values[first[parts >= 0]]
    return chosen


def _histogram(axis: Axes, cohort: Cohort, drawn: Drawn, values: Sequence[Floats]) -> None:
    """Draw a histogram per class, in bins around zero, normalized to shares."""
    labels = cohort.table["label"].tolist()
    usable = [int(position) for position in np.flatnonzero(drawn.usable)]
    joined = np.concatenate([values[position] for position in usable] or [np.zeros(1)])
    many = len(joined) > _MANY
    end = float(np.percentile(np.abs(joined), _SHOWN if many else 100)) or 1.0
    edges = np.linspace(-end, end, _BINS if many else _FEW_BINS)
    for label, (color, style, name) in _CLASSES.items():
        own = [values[position] for position in usable if labels[position] == label]
        if not own:
            continue
        counts, _ = np.histogram(np.concatenate(own), edges)
        axis.stairs(
            counts / max(1, counts.sum()),
            edges,
            color=color,
            linestyle=style,
            linewidth=1.4,
            label=f"{name} ({len(own)})",
        )
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.tick_params(labelsize=8)


def save_figure_11(
    path: Path, cohort: Cohort, found: Mapping[str, Attribution], title: str
) -> None:
    """Draw LIME's segments and their weights, a row per outcome.

    Args:
        path: output file.
        cohort: images; the first shown image of each outcome is drawn.
        found: LIME maps of all images, by method.
        title: title of the figure.
    """
    side, head, step, high = 2.2, 0.95, 2.4, 2.65
    drawn = {name: drawn_of(name, maps) for name, maps in found.items()}
    positions = _one_of_each_outcome(cohort)
    canvas = Canvas(
        max(0.12 + (1 + 2 * len(drawn)) * step, 6.0), head + len(positions) * high + 0.75
    )
    canvas.text(title, 0.12, 0.1, 11)
    for row, (position, cell) in enumerate(
        zip(positions, to_pixels(cohort.images[positions]), strict=True)
    ):
        top = head + row * high
        canvas.image(cell, 0.12, top, side)
        canvas.text(captions(cohort, [position])[0], 0.12, top - 0.04, 9, va="bottom")
        for column, method in enumerate(drawn.values()):
            left = 0.12 + (1 + 2 * column) * step
            _segments(canvas, method, position, cell, (left, top, side, step))
    bottom = head + len(positions) * high - 0.05
    for column, method in enumerate(drawn.values()):
        canvas.bar(method, 0.12 + (2 + 2 * column) * step, bottom, side)
    canvas.save(path)


def _one_of_each_outcome(cohort: Cohort) -> list[int]:
    first: dict[str, int] = {}
    for position in cohort.shown:
        first.setdefault(cohort.table["outcome"].iloc[position], position)
    return list(first.values())


def _segments(
    canvas: Canvas,
    drawn: Drawn,
    position: int,
    cell: Pixels,
    place: tuple[float, float, float, float],
) -> None:
    """Draw an image with the borders of its segments, and beside it the segments' weights."""
    left, top, side, step = place
    canvas.image(cell, left, top, side)
    canvas.map(drawn, position, cell, (left + step, top, side))
    count = 0
    if drawn.segments is not None:
        segments = drawn.segments[position]
        count = len(np.unique(segments[segments >= 0]))
        canvas.borders(segments, (left, top, side), "white")
        canvas.borders(segments, (left + step, top, side), "0.35")
    canvas.text(f"{drawn.title}: {count} segments", left, top - 0.04, 9, va="bottom")
    canvas.text(drawn.notes[position], left + step, top - 0.04, 8, va="bottom")
