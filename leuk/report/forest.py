"""Forest plots of differences between configurations with their intervals."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leuk.report.comparisons import FAMILIES, Comparison
from leuk.report.drawing import HEALTHY, labeled_rows
from leuk.report.naming import augmentations_of
from leuk.runs.record import RunId

_ALPHA = 0.05
_ALONE = ("augmentation", "control_alone", "ensemble_augmentation", "ensemble_control_alone")
_AUGMENTATION = (*_ALONE, "control", "ensemble_control")
"""Families shown in a separate figure."""

_COLUMN = 2.75
"""Width in inches of the differences from one reference."""


def reference(augmentation: str) -> str:
    """Augmentation that synthetic images are compared with, in words."""
    words = {"none": "no augmentation", "oversample": "oversampling"}
    return words.get(augmentation, augmentation.replace("_", " "))


def augmented(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons between an augmentation and no augmentation that have a result."""
    return [c for c in comparisons if c.family in _ALONE and c.result is not None]


def augmentation_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Forest plot of augmentations: minus none, and GANs also minus both controls.

    Args:
        comparisons: all comparisons, at least one of them from :func:`augmented`.
    """
    found = {
        (c.one.run, c.other.run.augmentation): c
        for c in comparisons
        if c.family in _AUGMENTATION and c.result is not None
    }
    shown = [c.one for c in augmented(comparisons)]
    columns = augmentations_of(c.other.run for c in found.values())
    names = [one.title for one in shown]
    width = _COLUMN * len(columns)
    figure, axes = labeled_rows(names, width, 0.27, (0.65, 0.55), len(columns))
    for ax, other in zip(axes, columns, strict=True):
        compared = ((row, found.get((one.run, other))) for row, one in enumerate(shown))
        _differences(ax, {row: one for row, one in compared if one is not None})
        ax.axvline(0, color="black", linewidth=0.8)
        for row in _breaks([one.run for one in shown]):
            ax.axhline(row - 0.5, color="0.8", linewidth=0.8)
        ax.set_title(f"minus {reference(other)}", y=1, fontsize=9)
        ax.grid(axis="x", color="0.92")
        ax.tick_params(labelsize=8)
    axes[len(axes) // 2].set_xlabel("difference in AUROC, 95 % interval", fontsize=8.5)
    figure.legend(handles=_handles(), loc="upper right", ncols=2, fontsize=8, frameon=False)
    return figure


def _breaks(runs: Sequence[RunId]) -> list[int]:
    """Rows at which the next model starts."""
    return [row for row in range(1, len(runs)) if runs[row].plain != runs[row - 1].plain]


def _handles() -> list[Line2D]:
    shown = [("Holm p < 0.05", HEALTHY, HEALTHY), ("not significant", "0.45", "white")]
    return [
        Line2D([], [], marker="o", markersize=4.5, color=edge, markerfacecolor=face, label=text)
        for text, edge, face in shown
    ]


def other_differences(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with a result that :func:`augmentation_figure` does not show."""
    return [c for c in comparisons if c.result is not None and c.family not in _AUGMENTATION]


def differences_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Forest plot of all other differences, filled where the Holm-corrected p is below 0.05."""
    shown = other_differences(comparisons)
    families = [name for name in FAMILIES if any(one.family == name for one in shown)]
    names: list[str] = []
    placed: dict[int, Comparison] = {}
    for family in families:
        names.append(FAMILIES[family])
        for one in (one for one in shown if one.family == family):
            placed[len(names)] = one
            names.append(one.title)
    figure, (ax,) = labeled_rows(names, 5.0, 0.23, (0.15, 0.55))
    _differences(ax, placed)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("difference in AUROC, 95 % interval (filled: Holm p < 0.05)")
    ax.grid(axis="x", color="0.9")
    for row, name in enumerate(figure.texts):
        if row not in placed:
            ax.axhline(row, color="0.93", linewidth=9, zorder=0)
            name.set_fontweight("bold")
    return figure


def _differences(ax: Axes, rows: Mapping[int, Comparison]) -> None:
    """Draw a dot and its interval in each row, in few calls since rows may be hundreds."""
    found = {row: one.result for row, one in rows.items() if one.result is not None}
    if not found:
        return
    significant = [(p := rows[row].p) is not None and p < _ALPHA for row in found]
    colors = [HEALTHY if one else "0.45" for one in significant]
    faces = [HEALTHY if one else "white" for one in significant]
    low, high = ([getattr(one, end) for one in found.values()] for end in ("low", "high"))
    ax.hlines(list(found), low, high, colors=colors, linewidth=1.4)
    dots = [one.difference for one in found.values()]
    ax.scatter(dots, list(found), s=20, facecolors=faces, edgecolors=colors, zorder=3)
