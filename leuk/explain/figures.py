"""Choice of the images to explain, the background images, and the applicable methods."""

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from leuk.classifiers.base import Classifier, Predictions
from leuk.classifiers.prototypes import Prototype
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import LIT
from leuk.data.labels import UNLABELED, Label
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, Explainer
from leuk.explain.gradcam import GradCAM, layers_of
from leuk.metrics.arrays import Floats
from leuk.store import whole_file


def choose_images(images: pd.DataFrame, count: int) -> list[int]:
    """Choose positions in a table of test images, deterministically.

    The four outcomes (each label, predicted rightly or wrongly) take turns, and within an outcome
    the subjects take turns, so that neither a frequent outcome nor a large subject dominates. A
    smaller choice is the start of a larger one.

    Args:
        images: images with ``label``, ``decided`` (the predicted label) and ``subject``.
        count: number to choose; all if the table has fewer.
    """
    outcomes = [
        _by_turns(group)
        for _, group in images.reset_index(drop=True).groupby(["label", "decided"], sort=True)
    ]
    chosen: list[int] = []
    for turn in range(max(map(len, outcomes), default=0)):
        chosen += [outcome[turn] for outcome in outcomes if turn < len(outcome)]
    return chosen[:count]


def choose_background(train: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Choose training images, the same number from both classes as far as possible.

    Args:
        train: real training images with ``label`` and ``subject``, indexed by row of the bank.
        count: number to choose; all if the table has fewer.
        seed: seed of the random choice.

    Returns:
        Rows of the bank, ascending.
    """
    shuffled = train.iloc[np.random.default_rng(seed).permutation(len(train))]
    turns = [_by_turns(group) for _, group in shuffled.groupby("label", sort=True)]
    chosen: list[int] = []
    for turn in range(max(map(len, turns), default=0)):
        chosen += [group[turn] for group in turns if turn < len(group)]
    return sorted(chosen[:count])


def possible_explainers(
    explainers: Mapping[str, Explainer], classifier: Classifier
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Separate the methods that support this classifier from those to omit.

    Args:
        explainers: explainers by name.
        classifier: classifier, trained or not.

    Returns:
        The applicable methods, and the reason for each omitted one, by name.

    Raises:
        ConfigError: a method without ``when_possible`` needs patches and the classifier has none;
            or Grad-CAM's layer does not exist.
    """
    kept: dict[str, Explainer] = {}
    left_out: dict[str, str] = {}
    for name, explainer in explainers.items():
        if isinstance(explainer, GradCAM):
            explainer.layer_of(classifier)
        if not explainer.needs_patches or classifier.has_patches:
            kept[name] = explainer
        elif getattr(explainer, "when_possible", False):
            left_out[name] = f"{type(classifier).__name__} has no patches"
        else:
            raise ConfigError(f"explain={name}: {classifier.no_patches_message()}")
    return kept, left_out


def _by_turns(group: pd.DataFrame) -> list[int]:
    """Index values of a group in an order in which its subjects take turns."""
    turns: dict[str, int] = defaultdict(int)
    order: list[tuple[int, int]] = []
    for position, subject in enumerate(group["subject"]):
        order.append((turns[subject], position))
        turns[subject] += 1
    return [int(group.index[position]) for _, position in sorted(order)]


# --- Drawing of attributions: signed maps over images, and a canvas to lay them out on

SIGNED, UNSIGNED = "PuOr_r", "Greens"
"""Color maps in which zero is white; color-blind readers distinguish orange from purple."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"
"""Colors of the classes, distinct for color-blind readers too (Okabe & Ito 2008)."""

_TITLES = {
    "gradcam": "Grad-CAM",
    "rollout": "attention rollout",
    "shap_pixels": "SHAP, pixels",
    "shap_regions": "SHAP, regions",
    "shap_patches": "SHAP, patches",
    "lime": "LIME, superpixels",
    "lime_patches": "LIME, patches",
}
_MEASURES = {
    "gradcam": "activation x gradient of the log-odds of leukemia",
    "rollout": "share of [CLS] by attention rollout",
    "lime": "weight in a linear fit to the log-odds of leukemia",
    "lime_patches": "weight in a linear fit to the log-odds of leukemia",
}
_CONTRIBUTION = "contribution to the log-odds of leukemia"

_PRINT = 0.45
"""Darkest gray of a print, 0 being white and 1 black."""

_DPI = 110
_FONT = 8

Pixels = npt.NDArray[np.float32]


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
    def colors(self) -> str:
        """Name of the color map."""
        return SIGNED if self.signed else UNSIGNED

    def over(self, position: int, cell: Pixels) -> Pixels:
        """Draw a map over its image ``(R, R, 3)``; return RGB ``(R, R, 3)``."""
        if not self.usable[position]:
            return printed(cell)
        low = -self.limit if self.signed else 0.0
        share = (self.values[position] - low) / (self.limit - low)
        inked = colormaps[self.colors](share.clip(0, 1))[..., :3]
        return np.asarray(inked * printed(cell), np.float32)


def drawn_of(name: str, attribution: Attribution) -> Drawn:
    """Prepare maps for drawing, with scale, title and label.

    The scale ends at the 99th percentile of the values, so that a few extreme pixels do not make
    the others pale. Superpixels and patches show the value of the whole segment, the quantity that
    their methods estimate.

    Args:
        name: identifier of the method.
        attribution: the maps.
    """
    values, segments = attribution.maps.numpy(), None
    unit = "pixel"
    if attribution.segments is not None:
        segments, unit = attribution.segments.numpy(), attribution.unit
        values = values * sizes_of(segments)
    usable = ~attribution.degenerate.numpy()
    return Drawn(
        title_of(name),
        f"{_MEASURES.get(name, _CONTRIBUTION)}, per {unit}",
        values,
        usable,
        limit_of(values[usable]),
        attribution.signed,
        segments,
        _notes(attribution.checks, len(values)),
    )


def title_of(name: str) -> str:
    """Display name of a method."""
    return _TITLES.get(name, name)


def limit_of(values: Pixels) -> float:
    """End of the color scale: the 99th percentile of the magnitudes."""
    magnitudes = np.abs(values)
    if not magnitudes.any():
        return 1.0
    return float(np.percentile(magnitudes, 99)) or float(magnitudes.max())


def sizes_of(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Size in pixels of the segment of each pixel, ``(B, R, R)``; 0 outside all segments."""
    sizes = np.zeros(segments.shape, np.float32)
    for one, size in zip(segments, sizes, strict=True):
        counts = np.bincount(one.ravel() + 1)
        counts[0] = 0
        size[:] = counts[one + 1]
    return sizes


def _notes(checks: Mapping[str, Tensor], count: int) -> list[str]:
    named = {name.replace("_", " ").replace("r2", "R²"): of.tolist() for name, of in checks.items()}
    return [
        ", ".join(f"{name} {_short(values[position])}" for name, values in named.items())
        for position in range(count)
    ]


def _short(value: float) -> str:
    return "< 0.01" if 0 <= value < 0.005 else f"{value:.2f}"


def printed(cell: Pixels) -> Pixels:
    """Print an image ``(R, R, 3)`` in [0, 1] in light gray on white, ``(R, R, 3)``."""
    gray = cell.mean(axis=2)
    mask = cell.max(axis=2) > LIT / 255
    light = np.ones_like(gray)
    if mask.any():
        low, high = np.percentile(gray[mask], (2, 98))
        shade = (high - gray[mask]) / max(high - low, 1e-6)
        light[mask] = 1 - _PRINT * (0.2 + 0.8 * shade.clip(0, 1))
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def to_pixels(images: Tensor) -> Pixels:
    """Convert images ``(B, 3, R, R)`` to arrays ``(B, R, R, 3)`` for drawing."""
    return np.asarray(images.permute(0, 2, 3, 1).float().cpu().numpy().clip(0, 1))


class Canvas:
    """Figure laid out in inches from its upper left corner, without a slow layout engine.

    Args:
        width: width in inches.
        height: height in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.width, self.height = width, height

    def image(self, pixels: Pixels, left: float, top: float, side: float) -> None:
        """Draw RGB ``(R, R, 3)`` as a square."""
        self._image(pixels, (left, left + side, top + side, top))

    def _image(self, pixels: Pixels, extent: tuple[float, float, float, float]) -> None:
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest")

    def text(self, text: str, left: float, top: float, size: float = _FONT, **how: Any) -> None:
        """Write text below a point, without math markup; ``how`` overrides Matplotlib's options."""
        how = {"va": "top", "parse_math": False, **how}
        self.axes.text(left, top, text, fontsize=size, **how)

    def map(self, drawn: Drawn, position: int, cell: Pixels, place: Sequence[float]) -> None:
        """Draw a map over its image; ``place`` is left, top and side."""
        left, top, side = place
        self.image(drawn.over(position, cell), left, top, side)
        if not drawn.usable[position]:
            middle = {"ha": "center", "va": "center", "style": "italic"}
            self.text("degenerate", left + side / 2, top + side / 2, 10, **middle)

    def borders(self, segments: npt.NDArray[np.int64], place: Sequence[float], color: str) -> None:
        """Draw the borders of segments ``(R, R)``; ``place`` is left, top and side."""
        left, top, side = place
        lines = _edges(segments) * (side / len(segments)) + np.array([left, top])
        self.axes.add_collection(LineCollection(list(lines), colors=color, linewidths=0.6))

    def bar(self, drawn: Drawn, left: float, top: float, width: float) -> None:
        """Draw a color bar with its limits and label, 0.62 inches high."""
        shades = colormaps[drawn.colors](np.linspace(0, 1, 129))[None, :, :3]
        self._image(shades, (left, left + width, top + 0.09, top))
        ends = (-drawn.limit, 0, drawn.limit) if drawn.signed else (0, drawn.limit)
        aligned = ("left", "center", "right") if drawn.signed else ("left", "right")
        for end, offset, side in zip(ends, np.linspace(0, width, len(ends)), aligned, strict=True):
            self.text(f"{end:.2g}", left + offset, top + 0.11, 7, ha=side)
        lines = textwrap.fill(drawn.label, max(12, int(width * 72 / 3.7)))
        self.text(lines, left + width / 2, top + 0.24, 7, ha="center")

    def save(self, path: Path) -> None:
        """Write a PNG atomically."""
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        with whole_file(path) as temporary:
            self.figure.savefig(temporary, dpi=_DPI)


def _edges(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Pixel edges between segments, ``(M, 2, 2)``: two end points, each x and y in pixels."""
    down, right = np.nonzero(segments[:, 1:] != segments[:, :-1])
    upright = np.stack([right + 1, down, right + 1, down + 1], axis=1)
    down, right = np.nonzero(segments[1:] != segments[:-1])
    level = np.stack([right, down + 1, right + 1, down + 1], axis=1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2).astype(np.float64)


def save_overlays(
    path: Path, images: Tensor, drawn: Drawn, captions: Sequence[str], title: str
) -> None:
    """Draw each image beside its map, in one PNG.

    Args:
        path: output file.
        images: ``(B, 3, R, R)`` in [0, 1].
        drawn: the map of each image.
        captions: a caption per image.
        title: title of the whole figure.
    """
    side, gap, head, columns = 1.55, 0.12, 0.75, 4
    across = min(columns, len(images))
    wide, high = 2 * side + 2 * gap, side + 0.3
    down = -(-len(images) // columns)
    canvas = Canvas(gap + max(across * wide, 6.5), head + down * high + 0.75)
    canvas.text(title, gap, 0.1, 11)
    for position, (cell, caption) in enumerate(zip(to_pixels(images), captions, strict=True)):
        row, column = divmod(position, columns)
        left, top = gap + column * wide, head + row * high
        canvas.text(caption, left, top - 0.04, va="bottom")
        canvas.image(cell, left, top, side)
        canvas.map(drawn, position, cell, (left + side + 0.03, top, side))
    canvas.bar(drawn, gap, head + down * high - 0.1, 5.0)
    canvas.save(path)


# --- The images that are explained together, with their labels and predicted scores

OUTCOMES = ("true positive", "false negative", "true negative", "false positive")
"""Outcomes of a prediction at :data:`DECIDED`; leukemic is positive."""

DECIDED = 0.5
"""Lowest score that is predicted as leukemic."""

UNKNOWN = "unknown"
"""Outcome of an image without a label."""

MEANING = {
    "true positive": "leukemic, predicted leukemic",
    "false negative": "leukemic, predicted healthy",
    "true negative": "healthy, predicted healthy",
    "false positive": "healthy, predicted leukemic",
    UNKNOWN: "no label",
}
"""Captions of the outcomes."""

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images to explain.

    Attributes:
        table: a row per image, in the order of ``images``: ``row`` (in the bank, or the number of
            the file), ``subject``, ``patient`` (both empty if unknown), ``file``,
            ``label``, ``score`` (probability of leukemia), ``outcome`` (:data:`OUTCOMES` or
            :data:`UNKNOWN`) and ``shown`` (has a figure of its own; shown images come first).
        images: ``float32 (N, 3, R, R)`` in [0, 1], on the CPU.
        background: ``float32 (K, 3, R, R)`` in [0, 1], training images of both classes, on the CPU.
    """

    table: pd.DataFrame
    images: Tensor
    background: Tensor

    @property
    def rows(self) -> Tensor:
        """Rows of the images in the bank, ``int64 (N,)``."""
        return torch.tensor(self.table["row"].to_numpy(np.int64))

    @property
    def shown(self) -> list[int]:
        """Positions of images with a figure, in the order of :data:`OUTCOMES`, then by position."""
        order = [*OUTCOMES, UNKNOWN]
        outcomes = self.table["outcome"].tolist()
        positions = np.flatnonzero(self.table["shown"].to_numpy()).tolist()
        return sorted(positions, key=lambda position: (order.index(outcomes[position]), position))

    def of(self, outcome: str) -> list[int]:
        """Positions of the images with this outcome."""
        return [int(i) for i in np.flatnonzero((self.table["outcome"] == outcome).to_numpy())]

    @property
    def outcomes(self) -> list[str]:
        """Possible outcomes: all of :data:`OUTCOMES`, or only :data:`UNKNOWN` without labels."""
        unknown = (self.table["outcome"] == UNKNOWN).all()
        return [UNKNOWN] if unknown else list(OUTCOMES)

    @property
    def missing(self) -> list[str]:
        """Outcomes that no predicted image has; empty if the cohort is too small to decide."""
        # The choice takes outcomes in turn, so each that occurs is among the first images.
        if len(self.table) < len(self.outcomes):
            return []
        return [outcome for outcome in self.outcomes if not self.of(outcome)]


def evaluated_cohort(
    data: CNMCDataModule, predictions: Predictions, shown: int, count: int, background: int
) -> Cohort:
    """Sample test images, stratified by outcome and subject, with training images as background.

    Args:
        data: data module with the predicted images.
        predictions: predictions of the test stage.
        shown: number of images with a figure.
        count: number of images to explain, shown images included.
        background: number of training images, chosen with the seed of ``data``.
    """
    index = data.dataset.index.iloc[predictions.rows.numpy()].reset_index(drop=True)
    scores, labels = predictions.scores.numpy(), predictions.labels.numpy()
    table = pd.DataFrame(
        {
            "row": predictions.rows.numpy(),
            "subject": index["subject"],
            "patient": index["patient"].astype(str),
            "file": index["path"],
            "label": labels,
            "score": scores,
            "outcome": [
                outcome_of(*both) for both in zip(labels.tolist(), scores.tolist(), strict=True)
            ],
        }
    )
    decided = table.assign(decided=(scores >= DECIDED).astype(np.int64))
    chosen = table.iloc[choose_images(decided, count)].reset_index(drop=True)
    chosen["shown"] = np.arange(len(chosen)) < shown
    rows = torch.tensor(chosen["row"].to_numpy(np.int64))
    compared = choose_background(data.stage("train"), background, data.seed)
    return Cohort(
        chosen,
        data.bank.gather(rows, _CPU)["images"],
        data.bank.gather(torch.tensor(compared), _CPU)["images"],
    )


def unlabeled_cohort(
    files: Sequence[str], images: Tensor, scores: Sequence[float], background: Tensor, shown: int
) -> Cohort:
    """Cohort of images without label, subject or patient.

    Args:
        files: names of the N images.
        images: ``(N, 3, R, R)`` in [0, 1], on the CPU.
        scores: predicted probability of leukemia of each image.
        background: ``(K, 3, R, R)`` training images in [0, 1], on the CPU.
        shown: number of images with a figure, from the start.
    """
    table = pd.DataFrame(
        {
            "row": np.arange(len(files)),
            "subject": "",
            "patient": "",
            "file": list(files),
            "label": UNLABELED,
            "score": list(scores),
            "outcome": UNKNOWN,
            "shown": np.arange(len(files)) < shown,
        }
    )
    return Cohort(table, images, background)


def outcome_of(label: int, score: float) -> str:
    """Return the outcome, one of :data:`OUTCOMES`, of a score at :data:`DECIDED`."""
    sick, called = label == Label.ALL, score >= DECIDED
    if sick:
        return "true positive" if called else "false negative"
    return "false positive" if called else "true negative"


# --- Figures of a cohort: all methods side by side for one image, and mean maps by outcome

FOLDER = "panels"
"""Subfolder of the explanations for figures of single images."""

_GAP = 0.22
_BAR = 0.66
"""Gap between tiles and height of a color bar with its label, in inches."""

_SIDE = 2.15
_COLUMNS = 5


def panel_name(row: int) -> str:
    """Path of an image's figure by the image's row, relative to the folder of the explanations."""
    return f"{FOLDER}/{row:05d}.png"


def save_panels(folder: Path, cohort: Cohort, drawn: Mapping[str, Drawn], title: str) -> list[str]:
    """Draw a figure of each shown image; each method has one color scale for all.

    Figures of other images from an earlier call are removed.

    Args:
        folder: output folder of the explanations.
        cohort: the images.
        drawn: maps of all images, by method.
        title: title of the model.

    Returns:
        Paths of the figures, relative to ``folder``, ordered by outcome.
    """
    names = {position: panel_name(cohort.table["row"].iloc[position]) for position in cohort.shown}
    for path in (folder / FOLDER).glob("*.png"):
        if f"{FOLDER}/{path.name}" not in names.values():
            path.unlink()
    for position, name in names.items():
        _panel(cohort, drawn, position, title).save(folder / name)
    return list(names.values())


def _panel(cohort: Cohort, drawn: Mapping[str, Drawn], position: int, title: str) -> Canvas:
    across, down = min(_COLUMNS, 1 + len(drawn)), -(-(1 + len(drawn)) // _COLUMNS)
    # Leave space for a line of quality measures between title and map if a method has any.
    over = 0.42 if any(maps.notes[position] for maps in drawn.values()) else 0.25
    high, head, wide = over + _SIDE + _BAR, 0.95, _SIDE + _GAP
    canvas = Canvas(max(across * wide + _GAP, 7.0), head + down * high + 0.05)
    source, prediction = described(cohort, position)
    canvas.text(prediction, _GAP, 0.12, 13)
    canvas.text(source, _GAP, 0.42, 9)
    canvas.text(title, _GAP, 0.62, 9, color="0.35")
    cell = to_pixels(cohort.images[position : position + 1])[0]
    canvas.text("image", _GAP, head + 0.04, 10)
    canvas.image(cell, _GAP, head + over, _SIDE)
    for tile, maps in enumerate(drawn.values(), start=1):
        row, column = divmod(tile, across)
        left, top = _GAP + column * wide, head + row * high + over
        canvas.text(maps.title, left, top - over + 0.04, 10)
        canvas.text(maps.notes[position], left, top - 0.17, 7.5, color="0.35")
        canvas.map(maps, position, cell, (left, top, _SIDE))
        canvas.bar(maps, left, top + _SIDE + 0.05, _SIDE)
    return canvas


def described(cohort: Cohort, position: int) -> tuple[str, str]:
    """Describe an image: its file and subject, and its predicted score with the true label."""
    row = cohort.table.iloc[position]
    outcome = str(row["outcome"])
    truth = "truth unknown"
    if outcome != UNKNOWN:
        label = MEANING[outcome].partition(",")[0]
        truth = f"truth: {label}, {verdict(outcome)} ({outcome})"
    return f"{row['file']}    {row['subject']}", f"score {row['score']:.2f} for leukemia, {truth}"


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


def save_cohort(path: Path, cohort: Cohort, found: Mapping[str, Attribution], title: str) -> None:
    """Draw the mean map of each method for each outcome, without degenerate maps.

    Args:
        path: output file.
        cohort: the images.
        found: maps of all images, by method.
        title: title of the figure.
    """
    side, label, step = 1.5, 1.75, 1.64
    methods = {name: drawn_of(name, averaged(cohort, maps)) for name, maps in found.items()}
    counts = {outcome: len(cohort.of(outcome)) for outcome in cohort.outcomes}
    heights = [step if count else 0.85 for count in counts.values()]
    tops = list(accumulate(heights, initial=1.0))
    canvas = Canvas(max(label + (1 + len(methods)) * step, 7.0), tops[-1] + 0.85)
    canvas.text(title, 0.12, 0.1, 11)
    for column, name in enumerate(["mean image", *(drawn.title for drawn in methods.values())]):
        canvas.text(name, label + column * step, tops[0] - 0.05, 9, va="bottom")
    for row, (outcome, mean) in enumerate(zip(counts, mean_images(cohort), strict=True)):
        words = MEANING[outcome].replace(", ", ",\n")
        canvas.text(f"{outcome}\n{words}\nn = {counts[outcome]}", 0.12, tops[row] + 0.05, 9)
        if not counts[outcome]:
            words = "no such image among those explained"
            canvas.text(words, label, tops[row] + 0.05, 9, color="0.4")
            continue
        canvas.image(mean, label, tops[row], side)
        # Print only where about half of the images have a cell; elsewhere the mean is nearly black.
        core = np.where(mean.max(axis=2, keepdims=True) > mean.max() / 2, mean, 0)
        for column, drawn in enumerate(methods.values(), start=1):
            canvas.map(drawn, row, core, (label + column * step, tops[row], side))
    for column, drawn in enumerate(methods.values(), start=1):
        canvas.bar(drawn, label + column * step, tops[-1], side)
    canvas.save(path)


def sampled(cohort: Cohort) -> str:
    """Describe the sample for captions; a labeled sample is balanced by outcome, not random."""
    if cohort.outcomes == [UNKNOWN]:
        return f"{len(cohort.table)} images without labels"
    return f"{len(cohort.table)} test images, balanced by outcome: not the test population"


def averaged(cohort: Cohort, maps: Attribution) -> Attribution:
    """Mean map of each outcome, ``(outcomes, R, R)``, pixel by pixel whatever the method's unit.

    An outcome without images, or with only degenerate maps, has a map of zeros.
    """
    means = []
    usable = ~maps.degenerate
    for outcome in cohort.outcomes:
        own = torch.zeros(len(usable), dtype=torch.bool)
        own[cohort.of(outcome)] = True
        chosen = maps.maps[own & usable]
        means.append(chosen.mean(dim=0) if len(chosen) else torch.zeros_like(maps.maps[0]))
    return Attribution(torch.stack(means), maps.unit, signed=maps.signed)


def mean_images(cohort: Cohort) -> Pixels:
    """Mean image of each outcome, ``(outcomes, R, R, 3)``; black for an outcome without images."""
    empty = torch.zeros_like(cohort.images[:1])
    outcomes = [
        cohort.images[positions] if (positions := cohort.of(outcome)) else empty
        for outcome in cohort.outcomes
    ]
    return to_pixels(torch.stack([images.mean(dim=0) for images in outcomes]))


# --- Figure of a classifier's prototypes: the training patches they were projected to

_INCH = 1.7
"""Side of an image."""

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
    pixels = images.permute(0, 2, 3, 1).float().cpu().numpy()
    rows = [[n for n, p in enumerate(prototypes) if p.label == label] for label in Label]
    most = max(map(len, rows))
    size = (max(4.0, _INCH * most), _INCH * 1.15 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    axes = figure.subplots(len(rows), most, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for label, own, row in zip(Label, rows, axes, strict=True):
        for axis, number in zip(row, own, strict=False):
            prototype = prototypes[number]
            axis.imshow(pixels[number])
            # Matplotlib draws pixels around their centers.
            corner = (prototype.left - 0.5, prototype.top - 0.5)
            side = prototype.side
            axis.add_patch(Rectangle(corner, side, side, fill=False, ec=_BOX, lw=1.5))
            axis.set_title(f"{label.folder}  {prototype.similarity:.1f}", fontsize=7, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


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


# --- All figures of a cohort, written to the folder of the explanations


def draw_all(
    folder: Path,
    title: str,
    classifier: Classifier,
    cohort: Cohort,
    found: Mapping[str, Attribution],
) -> list[str]:
    """Draw every figure that these methods allow.

    Args:
        folder: output folder of the explanations.
        title: title of the model, over every figure.
        classifier: trained classifier; figure 9 computes Grad-CAM at its layers.
        cohort: the images.
        found: maps of all images, by method.

    Returns:
        Paths of the figures, relative to ``folder``, without the ``<method>.png`` of each method.
    """
    if not found:
        return []
    for name, maps in found.items():
        _one_method(folder / f"{name}.png", name, cohort, maps, title)
    drawn = {name: drawn_of(name, maps) for name, maps in found.items()}
    pictures = save_panels(folder, cohort, drawn, title)
    words = f"{title}\nmean map per outcome; {sampled(cohort)}"
    save_cohort(folder / "cohort.png", cohort, found, words)
    return [*pictures, "cohort.png", *_of_the_thesis(folder, title, classifier, cohort, found)]


def _one_method(path: Path, name: str, cohort: Cohort, maps: Attribution, title: str) -> None:
    shown = cohort.shown
    parts = None if maps.segments is None else maps.segments[shown]
    checks = {check: values[shown] for check, values in maps.checks.items()}
    own = replace(maps, maps=maps.maps[shown], segments=parts, checks=checks)
    drawn = drawn_of(name, own)
    words = f"{title}\n{drawn.title}; above each image its subject and predicted score of leukemia"
    save_overlays(path, cohort.images[shown], drawn, captions(cohort, shown), words)


def _of_the_thesis(
    folder: Path,
    title: str,
    classifier: Classifier,
    cohort: Cohort,
    found: Mapping[str, Attribution],
) -> list[str]:
    """Draw figures 9 to 11 of the thesis, as far as these methods allow."""
    written = []
    shap, lime = (
        {name: maps for name, maps in found.items() if name.startswith(method)}
        for method in ("shap", "lime")
    )
    if "gradcam" in found:
        written.append("figure_9.png")
        save_figure_9(folder / written[-1], classifier, cohort, title)
    if shap:
        written.append("figure_10.png")
        words = f"{title}\nSHAP values without the most extreme 0.1 %; {sampled(cohort)}"
        save_figure_10(folder / written[-1], cohort, shap, words)
    if lime:
        written.append("figure_11.png")
        words = f"{title}\nLIME: superpixels or patches, and their weights"
        save_figure_11(folder / written[-1], cohort, lime, words)
    return written
