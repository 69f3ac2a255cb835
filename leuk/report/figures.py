"""The figures of a sweep, each with its caption and an alternative text, as PNG and PDF.

Curves have a panel per model and a line per augmentation; differences, confusion matrices and
patients have a row per configuration.
"""

import io
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve, roc_curve

from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Sample, per_subject
from leuk.metrics.calibration import reliability
from leuk.report.comparisons import FAMILIES, Comparison, reference
from leuk.report.derived import AREA, baseline_of
from leuk.report.load import Configuration, augmentations_of
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
_ALONE = ("augmentation", "control_alone", "ensemble_augmentation", "ensemble_control_alone")
_AUGMENTATION = (*_ALONE, "control", "ensemble_control")
"""Families of comparisons in the figure ``augmentation``; ``differences`` has the others."""

_OTHERS = FAMILIES.keys() - set(_AUGMENTATION)

_NAMED = 6
"""Number of configurations that an alternative text names; the tables contain all."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that is drawn when it is written, with caption and alternative text.

    Attributes:
        name: stem of its files.
        title: its heading.
        caption: explanation of the figure.
        draw: function that draws it.
        alt: alternative text of each panel, or of the whole figure.
        panel: width and height in inches of a panel, by which a page cuts the figure for narrow
            screens; None to keep it whole.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    alt: tuple[str, ...]
    panel: tuple[float, float] | None = None

    def write(self, folder: Path) -> bytes:
        """Write ``<name>.pdf`` and ``<name>.png`` atomically to a folder; return the PNG data."""
        with rc_context(SETTINGS):
            figure = self.draw()
            with whole_file(folder / f"{self.name}.pdf") as temporary:
                # Without the date, the same figure gives the same file.
                figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=DPI)
        with whole_file(folder / f"{self.name}.png") as temporary:
            temporary.write_bytes(png.getvalue())
        return png.getvalue()


def figures_of(
    configurations: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    reached: Mapping[str, Mapping[str, float]],
    heat: HeatMap | None = None,
) -> list[Drawn]:
    """All figures that have data.

    Args:
        configurations: all configurations of the report; those without predictions are skipped.
        comparisons: comparisons between them.
        reached: metrics by title of the configuration, for the alternative texts.
        heat: the heat map; None if no configuration has metrics.

    Returns:
        Those of ``grid``, ``augmentation``, ``differences``, ``roc``, ``precision_recall``,
        ``reliability``, ``confusion`` and ``per_subject`` that are not empty.
    """
    drawn: list[Drawn] = []

    def add(name: str, title: str, caption: str, draw: Callable[[], Figure], alt: str) -> None:
        drawn.append(Drawn(name, title, caption, draw, (alt,)))

    if heat is not None:
        caption = "Test AUROC of each model with each augmentation."
        names = f"{', '.join(heat.rows)} with {', '.join(heat.columns)}"
        alt = f"Heat map of the AUROC of {names}."
        add("grid", "Test AUROC", caption, partial(heat_map_figure, heat), alt)
    intervals = (
        "Dots are differences in test AUROC, bars their 95 % intervals (patients resampled). "
        "Filled: {}"
    )
    if own := _of(_ALONE, comparisons):
        caption = intervals.format("Holm-corrected p below 0.05. Right of 0: better.")
        draw = partial(augmentation_figure, comparisons)
        alt = f"Forest plot of each augmentation minus none. {_summary(own)}"
        add("augmentation", "Effect of each augmentation", caption, draw, alt)
    if others := _of(_OTHERS, comparisons):
        within = "p below 0.05, Holm-corrected within the family of comparisons."
        draw = partial(differences_figure, comparisons)
        alt = f"Forest plot of {len(others)} differences. {_summary(others)}"
        add("differences", "Other comparisons", intervals.format(within), draw, alt)
    if shown := [configuration for configuration in configurations if configuration.runs]:
        drawn += [*_curves(shown, reached), *_decisions(shown)]
    return drawn


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
    values = np.array(heat.values)
    _shaded(ax, values, heat.span, 3)
    # White lines between the entries.
    ax.set_xticks(np.arange(len(heat.columns) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(heat.rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=2)
    ax.set_xticks(range(len(heat.columns)), heat.columns)
    ax.tick_params(which="both", length=0)
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


def _of(families: Collection[str], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons of these families that have a result."""
    return [c for c in comparisons if c.result is not None and c.family in families]


def augmentation_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Forest plot of augmentations: minus none, and GANs also minus the controls."""
    compared = _of(_AUGMENTATION, comparisons)
    found = {(c.one.run, c.other.run.augmentation): c for c in compared}
    shown = [c.one for c in _of(_ALONE, comparisons)]
    columns = augmentations_of(c.other.run for c in compared)
    figure, axes = _rows([one.title for one in shown], 2.75 * len(columns), 0.27, len(columns))
    for ax, other in zip(axes, columns, strict=True):
        keys = [(one.run, other) for one in shown]
        _forest(ax, {row: found[key] for row, key in enumerate(keys) if key in found})
        for row in range(1, len(shown)):
            if shown[row].run.plain != shown[row - 1].run.plain:
                ax.axhline(row - 0.5, color="0.8", linewidth=0.8)
        ax.set_title(f"minus {reference(other)}")
        ax.locator_params(axis="x", nbins=5)
    figure.supxlabel("difference in AUROC, 95 % interval", fontsize="medium")
    looks = ("Holm p < 0.05", HEALTHY, HEALTHY), ("not significant", "0.45", "white")
    dots = [
        Line2D([], [], marker="o", markersize=4.5, color=edge, markerfacecolor=face, label=text)
        for text, edge, face in looks
    ]
    figure.legend(handles=dots, loc="outside upper right", ncols=2)
    return figure


def differences_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Forest plot of all other differences, below the names of their families."""
    names: list[str] = []
    placed: dict[int, Comparison] = {}
    for family in (family for family in FAMILIES if family in _OTHERS):
        if own := _of([family], comparisons):
            names.append(FAMILIES[family])
        for one in own:
            placed[len(names)] = one
            names.append(one.title)
    figure, (ax,) = _rows(names, 5.0, 0.23)
    _forest(ax, placed)
    ax.set_xlabel("difference in AUROC, 95 % interval (filled: Holm p < 0.05)")
    for row, name in enumerate(ax.get_yticklabels()):
        if row not in placed:
            ax.axhspan(row - 0.3, row + 0.3, color="0.93")
            name.set_fontweight("bold")
    return figure


def _forest(ax: Axes, rows: Mapping[int, Comparison]) -> None:
    """Draw a dot and its interval in each row, and the line of no difference."""
    found = {row: one.result for row, one in rows.items() if one.result is not None}
    colors = [HEALTHY if _significant(rows[row]) else "0.45" for row in found]
    faces = [HEALTHY if _significant(rows[row]) else "white" for row in found]
    low, high = ([getattr(one, end) for one in found.values()] for end in ("low", "high"))
    ax.hlines(list(found), low, high, colors=colors, linewidth=1.4)
    dots = [one.difference for one in found.values()]
    ax.scatter(dots, list(found), s=20, facecolors=faces, edgecolors=colors, zorder=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.grid(axis="x")


# --- Curves, a panel per model


def _curves(
    configurations: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]]
) -> list[Drawn]:
    panel, models = _panel_size(configurations), by_model(configurations)

    def drawn(
        name: str, title: str, caption: str, draw: Callable[..., Figure], kind: str, metric: str
    ) -> Drawn:
        alt = []
        for model, members in models.items():
            found = [
                f"{one.run.augmentation} {reached[one.title][metric]:.3f}"
                for one in members[:_NAMED]
                if metric in reached.get(one.title, {})
            ]
            values = f"{metric.split('_')[0].upper()} {', '.join(found)}"
            alt.append(f"{kind} of {model}: {values if found else 'values in the tables'}.")
        return Drawn(name, title, caption, partial(draw, configurations), tuple(alt), panel)

    area = "Mean over folds and seeds. Thick gray line: cell area alone."
    chance = "Mean over folds and seeds. Horizontal line: share of leukemic cells (chance level)."
    scaled = (
        "Observed share of leukemic cells against the score; on the diagonal, scores equal "
        "probabilities. Pale: uncalibrated scores; solid: after temperature scaling on validation "
        "images."
    )
    precision = "Precision and recall", chance, precision_recall_figure, "Precision over recall"
    return [
        drawn("roc", "ROC curves", area, roc_figure, "ROC curves", "auroc"),
        drawn("precision_recall", *precision, "auprc"),
        drawn(
            "reliability",
            "Calibration",
            scaled,
            reliability_figure,
            "Calibration",
            "ece_calibrated",
        ),
    ]


def roc_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean ROC curves, a panel per model, a line per augmentation; gray: cell area alone."""

    def draw(ax: Axes, lines: Lines) -> None:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        _mean_curves(ax, lines, roc_of)

    return _panels(configurations, draw, "1 - specificity", "sensitivity")


def precision_recall_figure(configurations: Sequence[Configuration]) -> Figure:
    """Mean precision over recall; the horizontal line is the share of leukemic cells."""

    def draw(ax: Axes, lines: Lines) -> None:
        ax.axhline(next(iter(lines)).pooled.labels.mean(), color="0.8", linewidth=0.8)
        _mean_curves(ax, lines, precision_of)

    return _panels(configurations, draw, "recall (sensitivity)", "precision")


def reliability_figure(configurations: Sequence[Configuration]) -> Figure:
    """Observed share of leukemic cells over the score, a panel per model; pale: uncalibrated."""

    def draw(ax: Axes, lines: Lines) -> None:
        ax.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        for configuration, looks in lines.items():
            pooled = configuration.pooled
            pale = {**looks, "alpha": 0.25, "label": None}
            for scores, style in ((pooled.scores, pale), (pooled.calibrated, looks)):
                if scores is not None:
                    bins = reliability(scores, pooled.labels)
                    ax.plot(bins["score"], bins["observed"], marker="o", markersize=3, **style)

    return _panels(configurations, draw, "score", "observed share leukemic")


Lines = Mapping[Configuration, Mapping[str, Any]]
"""Configurations of a panel, and label, color and line style of each."""


def _panels(
    configurations: Sequence[Configuration], draw: Callable[[Axes, Lines], None], x: str, y: str
) -> Figure:
    """Draw a square panel per model, at most four side by side, with a legend below.

    ``draw`` draws the lines of a panel; ``x`` and ``y`` are the labels of its axes from 0 to 1.
    """
    models, labels = by_model(configurations), _labels(configurations)
    across = min(4, len(models))
    down = -(-len(models) // across)
    width, height = _panel_size(configurations)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    # A page cuts the figure at the borders of its panels.
    figure.get_layout_engine().set(wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    order = list(dict.fromkeys(labels.values()))
    parts = figure.subfigures(down, across, squeeze=False).flat
    for part, (title, members) in zip(parts, models.items(), strict=False):
        lines = {}
        for one in members:
            index = order.index(labels[one])
            color, style = COLORS[index % len(COLORS)], STYLES[index % len(STYLES)]
            lines[one] = {"label": labels[one], "color": color, "linestyle": style}
        ax = part.subplots()
        draw(ax, lines)
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x, ylabel=y)
        ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), title=textwrap.fill(title, 36))
        part.legend(loc="outside lower center", ncols=_legend_columns(labels), fontsize=7)
    return figure


def _labels(configurations: Sequence[Configuration]) -> dict[Configuration, str]:
    """Labels of the lines: the augmentation, or the title where a panel has it several times."""
    labels = {}
    for members in by_model(configurations).values():
        names = [configuration.run.augmentation for configuration in members]
        for one, name in zip(members, names, strict=True):
            labels[one] = name if names.count(name) == 1 else one.title
    return labels


def _legend_columns(labels: Mapping[Configuration, str]) -> int:
    return 2 if max(map(len, labels.values())) <= 15 else 1


def _panel_size(configurations: Sequence[Configuration]) -> tuple[float, float]:
    """Width and height in inches of a panel with room for its legend."""
    entries = 1 + max(map(len, by_model(configurations).values()))
    return 2.8, 2.7 + 0.15 * -(-entries // _legend_columns(_labels(configurations)))


def _mean_curves(ax: Axes, lines: Lines, curve: Callable[[Sample], Floats]) -> None:
    """Draw the mean curve of each configuration over its runs, and that of the area alone."""

    def heights(configuration: Configuration) -> Floats:
        curves = [curve(run.test.sample) for run in configuration.runs]
        return np.asarray(np.mean(curves, axis=0))

    if (area := baseline_of(next(iter(lines)), AREA)) is not None:
        ax.plot(_GRID, heights(area), color="0.6", linewidth=3, alpha=0.6, label="area alone")
    for configuration, looks in lines.items():
        ax.plot(_GRID, heights(configuration), **looks)


_GRID = np.linspace(0, 1, 201)


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


def _decisions(configurations: Sequence[Configuration]) -> list[Drawn]:
    def words(configuration: Configuration) -> str:
        shares = (counts := confusion(configuration, "default")) / counts.sum(axis=1, keepdims=True)
        return (
            f"Confusion matrix of {configuration.title} at 0.5: {shares[0, 0]:.0%} of healthy and "
            f"{shares[1, 1]:.0%} of leukemic cells are classified correctly."
        )

    return [
        Drawn(
            "confusion",
            "Confusion matrices",
            "Shares of the healthy and of the leukemic test images of all runs, at 0.5 and at the "
            "threshold chosen on validation images (Youden). In parentheses: numbers of healthy + "
            "leukemic images.",
            partial(confusion_figure, configurations),
            (" ".join(map(words, configurations[:_NAMED])),),
        ),
        Drawn(
            "per_subject",
            "Results by patient",
            "Each dot is a patient: the share of the patient's images classified correctly at 0.5. "
            "Patients at the left are mostly misclassified.",
            partial(per_subject_figure, configurations),
            (
                f"Dots for the patients of {len(configurations)} configurations, healthy patients "
                "above, leukemic patients below; the bar is the mean over patients.",
            ),
        ),
    ]


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
