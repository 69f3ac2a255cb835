"""The figures of a sweep, each with its caption and an alternative text, as PNG and PDF.

Curves have a panel per model and a line per augmentation; differences, confusion matrices and
patients have a row per configuration.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from leuk.metrics.arrays import Floats
from leuk.metrics.calibration import reliability
from leuk.metrics.classification import Sample, per_subject
from leuk.report.comparisons import FAMILIES, Comparison
from leuk.report.derived import AREA, baseline_of
from leuk.report.load import Configuration
from leuk.report.patients import SCORE, patient_scores
from leuk.report.rows import HeatMap, by_model
from leuk.report.table import difference_text, p_text
from leuk.store import whole_file

COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
"""Colors that color-blind readers can distinguish (Okabe & Ito 2008)."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""Line styles, so that no figure depends on color alone."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"

DPI = 120

SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.4,
    # Names come from the user: a dollar sign starts no formula.
    "text.parse_math": False,
}
"""Settings of matplotlib for all figures."""

_ALPHA = 0.05
_AUGMENTATION = (
    "augmentation", "control_alone", "control",
    "ensemble_augmentation", "ensemble_control_alone", "ensemble_control",
)  # fmt: skip
"""Families of comparisons in the figure ``augmentation``; ``differences`` has the others."""

_OTHERS = tuple(family for family in FAMILIES if family not in _AUGMENTATION)

_NAMED = 6
"""Number of configurations that an alternative text names; the tables contain all."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that is drawn when it is written.

    Attributes:
        name: stem of its files.
        title: its heading.
        caption: explanation of the figure.
        draw: function that draws it.
        alt: alternative text.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    alt: str

    def write(self, folder: Path) -> bytes:
        """Write ``<name>.pdf`` and ``<name>.png`` atomically to a folder; return the PNG data."""
        png = io.BytesIO()
        with rc_context(SETTINGS):
            figure = self.draw()
            with whole_file(folder / f"{self.name}.pdf") as temporary:
                # Without the date, the same figure gives the same file.
                figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
            figure.savefig(png, format="png", dpi=DPI)
        with whole_file(folder / f"{self.name}.png") as temporary:
            temporary.write_bytes(png.getvalue())
        return png.getvalue()


_INTERVALS = "Dots are differences in test AUROC, bars their 95 % intervals (patients resampled)."
_TEXTS = {
    "grid": ("Test AUROC", "Test AUROC of each model with each augmentation."),
    "augmentation": (
        "Effect of each augmentation",
        f"{_INTERVALS} Filled: Holm-corrected p below 0.05. Right of 0: better.",
    ),
    "differences": (
        "Other comparisons",
        f"{_INTERVALS} Filled: p below 0.05, Holm-corrected within the family of comparisons.",
    ),
    "roc": ("ROC curves", "Mean over folds and seeds. Thick gray line: cell area alone."),
    "precision_recall": (
        "Precision and recall",
        "Mean over folds and seeds. Horizontal line: share of leukemic cells (chance level).",
    ),
    "reliability": (
        "Calibration",
        "Observed share of leukemic cells against the score; on the diagonal, scores equal "
        "probabilities. Pale: uncalibrated scores; solid: after temperature scaling on validation "
        "images.",
    ),
    "confusion": (
        "Confusion matrices",
        "Shares of the healthy and of the leukemic test images of all runs, at 0.5 and at the "
        "threshold chosen on validation images (Youden). In parentheses: numbers of healthy + "
        "leukemic images.",
    ),
    "patients": (
        "Scores of patients",
        "Each dot is a test patient, larger with more images: the mean log odds of the images, "
        "calibrated, as a probability of leukemia. Crosses: decided wrongly at the threshold "
        "from validation patients.",
    ),
    "per_subject": (
        "Correct images of each patient",
        "Each dot is a patient: the share of the patient's images classified correctly at 0.5. "
        "Patients at the left are mostly misclassified.",
    ),
}
"""Title and caption of each figure."""


def figures_of(
    configurations: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    reached: Mapping[str, Mapping[str, float]],
    heat: HeatMap | None = None,
) -> list[Drawn]:
    """All figures of ``_TEXTS`` that have data.

    Args:
        configurations: all configurations of the report; those without predictions are skipped.
        comparisons: comparisons between them.
        reached: metrics by title of the configuration, for the alternative texts.
        heat: the heat map; None if no configuration has metrics.
    """
    found: dict[str, tuple[Callable[[], Figure], str]] = {}
    if heat is not None:
        names = f"{', '.join(heat.rows)} with {', '.join(heat.columns)}"
        found["grid"] = partial(heat_map_figure, heat), f"Heat map of the AUROC of {names}."
    for name, families in (("augmentation", _AUGMENTATION), ("differences", _OTHERS)):
        if own := [c for c in comparisons if c.result is not None and c.family in families]:
            alt = f"Forest plot of {len(own)} differences. {_summary(own)}"
            found[name] = partial(forest_figure, own, families), alt
    if shown := [configuration for configuration in configurations if configuration.runs]:
        for name, draw, metric in (
            ("roc", roc_figure, "auroc"),
            ("precision_recall", precision_recall_figure, "auprc"),
            ("reliability", reliability_figure, "ece_calibrated"),
        ):
            known = [one for one in shown if metric in reached.get(one.title, {})][:_NAMED]
            values = [f"{one.title} {reached[one.title][metric]:.3f}" for one in known]
            listed = f"{metric.split('_')[0].upper()} {', '.join(values)}" if values else "none"
            alt = f"{_TEXTS[name][0]}, a panel per model: {listed}."
            found[name] = partial(draw, shown), alt
        texts = " ".join(map(_confusion_text, shown[:_NAMED]))
        found["confusion"] = partial(confusion_figure, shown), texts
        alt = (
            f"Dots for the patients of {len(shown)} configurations, healthy patients above, "
            "leukemic patients below; the bar is the mean over patients."
        )
        found["per_subject"] = partial(per_subject_figure, shown), alt
        alt = f"Scores of the patients of {len(shown)} configurations, by true class."
        found["patients"] = partial(patients_figure, shown), alt
    return [Drawn(name, *_TEXTS[name], *one) for name, one in found.items()]


def _rows(
    names: Sequence[str], width: float, height: float, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Create a figure of named rows, the first at the top, and ``columns`` axes side by side.

    ``width`` is that of all axes, ``height`` that of a row, in inches.
    """
    letters = max(map(len, names))
    size = (width + 0.06 * letters + 0.3, height * len(names) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    return figure, axes


def _shaded(ax: Axes, values: Floats, span: tuple[float, float], digits: int) -> None:
    """Draw values ``(R, C)`` as shades with their numbers; NaN is a dash."""
    low, high = span
    ax.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if (value - low) / (high - low) > 0.6 else "black"
        text = "-" if np.isnan(value) else f"{value:.{digits}f}"
        ax.text(column, row, text, ha="center", va="center", color=color)
    ax.spines[:].set_visible(False)


# --- Heat map


def heat_map_figure(heat: HeatMap) -> Figure:
    """Heat map with the AUROC in each entry."""
    figure, (ax,) = _rows(heat.rows, 1.15 * len(heat.columns) + 1.2, 0.46)
    _shaded(ax, np.array(heat.values), heat.span, 3)
    ax.set_xticks(range(len(heat.columns)), heat.columns)
    ax.tick_params(length=0)
    figure.colorbar(ax.images[0], ax=ax, label="test AUROC", pad=0.02)
    return figure


# --- Forest plots of differences


def _summary(comparisons: Sequence[Comparison]) -> str:
    """Return the number of significant differences, and the largest of them."""
    significant = [(c.result, c) for c in comparisons if c.result is not None and _significant(c)]
    if not significant:
        return "No difference has a corrected p below 0.05."
    significant.sort(key=lambda pair: -abs(pair[0].difference))
    named = "; ".join(
        f"{c.title} {difference_text(found.difference, found.low, found.high)}, p {p_text(c.p)}"
        for found, c in significant[:_NAMED]
        if c.p is not None
    )
    return f"{len(significant)} have a corrected p below 0.05, the largest: {named}."


def _significant(comparison: Comparison) -> bool:
    return comparison.p is not None and comparison.p < _ALPHA


def forest_figure(comparisons: Sequence[Comparison], families: Sequence[str]) -> Figure:
    """Forest plot: a row per comparison with a result, below the name of its family."""
    names: list[str] = []
    rows: dict[int, Comparison] = {}
    for family in families:
        if own := [c for c in comparisons if c.family == family and c.result is not None]:
            names.append(FAMILIES[family])
            rows |= {len(names) + place: one for place, one in enumerate(own)}
            names += [one.title for one in own]
    figure, (ax,) = _rows(names, 5.0, 0.23)
    found = {row: one.result for row, one in rows.items() if one.result is not None}
    colors = [HEALTHY if _significant(rows[row]) else "0.45" for row in found]
    faces = [HEALTHY if _significant(rows[row]) else "white" for row in found]
    low, high = ([getattr(one, end) for one in found.values()] for end in ("low", "high"))
    ax.hlines(list(found), low, high, colors=colors, linewidth=1.4)
    dots = [one.difference for one in found.values()]
    ax.scatter(dots, list(found), s=20, facecolors=faces, edgecolors=colors, zorder=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.grid(axis="x")
    ax.set_xlabel("difference in AUROC, 95 % interval (filled: Holm p < 0.05)")
    for row, name in enumerate(ax.get_yticklabels()):
        if row not in rows:
            ax.axhspan(row - 0.3, row + 0.3, color="0.93")
            name.set_fontweight("bold")
    return figure


# --- Curves, a panel per model

_GRID = np.linspace(0, 1, 201)


def roc_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean ROC curves, a panel per model, a line per augmentation; gray: cell area alone."""
    figure = _panels(configurations, partial(_mean, roc_of), "1 - specificity", "sensitivity")
    for ax in figure.axes:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=1)
    return figure


def precision_recall_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean precision over recall; the horizontal line is the share of leukemic cells."""
    mean = partial(_mean, precision_of)
    figure = _panels(configurations, mean, "recall (sensitivity)", "precision")
    for ax, members in zip(figure.axes, by_model(configurations).values(), strict=True):
        ax.axhline(members[0].pooled.labels.mean(), color="0.8", linewidth=0.8, zorder=1)
    return figure


def reliability_figure(configurations: Sequence[Configuration]) -> Figure:
    """Observed share of leukemic cells over the score, a panel per model; pale: uncalibrated."""

    def binned(configuration: Configuration) -> list[_Line]:
        pooled = configuration.pooled
        lines: list[_Line] = []
        for scores, alpha in ((pooled.scores, 0.25), (pooled.calibrated, 1.0)):
            if scores is not None:
                bins = reliability(scores, pooled.labels)
                lines.append((bins["score"], bins["observed"], {"alpha": alpha, "marker": "."}))
        return lines

    figure = _panels(configurations, binned, "score", "observed share leukemic", area=False)
    for ax in figure.axes:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=1)
    return figure


_Line = tuple[Any, Any, Mapping[str, Any]]
"""Values on both axes, and the looks of a line."""


def _mean(curve: Callable[[Sample], Floats], configuration: Configuration) -> list[_Line]:
    """Mean curve of the runs of a configuration."""
    heights = np.mean([curve(run.test.sample) for run in configuration.runs], axis=0)
    return [(_GRID, heights, {})]


def _panels(
    configurations: Sequence[Configuration],
    lines_of: Callable[[Configuration], list[_Line]],
    x: str,
    y: str,
    area: bool = True,
) -> Figure:
    """Draw a square panel per model, at most four side by side, and a legend below them.

    ``lines_of`` returns the lines of a configuration; with ``area``, those of the cell area alone
    are behind them. ``x`` and ``y`` label the axes, which run from 0 to 1.
    """
    models = by_model(configurations)
    labels: dict[Configuration, str] = {}
    for members in models.values():
        names = [one.run.augmentation for one in members]
        for one, name in zip(members, names, strict=True):
            labels[one] = name if names.count(name) == 1 else one.title
    order = list(dict.fromkeys(labels.values()))
    across = min(4, len(models))
    down = -(-len(models) // across)
    columns = max(1, 36 * across // (max(map(len, order)) + 9))
    size = 2.6 * across, 2.7 * down + 0.16 * -(-(len(order) + 1) // columns)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for ax, (title, members) in zip(axes, models.items(), strict=False):
        if area and (alone := baseline_of(members[0], AREA)) is not None:
            for xs, ys, _ in lines_of(alone):
                ax.plot(xs, ys, color="0.6", linewidth=3, alpha=0.6, label="area alone")
        for one in members:
            index = order.index(labels[one])
            color, style = COLORS[index % len(COLORS)], STYLES[index % len(STYLES)]
            for xs, ys, looks in lines_of(one):
                ax.plot(xs, ys, color=color, linestyle=style, label=labels[one], **looks)
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x, ylabel=y)
        ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), title=textwrap.fill(title, 36))
    for ax in axes[len(models) :]:
        ax.remove()
    # Of several lines with a label, the last is the solid one.
    found = {line.get_label(): line for ax in figure.axes for line in ax.lines}
    figure.legend(handles=found.values(), loc="outside lower center", ncols=columns, fontsize=7)
    return figure


def roc_of(sample: Sample) -> Floats:
    """Sensitivity at 201 values of 1 - specificity from 0 to 1."""
    false, true, _ = roc_curve(sample.labels, sample.scores)
    heights = np.interp(_GRID, false, true)
    # All curves start at the origin, also where the first images at once are healthy.
    heights[0] = 0.0
    return np.asarray(heights)


def precision_of(sample: Sample) -> Floats:
    """Precision at 201 values of recall from 0 to 1."""
    precision, recall, _ = precision_recall_curve(sample.labels, sample.scores)
    return np.asarray(np.interp(_GRID, recall[::-1], precision[::-1]))


# --- Decisions: confusion matrices, and results by patient


def _confusion_text(configuration: Configuration) -> str:
    counts = confusion(configuration, "default")
    shares = counts / counts.sum(axis=1, keepdims=True)
    return (
        f"Confusion matrix of {configuration.title} at 0.5: {shares[0, 0]:.0%} of healthy and "
        f"{shares[1, 1]:.0%} of leukemic cells are classified correctly."
    )


def confusion_figure(configurations: Sequence[Configuration]) -> Figure:
    """Confusion matrices, a row per configuration, at 0.5 and at each run's Youden threshold.

    Entries are shares of a class; the numbers of images are beside the name.
    """
    cuts = {"default": "at 0.5", "youden": "at Youden's threshold"}
    counts = {cut: np.stack([confusion(one, cut) for one in configurations]) for cut in cuts}
    numbers = counts["default"].sum(axis=2)
    names = [
        f"{one.title} ({healthy:,.0f} + {leukemic:,.0f})"
        for one, (healthy, leukemic) in zip(configurations, numbers, strict=True)
    ]
    figure, axes = _rows(names, 6.2, 0.3, len(cuts))
    columns = ("healthy:\ncorrect", "healthy:\nwrong", "leukemic:\nwrong", "leukemic:\ncorrect")
    for ax, (cut, words) in zip(axes, cuts.items(), strict=True):
        shares = counts[cut] / counts[cut].sum(axis=2, keepdims=True)
        _shaded(ax, shares.reshape(-1, 4), (0, 1), 2)
        ax.set_title(words)
        ax.set_xticks(range(4), columns)
        ax.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure


def confusion(configuration: Configuration, cut: str) -> Floats:
    """Sum the counts ``(2, 2)`` over all runs: true class by predicted class, healthy first.

    ``cut`` is the name of a threshold of the runs.
    """
    counts = np.zeros((2, 2))
    for run in configuration.runs:
        sample = run.test.sample
        called = sample.scores >= run.thresholds[cut]
        counts += np.bincount(2 * sample.labels + called, minlength=4).reshape(2, 2)
    return counts


def per_subject_figure(configurations: Sequence[Configuration]) -> Figure:
    """Share of correct images of each patient at 0.5, a row per configuration."""
    figure, (ax,) = _rows([one.title for one in configurations], 5.0, 0.42)
    patients = [per_subject(one.pooled, 0.5) for one in configurations]
    classes = (
        (0, "healthy patients", -0.18, HEALTHY, "o"),
        (1, "leukemic patients", 0.18, LEUKEMIC, "^"),
    )
    for label, name, shift, color, marker in classes:
        for row, table in enumerate(patients):
            shares = table.loc[table["label"] == label, "correct"]
            place = row + shift
            heights = np.full(len(shares), place)
            looks: dict[str, Any] = {"marker": marker, "color": color, "alpha": 0.55}
            looks["label"] = name if row == 0 else None
            ax.scatter(shares, heights, s=22, linewidths=0, **looks)
            ax.vlines(shares.mean(), place - 0.15, place + 0.15, color="black", linewidth=1.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("share of images classified correctly at 0.5 (bar: mean over patients)")
    ax.grid(axis="x")
    for row in range(1, len(configurations)):
        ax.axhline(row - 0.5, color="0.9", linewidth=0.8)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def patients_figure(configurations: Sequence[Configuration]) -> Figure:
    """Score of each patient of the first repeat, a row per configuration."""
    figure, (ax,) = _rows([one.title for one in configurations], 5.0, 0.42)
    classes = (
        (0, "healthy patients", -0.18, HEALTHY),
        (1, "leukemic patients", 0.18, LEUKEMIC),
    )
    for row, one in enumerate(configurations):
        table = patient_scores(one, SCORE).query("repeat == 0")
        for label, name, shift, color in classes:
            own = table[table["label"] == label]
            wrong = own["called"] != bool(label)
            for rows, marker in ((own[~wrong], "o"), (own[wrong], "X")):
                ax.scatter(
                    rows["score"],
                    np.full(len(rows), row + shift),
                    s=6 + 3 * np.sqrt(rows["images"]),
                    marker=marker,
                    color=color,
                    alpha=0.6,
                    linewidths=0,
                    label=name if row == 0 and marker == "o" else None,
                )
        if row:
            ax.axhline(row - 0.5, color="0.9", linewidth=0.8)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("patient's score")
    ax.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
