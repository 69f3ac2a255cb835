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

_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colors that color-blind readers distinguish too (Okabe & Ito 2008)."""

_DASHES = ("-", "--", "-.", ":")

_CLASSES = {
    int(Label.ALL): (_COLORS[0], "-", "leukemic cells"),
    int(Label.HEM): (_COLORS[1], "--", "healthy cells"),
    UNLABELED: ("0.3", ":", "cells without a label"),
}
"""Color, line style and legend entry of each label."""

_BOX = "#ffb000"
"""Color visible on stained cells and on black, for color-blind readers too."""

_MOST_LAYERS = 12

FOLDER = "panels"
"""Subfolder of the explanations for figures of single images."""

Pixels = npt.NDArray[np.float32]
Grid = npt.NDArray[Any]

# --- Maps, prepared for drawing on a common scale


@dataclass(frozen=True, eq=False)
class Drawn:
    """Maps of a method, prepared for drawing on a common scale."""

    title: str
    label: str  # of the color bar: quantity and unit
    values: Pixels  # (B, R, R); for superpixels and patches the value of the whole segment
    usable: npt.NDArray[np.bool_]  # (B,); False for degenerate maps, which are not drawn
    limit: float  # end of the color bar, on both sides if the method is signed
    signed: bool
    segments: npt.NDArray[np.int64] | None  # (B, R, R), -1 outside all; None if unit is a pixel
    notes: Sequence[str]  # quality measures of each map

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
    """Prepare maps for drawing.

    The scale ends at the 99th percentile of the magnitudes, so that a few extreme pixels do not
    make the others pale. Superpixels and patches show the value of the whole segment, the quantity
    that their methods estimate.
    """
    values, segments, unit = attribution.maps.numpy(), None, "pixel"
    if attribution.segments is not None:
        segments, unit = attribution.segments.numpy(), attribution.unit
        sizes = [np.bincount(one.ravel() + 1)[one + 1] for one in segments]
        values = values * np.asarray(sizes, np.float32)
    usable = ~attribution.degenerate.numpy()
    magnitudes, limit = np.abs(values[usable]), 1.0
    if magnitudes.any():
        limit = float(np.percentile(magnitudes, 99)) or float(magnitudes.max())
    notes = [""] * len(values)
    for name, measured in attribution.checks.items():
        for position, value in enumerate(measured.tolist()):
            text = "< 0.01" if 0 <= value < 0.005 else f"{value:.2f}"
            before = f"{notes[position]}, " if notes[position] else ""
            notes[position] = f"{before}{name.replace('_', ' ').replace('r2', 'R²')} {text}"
    label = f"{attribution.quantity}, per {unit}"
    signed = attribution.signed
    return Drawn(attribution.title, label, values, usable, limit, signed, segments, notes)


def printed(image: Tensor) -> Pixels:
    """Print an image ``(3, R, R)`` in [0, 1] in light gray on white, ``(R, R, 3)``."""
    gray, mask = image.mean(dim=0).cpu().numpy(), cell_mask(image[None])[0].cpu().numpy()
    light = np.ones_like(gray)
    if mask.any():
        low, high = np.percentile(gray[mask], (2, 98))
        shade = (high - gray[mask]) / max(high - low, 1e-6)
        light[mask] = 1 - 0.45 * (0.2 + 0.8 * shade.clip(0, 1))  # at most 45 % black
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def to_pixels(image: Tensor) -> Pixels:
    """Convert an image ``(3, R, R)`` to an array ``(R, R, 3)`` for drawing."""
    return np.asarray(image.movedim(-3, -1).float().cpu().numpy().clip(0, 1))


# --- Parts of figures; no text is math, since file names may contain dollar signs


def _sheet(
    down: int, across: int, title: str, wide: float, tall: float, **options: Any
) -> tuple[Figure, Grid]:
    """Figure with bare axes ``(down, across)``, each with ``wide`` by ``tall`` inches."""
    size = (max(wide * across, 7.0), tall * down + 0.2 * title.count("\n") + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    axes = figure.subplots(down, across, squeeze=False, **options)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    return figure, axes


def _draw(axis: Axes, pixels: Pixels, title: str = "") -> None:
    axis.imshow(pixels, interpolation="nearest")
    axis.set_title(title, fontsize=8.5, loc="left", parse_math=False)


def _draw_map(axis: Axes, drawn: Drawn, position: int, image: Tensor, title: str = "") -> None:
    """Draw a map over its image ``(3, R, R)``."""
    _draw(axis, drawn.over(position, image), title)
    if not drawn.usable[position]:
        how: dict[str, Any] = {"ha": "center", "va": "center", "transform": axis.transAxes}
        axis.text(0.5, 0.5, "degenerate", style="italic", fontsize=10, **how)


def _draw_borders(axis: Axes, segments: npt.NDArray[np.int64], color: str) -> None:
    """Draw the borders between segments ``(R, R)``."""
    down, right = np.nonzero(segments[:, 1:] != segments[:, :-1])
    upright = np.stack([right + 1, down, right + 1, down + 1], axis=1)
    down, right = np.nonzero(segments[1:] != segments[:-1])
    level = np.stack([right, down + 1, right + 1, down + 1], axis=1)
    ends = np.concatenate([upright, level]).reshape(-1, 2, 2)
    # Matplotlib draws pixels around their centers.
    axis.add_collection(LineCollection(list(ends - 0.5), colors=color, linewidths=0.6))


def _name_row(axis: Axes, text: str) -> None:
    how: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}
    axis.set_ylabel(text, fontsize=8.5, **how)


def _color_bar(figure: Figure, axes: Axes | Grid, drawn: Drawn, wide: int = 26) -> None:
    """Draw a color bar below axes, with a label of ``wide`` characters per line."""
    how: dict[str, Any] = {
        "location": "bottom",
        "shrink": 0.5 if wide > 26 else 1,
        "panchor": False,
    }
    bar = figure.colorbar(drawn.scale, ax=axes, aspect=wide / 2, **how)
    ends = (-drawn.limit, 0, drawn.limit) if drawn.signed else (0, drawn.limit)
    bar.set_ticks(ends, labels=[f"{end:.2g}" for end in ends], fontsize=7)
    bar.set_label(textwrap.fill(drawn.label, wide), fontsize=7)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


# --- All images of a method, and all methods for an image


def save_overlays(
    path: Path, images: Tensor, drawn: Drawn, captions: Sequence[str], title: str
) -> None:
    """Draw images ``(B, 3, R, R)`` in [0, 1], each beside its map and with a caption, in a PNG."""
    across = min(4, len(images))
    figure, axes = _sheet(-(-len(images) // across), 2 * across, title, 1.65, 1.85)
    for position, (left, right) in enumerate(axes.reshape(-1, 2)[: len(images)]):
        _draw(left, to_pixels(images[position]), captions[position])
        _draw_map(right, drawn, position, images[position])
    _color_bar(figure, axes, drawn, 80)
    save(figure, path)


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
    across = min(5, 1 + len(drawn))
    words = f"{described(cohort, position)}\n{title}"
    figure, axes = _sheet(-(-(1 + len(drawn)) // across), across, words, 2.3, 3.0)
    image = cohort.images[position]
    _draw(axes[0, 0], to_pixels(image), "image")
    for axis, maps in zip(axes.flat[1:], drawn.values(), strict=False):
        note = textwrap.fill(maps.notes[position], 30)
        _draw_map(axis, maps, position, image, f"{maps.title}\n{note}" if note else maps.title)
        _color_bar(figure, axis, maps)
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


def caption(cohort: Cohort, position: int) -> str:
    """Caption of an image: its subject or file name, its score, right or wrong."""
    row = cohort.table.iloc[position]
    source = row["subject"] or Path(row["file"]).stem
    return f"{source}   {row['score']:.2f}   {verdict(str(row['outcome']))}"


def verdict(outcome: str) -> str:
    """Return ``right``, ``WRONG``, or an empty string if the truth is unknown."""
    if outcome == UNKNOWN:
        return ""
    return "right" if outcome.startswith("true") else "WRONG"


# --- Mean maps by outcome


def cohort_figure(cohort: Cohort, found: Mapping[str, Attribution], title: str) -> Figure:
    """Draw the mean map of each method for each outcome, without degenerate maps."""
    own = {outcome: cohort.of(outcome) for outcome in cohort.outcomes}
    absent = "".join(f"; no {name} ({MEANING[name]})" for name in own if not own[name])
    own = {outcome: positions for outcome, positions in own.items() if positions}
    methods = [drawn_of(averaged(maps, list(own.values()))) for maps in found.values()]
    words = f"{title}\nmean map per outcome; {sampled(cohort)}{absent}"
    figure, axes = _sheet(len(own), 1 + len(methods), words, 1.65, 1.8)
    for row, (outcome, positions) in enumerate(own.items()):
        image, top = cohort.images[positions].mean(dim=0), row == 0
        _draw(axes[row, 0], to_pixels(image), "mean image" if top else "")
        meaning = MEANING[outcome].replace(", ", ",\n")
        _name_row(axes[row, 0], f"{outcome}\n{meaning}\nn = {len(positions)}")
        # Print only where about half of the images have a cell; elsewhere the mean is nearly black.
        core = image.where(image.amax(dim=0) > image.max() / 2, 0)
        for axis, drawn in zip(axes[row, 1:], methods, strict=True):
            _draw_map(axis, drawn, row, core, drawn.title if top else "")
    for column, drawn in enumerate(methods, start=1):
        _color_bar(figure, axes[:, column], drawn)
    return figure


def sampled(cohort: Cohort) -> str:
    """Describe the sample for captions; a labeled sample is balanced by outcome, not random."""
    if cohort.outcomes == [UNKNOWN]:
        return f"{len(cohort.table)} images without labels"
    return f"{len(cohort.table)} test images, balanced by outcome: not the test population"


def averaged(maps: Attribution, groups: Sequence[Sequence[int]]) -> Attribution:
    """Mean map of each group of positions, ``(groups, R, R)``, pixel by pixel.

    A group with only degenerate maps has a map of zeros.
    """
    usable, means = ~maps.degenerate, []
    for group in groups:
        own = [position for position in group if usable[position]]
        means.append(maps.maps[own].mean(dim=0) if own else torch.zeros_like(maps.maps[0]))
    return replace(maps, maps=torch.stack(means), checks={}, segments=None)


# --- Prototypes: the training patches they were projected to


def save_prototypes(
    path: Path, images: Tensor, prototypes: Sequence[Prototype], title: str
) -> None:
    """Draw each prototype's training image with a box around its patch, a row per class.

    The box is the grid position of the prototype; its receptive field is larger. The number over
    each image is the similarity of the learned prototype to the patch that replaced it. ``images``
    are ``(P, 3, R, R)`` in [0, 1], the image of each prototype.
    """
    most = max(sum(p.label == label for p in prototypes) for label in Label)
    figure, axes = _sheet(len(Label), most, title, 1.7, 1.95)
    for label, row in zip(Label, axes, strict=True):
        own = [both for both in zip(prototypes, images, strict=True) if both[0].label == label]
        for axis, (one, image) in zip(row, own, strict=False):
            _draw(axis, to_pixels(image), f"{label.folder}  {one.similarity:.1f}")
            # Matplotlib draws pixels around their centers.
            corner = (one.left - 0.5, one.top - 0.5)
            axis.add_patch(Rectangle(corner, one.side, one.side, fill=False, ec=_BOX, lw=1.5))
    save(figure, path)


# --- Curves of the quality checks


def curves_figure(
    curves: pd.DataFrame, methods: pd.DataFrame, titles: Mapping[str, str], title: str
) -> Figure:
    """Draw deletion above insertion, a column per way of hiding pixels; controls in thin gray.

    ``curves`` and ``methods`` are tables of :class:`leuk.explain.quality.checks.Checked`;
    ``titles`` are display names of the methods; ``title`` names the model.
    """
    hides = list(dict.fromkeys(curves["hide"]))
    figure = Figure(figsize=(4.2 * len(hides) + 2.0, 6.6), layout="constrained")
    words = "probability of the predicted class, mean over patients; sample balanced by outcome"
    figure.suptitle(f"{title}\n{words}", fontsize=11, parse_math=False)
    axes = figure.subplots(2, len(hides), squeeze=False, sharex=True, sharey=True)
    kinds = (("deletion", "hidden", "lower"), ("insertion", "shown", "higher"))
    for row, (curve, done, better) in zip(axes, kinds, strict=True):
        for axis, hide in zip(row, hides, strict=True):
            own = curves[(curves["curve"] == curve) & (curves["hide"] == hide)]
            for control, names in methods.groupby("control")["method"]:
                for turn, name in enumerate(names):
                    line = own[own["method"] == name]
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
    figure, axes = _sheet(2 * len(positions), 1 + len(layers), words, 1.45, 1.65)
    for number, position in enumerate(positions):
        for axis, name in zip(axes[2 * number :, 0], ("leukemia", "healthy"), strict=False):
            _draw(axis, to_pixels(images[number]), caption(cohort, position))
            _name_row(axis, f"evidence for\n{name}")
    label = "activation x gradient of the class's logit, relative to the layer's scale"
    for layer, column in zip(layers, axes.T[1:], strict=True):
        # (2, images, R, R), healthy first
        maps = GradCAM(layer).of_classes(classifier, images.to(classifier.device))
        most = float(maps.abs().max().clamp(min=1e-30))
        broken = "\n".join(textwrap.wrap(layer.replace(".", " ."), 19)).replace(" .", ".")
        for target in Label:
            drawn = drawn_of(Attribution(maps[target] / most, "pixel"))
            drawn = replace(drawn, limit=1.0, label=label)
            for number, image in enumerate(images):
                row = 2 * number + (target == Label.HEM)
                name = f"{broken}\nscale: {most:.1g}" if row == 0 else ""
                _draw_map(column[row], drawn, number, image, name)
    _color_bar(figure, axes, drawn, 80)
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
        singles = [own.ravel().astype(np.float64) for own in drawn.values]
        if drawn.segments is not None:
            for position, segments in enumerate(drawn.segments):  # a value per segment
                parts, first = np.unique(segments.ravel(), return_index=True)
                singles[position] = singles[position][first[parts >= 0]]
        _histogram(upper, cohort, drawn.usable, singles)
        sums = [np.atleast_1d(own.sum()).astype(np.float64) for own in maps.maps.numpy()]
        _histogram(lower, cohort, drawn.usable, sums)
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


def _histogram(
    axis: Axes, cohort: Cohort, usable: npt.NDArray[np.bool_], values: Sequence[Floats]
) -> None:
    """Draw a histogram per class, in bins around zero, normalized to shares."""
    labels = cohort.table["label"].to_numpy()
    kept = [(one, label) for one, label, ok in zip(values, labels, usable, strict=True) if ok]
    joined = np.concatenate([np.zeros(0), *(one for one, _ in kept)])
    many = len(joined) > 1000
    end = float(np.percentile(np.abs(joined), 99.9 if many else 100)) if len(joined) else 1.0
    edges = np.linspace(-(end or 1.0), end or 1.0, 62 if many else 18)
    for label, (color, style, name) in _CLASSES.items():
        own = [one for one, of in kept if of == label]
        if own:
            counts, _ = np.histogram(np.concatenate(own), edges)
            shares, text = counts / max(1, counts.sum()), f"{name} ({len(own)})"
            axis.stairs(shares, edges, color=color, linestyle=style, linewidth=1.4, label=text)
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.tick_params(labelsize=8)


def figure_11(cohort: Cohort, found: Mapping[str, Attribution], title: str) -> Figure:
    """Draw LIME's segments and their weights for the first shown image of each outcome, in rows."""
    methods = [drawn_of(maps) for maps in found.values()]
    outcomes = cohort.table["outcome"]
    first = {outcomes.iloc[position]: position for position in reversed(cohort.shown)}
    positions = sorted(first.values(), key=cohort.shown.index)
    words = f"{title}\nLIME: superpixels or patches, and their weights"
    figure, axes = _sheet(len(first), 1 + 2 * len(methods), words, 2.3, 2.5)
    for (whole, *others), position in zip(axes, positions, strict=True):
        image = cohort.images[position]
        _draw(whole, to_pixels(image), caption(cohort, position))
        for plain, weighed, drawn in zip(others[::2], others[1::2], methods, strict=True):
            count = 0
            if drawn.segments is not None:
                segments = drawn.segments[position]
                count = len(np.unique(segments[segments >= 0]))
                _draw_borders(plain, segments, "white")
                _draw_borders(weighed, segments, "0.35")
            _draw(plain, to_pixels(image), f"{drawn.title}: {count} segments")
            _draw_map(weighed, drawn, position, image, drawn.notes[position])
    for column, drawn in zip(axes.T[2::2], methods, strict=True):
        _color_bar(figure, column, drawn)
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

    Returns:
        Paths of the figures, relative to ``folder``, without the ``<method>.png`` of each method.
    """
    if not found:
        return []
    captions = [caption(cohort, position) for position in cohort.shown]
    above = "above each image its subject and predicted score of leukemia"
    for name, maps in found.items():
        drawn, words = drawn_of(maps.of(cohort.shown)), f"{title}\n{maps.title}; {above}"
        save_overlays(folder / f"{name}.png", cohort.images[cohort.shown], drawn, captions, words)
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
