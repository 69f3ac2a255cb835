"""The figures of a sweep, each with its caption and with words for who cannot see it.

Each is drawn for all groups at once, in small multiples or in rows, as PNG and PDF.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from leuk.report.blocks import Pictures, pictures_of
from leuk.report.comparisons import Comparison
from leuk.report.curves import precision_recall_figure, reliability_figure, roc_figure
from leuk.report.decisions import confusion, confusion_figure, per_subject_figure
from leuk.report.drawing import PANEL, Drawn, by_model
from leuk.report.forest import (
    augmentation_figure,
    augmented,
    differences_figure,
    other_differences,
)
from leuk.report.heatmap import HeatMap, heat_map_figure
from leuk.report.results import Configuration
from leuk.report.sections import difference_text, p_text
from leuk.report.workers import begun

_SQUARE = (PANEL, PANEL)
_NAMED = 6
"""Lines whose figures an alternative text names; the tables have them all."""


def figures_of(
    groups: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    reached: Mapping[str, Mapping[str, float]],
    heat: HeatMap | None = None,
) -> list[Drawn]:
    """Everything there is to draw.

    Args:
        groups: lines of the report; those without predictions are left out.
        comparisons: differences between them.
        reached: title of a line to its figures, for the words.
        heat: the grid, if it has a figure.

    Returns:
        Of ``grid``, ``augmentation``, ``differences``, ``roc``, ``precision_recall``,
        ``reliability``, ``confusion`` and ``per_subject`` those that show something.
    """
    shown = [group for group in groups if group.runs]
    drawn = [*_of_differences(comparisons)]
    if heat is not None:
        drawn.insert(0, _grid(heat))
    if shown:
        drawn += [*_curves(shown, reached), *_of_decisions(shown, reached)]
    return drawn


def writing(
    folder: Path, drawn: Sequence[Drawn], workers: int
) -> AbstractContextManager[Callable[[], list[Pictures]]]:
    """Begin to draw figures and to write them as PNG and PDF; see :meth:`Drawn.write`.

    Gives what waits for them, and returns each as a page shows it.
    """
    return begun(lambda one: pictures_of(one, one.write(folder)), drawn, workers)


def _grid(heat: HeatMap) -> Drawn:
    names = ", ".join(heat.columns)
    return Drawn(
        "grid",
        "The grid",
        "Test AUROC of each model under each augmentation.",
        partial(heat_map_figure, heat),
        (f"Heat map of the AUROC of {', '.join(heat.rows)} under {names}.",),
    )


def _of_differences(comparisons: Sequence[Comparison]) -> list[Drawn]:
    caption = (
        "A dot is a difference in test AUROC, the bar its 95 % interval over persons. Filled: {}"
    )
    drawn = []
    if own := augmented(comparisons):
        drawn.append(
            Drawn(
                "augmentation",
                "What each augmentation changes",
                caption.format("a Holm-corrected p below 0.05. To the right of 0 is better."),
                partial(augmentation_figure, comparisons),
                (f"Forest plot of each augmentation minus none. {_said(own)}",),
            )
        )
    if found := other_differences(comparisons):
        drawn.append(
            Drawn(
                "differences",
                "Other differences",
                caption.format("a p below 0.05, corrected within its family of questions."),
                partial(differences_figure, comparisons),
                (f"Forest plot of {len(found)} differences between lines. {_said(found)}",),
            )
        )
    return drawn


def _said(comparisons: Sequence[Comparison]) -> str:
    """How many differences are shown, and the largest of them."""
    sure = [c for c in comparisons if c.p is not None and c.p < 0.05]
    if not sure:
        return "No interval with a corrected p below 0.05."
    large = sorted(sure, key=lambda c: -abs(c.result.difference if c.result else 0))[:_NAMED]
    named = "; ".join(
        f"{c.title} {difference_text(c.result.difference, c.result.low, c.result.high)}, "
        f"p {p_text(c.p)}"
        for c in large
        if c.result is not None and c.p is not None
    )
    return f"{len(sure)} with a corrected p below 0.05, the largest: {named}."


def _curves(
    groups: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]]
) -> list[Drawn]:
    def words(kind: str, figure: str) -> tuple[str, ...]:
        return tuple(
            f"{kind} of {name}: {_figures(members, reached, figure)}."
            for name, members in by_model(groups).items()
        )

    return [
        Drawn(
            "roc",
            "ROC curves",
            "Mean over folds and seeds; thick and gray: the area of the cell alone.",
            partial(roc_figure, groups),
            words("ROC curves", "auroc"),
            _SQUARE,
        ),
        Drawn(
            "precision_recall",
            "Precision and recall",
            "Mean over folds and seeds; the level line is the share of leukemic cells.",
            partial(precision_recall_figure, groups),
            words("Precision over recall", "auprc"),
            _SQUARE,
        ),
        Drawn(
            "reliability",
            "Calibration",
            "Share of leukemic cells over the score: on the diagonal a score is a probability. "
            "Pale: as the model says; full: after temperature scaling on validation cells.",
            partial(reliability_figure, groups),
            words("Calibration", "ece_calibrated"),
            _SQUARE,
        ),
    ]


def _figures(
    groups: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]], name: str
) -> str:
    """``AUROC none 0.900, dcgan 0.910``."""
    found = [
        f"{group.run.augmentation} {reached[group.title][name]:.3f}"
        for group in groups[:_NAMED]
        if name in reached.get(group.title, {})
    ]
    return f"{name.partition('_')[0].upper()} {', '.join(found)}" if found else "see the tables"


def _of_decisions(
    groups: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]]
) -> list[Drawn]:
    def words(group: Configuration) -> str:
        shares = (counts := confusion(group, "default")) / counts.sum(axis=1, keepdims=True)
        return (
            f"Confusion of {group.title}: at 0.5 {shares[0, 0]:.0%} of healthy and "
            f"{shares[1, 1]:.0%} of leukemic cells are called rightly."
        )

    return [
        Drawn(
            "confusion",
            "Confusion",
            "Shares of the healthy and the leukemic cells of all runs, so many as stand beside the "
            "name: at 0.5, and at the threshold chosen on validation cells (Youden).",
            partial(confusion_figure, groups),
            (" ".join(map(words, groups[:_NAMED])),),
        ),
        Drawn(
            "per_subject",
            "Person by person",
            "A dot is a person: the share of their cells called rightly at 0.5. Whoever stands at "
            "the left is called wrongly.",
            partial(per_subject_figure, groups),
            (
                f"Dots of persons for {len(groups)} lines, healthy persons above, leukemic ones "
                "below; the bar is the mean of persons.",
            ),
        ),
    ]
