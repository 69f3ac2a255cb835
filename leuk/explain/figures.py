"""Figures of explanations: maps over images, means by outcome, figures 9 to 11 of the thesis."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.patches import Rectangle
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.classifiers.prototypes import Prototype
from leuk.data.decode import cell_mask
from leuk.data.labels import UNLABELED, Label
from leuk.explain.base import Attribution, Explainer
from leuk.explain.cohort import MEANING, UNKNOWN, Cohort
from leuk.explain.gradcam import GradCAM, layers_of
from leuk.metrics.arrays import Floats
from leuk.store import whole_file

SIGNED, UNSIGNED = "PuOr_r", "Greens"
"""Color maps in which zero is white; color-blind readers distinguish orange from purple."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"
"""Colors of the classes, distinct for color-blind readers too (Okabe & Ito 2008)."""

_PRINT = 0.45
"""Darkest gray of a print, 0 being white and 1 black."""

_DPI = 110

Pixels = npt.NDArray[np.float32]


# --- Maps, prepared for drawing on a common scale


@dataclass(frozen=True, eq=False)
class Drawn:
    """Maps of a method, prepared for drawing on a common scale.

    Attributes:
        title: the method's display name.
        label: quantity and unit of the color bar.
        values: ``float32 (B, R, R)``; for superpixels and patches the value of the whole segment.
        usable: ``bool (B,)``; False for degenerate maps, which are not drawn.
        limit: end of the color bar, on both sides if the method is signed.
        signed: whether negative values are evidence against leukemia.
        segments: ``int64 (B, R, R)``, -1 outside all segments; None if the unit is a pixel.
        notes: quality measures of each map, as text.
    """

    title: str
    label: str
    values: Pixels
    usable: npt.NDArray[np.bool_]
    limit: float
    signed: bool
    segments: npt.NDArray[np.int64] | None
    notes: Sequence[str]

    @property
    def scale(self) -> ScalarMappable:
        """Values to colors."""
        ends = Normalize(-self.limit if self.signed else 0.0, self.limit, clip=True)
        return ScalarMappable(ends, colormaps[SIGNED if self.signed else UNSIGNED])

    def over(self, position: int, image: Tensor) -> Pixels:
        """Draw a map over its image ``(3, R, R)``; return RGB ``(R, R, 3)``."""
        if not self.usable[position]:
            return printed(image)
        inked = self.scale.to_rgba(self.values[position])[..., :3]
        return np.asarray(inked * printed(image), np.float32)


def drawn_of(attribution: Attribution) -> Drawn:
    """Prepare maps for drawing, with scale, title and label.

    The scale ends at the 99th percentile of the magnitudes, so that a few extreme pixels do not
    make the others pale. Superpixels and patches show the value of the whole segment, the quantity
    that their methods estimate.
    """
    values, segments, unit = attribution.maps.numpy(), None, "pixel"
    if attribution.segments is not None:
        segments, unit = attribution.segments.numpy(), attribution.unit
        values = values * sizes_of(segments)
    usable = ~attribution.degenerate.numpy()
    magnitudes, limit = np.abs(values[usable]), 1.0
    if magnitudes.any():
        limit = float(np.percentile(magnitudes, 99)) or float(magnitudes.max())
    named = {
        name.replace("_", " ").replace("r2", "R²"): [
            "< 0.01" if 0 <= it < 0.005 else f"{it:.2f}" for it in of.tolist()
        ]
        for name, of in attribution.checks.items()
    }
    notes = [
        ", ".join(f"{name} {texts[position]}" for name, texts in named.items())
        for position in range(len(values))
    ]
    label = f"{attribution.quantity}, per {unit}"
    signed = attribution.signed
    return Drawn(attribution.title, label, values, usable, limit, signed, segments, notes)


def sizes_of(segments: npt.NDArray[np.int64]) -> Pixels:
    """Size in pixels of the segment of each pixel, ``(B, R, R)``; 0 outside all segments."""
    sizes = np.zeros(segments.shape, np.float32)
    for one, size in zip(segments, sizes, strict=True):
        counts = np.bincount(one.ravel() + 1)
        counts[0] = 0
        size[:] = counts[one + 1]
    return sizes


def printed(image: Tensor) -> Pixels:
    """Print an image ``(3, R, R)`` in [0, 1] in light gray on white, ``(R, R, 3)``."""
    gray, mask = image.mean(dim=0).cpu().numpy(), cell_mask(image[None])[0].cpu().numpy()
    light = np.ones_like(gray)
    if mask.any():
        low, high = np.percentile(gray[mask], (2, 98))
        shade = (high - gray[mask]) / max(high - low, 1e-6)
        light[mask] = 1 - _PRINT * (0.2 + 0.8 * shade.clip(0, 1))
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def to_pixels(images: Tensor) -> Pixels:
    """Convert images ``(..., 3, R, R)`` to arrays ``(..., R, R, 3)`` for drawing."""
    return np.asarray(images.movedim(-3, -1).float().cpu().numpy().clip(0, 1))


# --- Parts of figures; no text is math, since file names may contain dollar signs


_BAR = 0.06
"""Height of a row of color bars."""


def _grid(
    rows: Sequence[float], columns: Sequence[float], title: str, inches: float
) -> tuple[Figure, GridSpec, npt.NDArray[Any]]:
    """Figure with axes of these relative heights and widths, in which 1 is ``inches``.

    Rows of height :data:`_BAR` have space for labels below, and no axes yet.
    """
    height = inches * sum(rows) + 0.5 * rows.count(_BAR) + 0.2 * title.count("\n") + 0.5
    size = (max(inches * sum(columns), 7.0), height)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    grid = figure.add_gridspec(len(rows), len(columns), height_ratios=rows, width_ratios=columns)
    axes = np.empty((len(rows), len(columns)), dtype=object)
    for place in np.ndindex(axes.shape):
        if rows[place[0]] != _BAR:
            axis = axes[place] = figure.add_subplot(grid[place])
            axis.set_axis_off()
    return figure, grid, axes


def _title(axis: Axes, text: str, size: float = 8.5) -> None:
    axis.set_title(text, fontsize=size, loc="left", parse_math=False)


def _text(axis: Axes, text: str, **how: Any) -> None:
    """Write text from the upper left corner of axes, without effect on the layout."""
    how = {"fontsize": 8.5, "va": "top", "in_layout": False, "parse_math": False, **how}
    axis.text(0, 1, text, transform=axis.transAxes, **how)


def _show(axis: Axes, pixels: Pixels) -> None:
    axis.imshow(pixels, interpolation="nearest")


def _show_map(axis: Axes, drawn: Drawn, position: int, image: Tensor, beside: bool = False) -> None:
    """Draw a map over its image ``(3, R, R)``, with the plain image on its left if ``beside``."""
    pixels = drawn.over(position, image)
    if beside:
        gap = np.ones((len(pixels), max(1, len(pixels) // 50), 3), np.float32)
        pixels = np.concatenate([to_pixels(image), gap, pixels], axis=1)
    _show(axis, pixels)
    if not drawn.usable[position]:
        left = 0.75 if beside else 0.5
        how: dict[str, Any] = {"ha": "center", "va": "center", "transform": axis.transAxes}
        axis.text(left, 0.5, "degenerate", style="italic", fontsize=10, **how)


def _show_borders(axis: Axes, segments: npt.NDArray[np.int64], color: str) -> None:
    """Draw the borders between segments ``(R, R)``."""
    down, right = np.nonzero(segments[:, 1:] != segments[:, :-1])
    upright = np.stack([right + 1, down, right + 1, down + 1], axis=1)
    down, right = np.nonzero(segments[1:] != segments[:-1])
    level = np.stack([right, down + 1, right + 1, down + 1], axis=1)
    ends = np.concatenate([upright, level]).reshape(-1, 2, 2)
    # Matplotlib draws pixels around their centers.
    axis.add_collection(LineCollection(list(ends - 0.5), colors=color, linewidths=0.6))


def _color_bar(figure: Figure, place: SubplotSpec, drawn: Drawn, wide: int = 26) -> None:
    """Draw a color bar, with a label of ``wide`` characters per line."""
    axis = figure.add_subplot(place)
    ends = (-drawn.limit, 0, drawn.limit) if drawn.signed else (0, drawn.limit)
    shades = drawn.scale.to_rgba(np.linspace(ends[0], ends[-1], 129))[None]
    axis.imshow(shades, extent=(ends[0], ends[-1], 0, 1), aspect="auto")
    axis.yaxis.set_visible(False)
    axis.set_xticks(ends, [f"{end:.2g}" for end in ends], fontsize=7)
    axis.set_xlabel(textwrap.fill(drawn.label, wide), fontsize=7)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


# --- All images of a method, in one figure


def save_overlays(
    path: Path, images: Tensor, drawn: Drawn, captions: Sequence[str], title: str
) -> None:
    """Draw images ``(B, 3, R, R)`` in [0, 1], each beside its map and with a caption, in a PNG."""
    across = min(4, len(images))
    down = -(-len(images) // across)
    figure, grid, axes = _grid([1] * down + [_BAR], [2] * across, title, 1.65)
    for position, axis in zip(range(len(images)), axes.flat, strict=False):
        _title(axis, captions[position], 8)
        _show_map(axis, drawn, position, images[position], beside=True)
    _color_bar(figure, grid[-1, 0], drawn, 60)
    save(figure, path)


# --- All methods for one image

FOLDER = "panels"
"""Subfolder of the explanations for figures of single images."""

_COLUMNS = 5


def panel_name(row: int) -> str:
    """Path of an image's figure by the image's row, relative to the folder of the explanations."""
    return f"{FOLDER}/{row:05d}.png"


def save_panels(folder: Path, cohort: Cohort, drawn: Mapping[str, Drawn], title: str) -> list[str]:
    """Draw a figure of each shown image; each method has one color scale for all.

    Figures of other images from an earlier call are removed.

    Returns:
        Paths of the figures, relative to ``folder``, ordered by outcome.
    """
    names = {position: panel_name(cohort.table["row"].iloc[position]) for position in cohort.shown}
    for path in (folder / FOLDER).glob("*.png"):
        if f"{FOLDER}/{path.name}" not in names.values():
            path.unlink()
    for position, name in names.items():
        save(panel(cohort, drawn, position, title), folder / name)
    return list(names.values())


def panel(cohort: Cohort, drawn: Mapping[str, Drawn], position: int, title: str) -> Figure:
    """Draw an image and the maps of all methods, each with its color bar and quality measures."""
    down = -(-(1 + len(drawn)) // _COLUMNS)
    across = min(_COLUMNS, 1 + len(drawn))
    words = f"{described(cohort, position)}\n{title}"
    figure, grid, axes = _grid([1.15, _BAR] * down, [1] * across, words, 2.3)
    image = cohort.images[position]
    _title(axes[0, 0], "image")
    _show(axes[0, 0], to_pixels(image))
    for tile, maps in enumerate(drawn.values(), start=1):
        row, column = divmod(tile, across)
        axis = axes[2 * row, column]
        note = textwrap.fill(maps.notes[position], 30)
        _title(axis, f"{maps.title}\n{note}" if note else maps.title)
        _show_map(axis, maps, position, image)
        _color_bar(figure, grid[2 * row + 1, column], maps)
    return figure


def described(cohort: Cohort, position: int) -> str:
    """Describe an image in two lines: its predicted score and true label; its file and subject."""
    row = cohort.table.iloc[position]
    outcome = str(row["outcome"])
    truth = "truth unknown"
    if outcome != UNKNOWN:
        label = MEANING[outcome].partition(",")[0]
        truth = f"truth: {label}, {verdict(outcome)} ({outcome})"
    return f"score {row['score']:.2f} for leukemia, {truth}\n{row['file']}    {row['subject']}"


def captions(cohort: Cohort, positions: Sequence[int]) -> list[str]:
    """Caption of each image: its subject or file name, its score, right or wrong."""
    words = []
    for position in positions:
        row = cohort.table.iloc[position]
        source = row["subject"] or Path(row["file"]).stem
        words.append(f"{source}   {row['score']:.2f}   {verdict(str(row['outcome']))}")
    return words


def verdict(outcome: str) -> str:
    """Return ``right``, ``WRONG``, or an empty string if the truth is unknown."""
    if outcome == UNKNOWN:
        return ""
    return "right" if outcome.startswith("true") else "WRONG"


# --- Mean maps by outcome


def cohort_figure(cohort: Cohort, found: Mapping[str, Attribution], title: str) -> Figure:
    """Draw the mean map of each method for each outcome, without degenerate maps."""
    methods = [drawn_of(averaged(cohort, maps)) for maps in found.values()]
    counts = {outcome: len(cohort.of(outcome)) for outcome in cohort.outcomes}
    rows = [1.0 if count else 0.45 for count in counts.values()]
    words = f"{title}\nmean map per outcome; {sampled(cohort)}"
    figure, grid, axes = _grid([*rows, _BAR], [1.1] + [1] * (1 + len(methods)), words, 1.65)
    for axis, name in zip(axes[0, 1:], ["mean image", *(m.title for m in methods)], strict=True):
        _title(axis, name)
    for row, (outcome, image) in enumerate(zip(counts, mean_images(cohort), strict=True)):
        axis, *others = axes[row]
        meaning = MEANING[outcome].replace(", ", ",\n")
        _text(axis, f"{outcome}\n{meaning}\nn = {counts[outcome]}")
        if not counts[outcome]:
            _text(others[0], "no such image among those explained", color="0.4")
            continue
        _show(others[0], to_pixels(image))
        # Print only where about half of the images have a cell; elsewhere the mean is nearly black.
        core = image.where(image.amax(dim=0) > image.max() / 2, 0)
        for axis, drawn in zip(others[1:], methods, strict=True):
            _show_map(axis, drawn, row, core)
    for column, drawn in enumerate(methods, start=2):
        _color_bar(figure, grid[-1, column], drawn)
    return figure


def sampled(cohort: Cohort) -> str:
    """Describe the sample for captions; a labeled sample is balanced by outcome, not random."""
    if cohort.outcomes == [UNKNOWN]:
        return f"{len(cohort.table)} images without labels"
    return f"{len(cohort.table)} test images, balanced by outcome: not the test population"


def averaged(cohort: Cohort, maps: Attribution) -> Attribution:
    """Mean map of each outcome, ``(outcomes, R, R)``, pixel by pixel whatever the method's unit.

    An outcome without images, or with only degenerate maps, has a map of zeros.
    """
    usable = ~maps.degenerate
    means = []
    for outcome in cohort.outcomes:
        own = [position for position in cohort.of(outcome) if usable[position]]
        means.append(maps.maps[own].mean(dim=0) if own else torch.zeros_like(maps.maps[0]))
    return replace(maps, maps=torch.stack(means), checks={}, segments=None)


def mean_images(cohort: Cohort) -> Tensor:
    """Mean image of each outcome, ``(outcomes, 3, R, R)``; black for an outcome without images."""
    black = torch.zeros_like(cohort.images[:1])
    own = [cohort.of(outcome) for outcome in cohort.outcomes]
    return torch.stack([(cohort.images[it] if it else black).mean(dim=0) for it in own])


# --- Prototypes: the training patches they were projected to

_BOX = "#ffb000"
"""Color visible on stained cells and on black, for color-blind readers too."""


def save_prototypes(
    path: Path, images: Tensor, prototypes: Sequence[Prototype], title: str
) -> None:
    """Draw each prototype's training image with a box around its patch, a row per class.

    The box is the grid position of the prototype; its receptive field is larger. The number over
    each image is the similarity of the learned prototype to the patch that replaced it.

    Args:
        path: output file.
        images: ``(P, 3, R, R)`` in [0, 1], the image of each prototype.
        prototypes: prototypes from :meth:`leuk.classifiers.prototypes.Prototyped.project`.
        title: title of the whole figure.

    Raises:
        ValueError: no prototypes, or another number of images.
    """
    if not prototypes or len(images) != len(prototypes):
        raise ValueError(f"{len(images)} images for {len(prototypes)} prototypes")
    rows = [[n for n, p in enumerate(prototypes) if p.label == label] for label in Label]
    figure, _, axes = _grid([1.15] * len(rows), [1] * max(map(len, rows)), title, 1.7)
    for label, own, row in zip(Label, rows, axes, strict=True):
        for number, axis in zip(own, row, strict=False):
            prototype, side = prototypes[number], prototypes[number].side
            _show(axis, to_pixels(images[number]))
            # Matplotlib draws pixels around their centers.
            corner = (prototype.left - 0.5, prototype.top - 0.5)
            axis.add_patch(Rectangle(corner, side, side, fill=False, ec=_BOX, lw=1.5))
            _title(axis, f"{label.folder}  {prototype.similarity:.1f}", 7)
    save(figure, path)


# --- Curves of the quality checks

_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colors of the methods, distinct for color-blind readers too (Okabe & Ito 2008)."""

_DASHES = ("-", "--", "-.", ":")


def curves_figure(
    curves: pd.DataFrame, methods: pd.DataFrame, titles: Mapping[str, str], title: str
) -> Figure:
    """Draw deletion above insertion, a column per way of hiding pixels; controls in thin gray.

    Args:
        curves: see :class:`leuk.explain.quality.checks.Checked`.
        methods: ``method`` and ``control``, in the order of the legend.
        titles: display names of the methods.
        title: title of the model.
    """
    hides = list(dict.fromkeys(curves["hide"]))
    figure = Figure(figsize=(4.2 * len(hides) + 2.0, 6.6), layout="constrained")
    words = "probability of the predicted class, mean over patients; sample balanced by outcome"
    figure.suptitle(f"{title}\n{words}", fontsize=11, parse_math=False)
    axes = figure.subplots(2, len(hides), squeeze=False, sharex=True, sharey=True)
    lines = dict(list(curves.groupby(["curve", "hide", "method"])))
    for row, (curve, done, better) in zip(
        axes, (("deletion", "hidden", "lower"), ("insertion", "shown", "higher")), strict=True
    ):
        for axis, hide in zip(row, hides, strict=True):
            for control, own in methods.groupby("control"):
                for turn, name in enumerate(own["method"]):
                    line = lines[curve, hide, name]
                    axis.plot(
                        line["share"].to_numpy(),
                        line["probability"].to_numpy(),
                        label=f"control: {name}" if control else titles[name],
                        color="0.6" if control else _COLORS[turn % len(_COLORS)],
                        linestyle=_DASHES[turn % len(_DASHES)],
                        linewidth=1.0 if control else 1.6,
                    )
            axis.set_xlim(0, 1)
            axis.set_title(f"{curve} ({hide}): {better} is better", fontsize=9)
            axis.set_xlabel(f"share of the cell's pixels {done}, highest first", fontsize=8)
            axis.tick_params(labelsize=8, labelbottom=True)
            axis.grid(color="0.92")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    return figure


# --- Figures 9 to 11 of the thesis, drawn for any classifier and cohort

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


def figure_9(classifier: Classifier, cohort: Cohort, title: str) -> Figure:
    """Draw Grad-CAM of both classes at every layer, for an image of each class.

    Magnitudes are not comparable between layers, so each layer has its own scale. Of more than
    twelve layers, twelve evenly spaced ones are shown. :func:`one_of_each` chooses the images.
    """
    every = layers_of(classifier)
    indices = np.linspace(0, len(every) - 1, min(_MOST_LAYERS, len(every))).round()
    layers = [every[int(index)] for index in np.unique(indices)]
    count = f"{len(layers)} of {len(every)}" if len(layers) < len(every) else f"all {len(every)}"
    words = f"{title}\nGrad-CAM at {count} layers, first to last, for the logit of each class"
    positions = one_of_each(cohort)
    images = cohort.images[positions]
    figure, grid, axes = _grid(
        [1.1] * 2 * len(positions) + [_BAR], [0.75] + [1] * (1 + len(layers)), words, 1.45
    )
    for number, caption in enumerate(captions(cohort, positions)):
        upper, lower = axes[2 * number : 2 * number + 2]
        _show(upper[1], to_pixels(images[number]))
        _text(lower[1], caption.replace("   ", "\n"))
        _text(upper[0], "evidence for\nleukemia")
        _text(lower[0], "evidence for\nhealthy")
    label = "activation x gradient of the class's logit, relative to the layer's scale"
    for column, layer in enumerate(layers, start=2):
        # (2, images, R, R), healthy first
        maps = GradCAM(layer).of_classes(classifier, images.to(classifier.device))
        most = float(maps.abs().max().clamp(min=1e-30))
        _title(axes[0, column], f"{_broken(layer, 19)}\nscale: {most:.1g}", 7.5)
        for target in Label:
            drawn = drawn_of(Attribution(maps[target] / most, "pixel"))
            drawn = replace(drawn, limit=1.0, label=label)
            for number, image in enumerate(images):
                row = 2 * number + (target == Label.HEM)
                _show_map(axes[row, column], drawn, number, image)
    _color_bar(figure, grid[-1, 2], drawn)
    return figure


def one_of_each(cohort: Cohort) -> list[int]:
    """Position of a shown image of each class, leukemic first, correctly predicted if possible.

    Without labels, the position of the first shown image.
    """
    labels, outcomes = cohort.table["label"].to_numpy(), cohort.table["outcome"].tolist()
    chosen = []
    for label in reversed(Label):
        own = [position for position in cohort.shown if labels[position] == label]
        own.sort(key=lambda position: not outcomes[position].startswith("true"))
        chosen += own[:1]
    return chosen or cohort.shown[:1]


def _broken(name: str, width: int) -> str:
    """Break a dotted name into lines of at most ``width`` characters, if its parts allow."""
    return "\n".join(textwrap.wrap(name.replace(".", " ."), width)).replace(" .", ".")


def figure_10(cohort: Cohort, found: Mapping[str, Attribution], title: str) -> Figure:
    """Draw the distributions of the SHAP values of healthy and leukemic cells.

    The upper row shows single values (of pixels, or of whole regions and patches), without the most
    extreme 0.1 %. The lower row shows their sum per image, its log-odds relative to the reference.
    Images without labels form a single class.
    """
    figure = Figure(figsize=(max(3.9 * len(found), 6.0), 6.2), layout="constrained")
    words = f"{title}\nSHAP values without the most extreme 0.1 %; {sampled(cohort)}"
    figure.suptitle(words, fontsize=11, parse_math=False)
    axes = figure.subplots(2, len(found), squeeze=False)
    for (upper, lower), maps in zip(axes.T, found.values(), strict=True):
        drawn = drawn_of(maps)
        singles = [_single(drawn, position) for position in range(len(drawn.values))]
        _histogram(upper, cohort, drawn, singles)
        sums = [np.atleast_1d(own.sum()).astype(np.float64) for own in maps.maps.numpy()]
        _histogram(lower, cohort, drawn, sums)
        upper.set_title(drawn.title, fontsize=10)
        upper.set_xlabel(drawn.label, fontsize=8)
        upper.set_yscale("log")
        if upper.get_legend_handles_labels()[0]:
            upper.legend(fontsize=7.5, frameon=False, loc="upper left")
        else:
            upper.text(0.02, 0.9, "all degenerate", transform=upper.transAxes)
        lower.set_xlabel("sum over the image, log-odds", fontsize=8)
    axes[0, 0].set_ylabel("share of values (log scale)", fontsize=8)
    axes[1, 0].set_ylabel("share of images", fontsize=8)
    return figure


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
    usable = [
        (values[i], label) for i, label in enumerate(cohort.table["label"]) if drawn.usable[i]
    ]
    joined = np.concatenate([own for own, _ in usable] or [np.zeros(1)])
    many = len(joined) > _MANY
    end = float(np.percentile(np.abs(joined), _SHOWN if many else 100)) or 1.0
    edges = np.linspace(-end, end, _BINS if many else _FEW_BINS)
    for label, (color, style, name) in _CLASSES.items():
        if own := [one for one, of in usable if of == label]:
            counts, _ = np.histogram(np.concatenate(own), edges)
            shares, text = counts / max(1, counts.sum()), f"{name} ({len(own)})"
            axis.stairs(shares, edges, color=color, linestyle=style, linewidth=1.4, label=text)
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.tick_params(labelsize=8)


def figure_11(cohort: Cohort, found: Mapping[str, Attribution], title: str) -> Figure:
    """Draw LIME's segments and their weights for the first shown image of each outcome, in rows."""
    methods = [drawn_of(maps) for maps in found.values()]
    first: dict[str, int] = {}
    for position in cohort.shown:
        first.setdefault(cohort.table["outcome"].iloc[position], position)
    words = f"{title}\nLIME: superpixels or patches, and their weights"
    figure, grid, axes = _grid(
        [1.1] * len(first) + [_BAR], [1] * (1 + 2 * len(methods)), words, 2.3
    )
    for row, position in zip(axes, first.values(), strict=False):
        image = cohort.images[position]
        _title(row[0], captions(cohort, [position])[0], 9)
        _show(row[0], to_pixels(image))
        for column, drawn in enumerate(methods):
            plain, weighed = row[1 + 2 * column : 3 + 2 * column]
            _show(plain, to_pixels(image))
            _show_map(weighed, drawn, position, image)
            count = 0
            if drawn.segments is not None:
                segments = drawn.segments[position]
                count = len(np.unique(segments[segments >= 0]))
                _show_borders(plain, segments, "white")
                _show_borders(weighed, segments, "0.35")
            _title(plain, f"{drawn.title}: {count} segments", 9)
            _title(weighed, drawn.notes[position], 8)
    for column, drawn in enumerate(methods):
        _color_bar(figure, grid[-1, 2 + 2 * column], drawn)
    return figure


# --- All figures of a cohort, written to the folder of the explanations


def draw_all(
    folder: Path,
    title: str,
    classifier: Classifier,
    cohort: Cohort,
    explainers: Mapping[str, Explainer],
    found: Mapping[str, Attribution],
) -> list[str]:
    """Draw every figure that these methods allow, below ``folder``.

    ``title`` names the model, over every figure; ``found`` are the maps of all images by method.

    Returns:
        Paths of the figures, relative to ``folder``, without the ``<method>.png`` of each method.
    """
    if not found:
        return []
    shown = cohort.shown
    above = "above each image its subject and predicted score of leukemia"
    for name, maps in found.items():
        drawn, words = drawn_of(maps.of(shown)), f"{title}\n{maps.title}; {above}"
        texts = captions(cohort, shown)
        save_overlays(folder / f"{name}.png", cohort.images[shown], drawn, texts, words)
    written = save_panels(
        folder, cohort, {name: drawn_of(maps) for name, maps in found.items()}, title
    )
    figures = {"cohort": cohort_figure(cohort, found, title)}
    of_thesis: dict[int | None, dict[str, Attribution]] = {}
    for name, maps in found.items():
        of_thesis.setdefault(explainers[name].thesis_figure, {})[name] = maps
    if 9 in of_thesis:
        figures["figure_9"] = figure_9(classifier, cohort, title)
    if shap := of_thesis.get(10):
        figures["figure_10"] = figure_10(cohort, shap, title)
    if lime := of_thesis.get(11):
        figures["figure_11"] = figure_11(cohort, lime, title)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    return [*written, *(f"{name}.png" for name in figures)]
