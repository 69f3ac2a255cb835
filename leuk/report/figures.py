"""The figures of a sweep, each with its caption and an alternative text.

Each shows all configurations, in small multiples or in rows, and is written as PNG and PDF.
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
from leuk.report.forest import augmentation_figure, augmented, differences_figure, other_differences
from leuk.report.heatmap import HeatMap, heat_map_figure
from leuk.report.load import Configuration
from leuk.report.table import difference_text, p_text
from leuk.report.workers import begun

_SQUARE = (PANEL, PANEL)
_NAMED = 6
"""Number of configurations that an alternative text names; the tables contain all."""


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
    shown = [configuration for configuration in configurations if configuration.runs]
    drawn = [*_of_differences(comparisons)]
    if heat is not None:
        drawn.insert(0, _grid(heat))
    if shown:
        drawn += [*_curves(shown, reached), *_of_decisions(shown, reached)]
    return drawn


def writing(
    folder: Path, drawn: Sequence[Drawn], workers: int
) -> AbstractContextManager[Callable[[], list[Pictures]]]:
    """Draw figures in the background and write them as PNG and PDF; see :meth:`Drawn.write`.

    Yields a function that waits for the figures and returns them as blocks of a page.
    """
    return begun(lambda one: pictures_of(one, one.write(folder)), drawn, workers)


def _grid(heat: HeatMap) -> Drawn:
    names = ", ".join(heat.columns)
    return Drawn(
        "grid",
        "Test AUROC",
        "Test AUROC of each model with each augmentation.",
        partial(heat_map_figure, heat),
        (f"Heat map of the AUROC of {', '.join(heat.rows)} with {names}.",),
    )


def _of_differences(comparisons: Sequence[Comparison]) -> list[Drawn]:
    caption = (
        "Dots are differences in test AUROC, bars their 95 % intervals (patients resampled). "
        "Filled: {}"
    )
    drawn = []
    if own := augmented(comparisons):
        drawn.append(
            Drawn(
                "augmentation",
                "Effect of each augmentation",
                caption.format("Holm-corrected p below 0.05. Right of 0: better."),
                partial(augmentation_figure, comparisons),
                (f"Forest plot of each augmentation minus none. {_summary(own)}",),
            )
        )
    if found := other_differences(comparisons):
        drawn.append(
            Drawn(
                "differences",
                "Other comparisons",
                caption.format("p below 0.05, Holm-corrected within the family of comparisons."),
                partial(differences_figure, comparisons),
                (f"Forest plot of {len(found)} differences. {_summary(found)}",),
            )
        )
    return drawn


def _summary(comparisons: Sequence[Comparison]) -> str:
    """Return the number of significant differences, and the largest of them."""
    sure = [c for c in comparisons if c.p is not None and c.p < 0.05]
    if not sure:
        return "No difference has a corrected p below 0.05."
    large = sorted(sure, key=lambda c: -abs(c.result.difference if c.result else 0))[:_NAMED]
    named = "; ".join(
        f"{c.title} {difference_text(c.result.difference, c.result.low, c.result.high)}, "
        f"p {p_text(c.p)}"
        for c in large
        if c.result is not None and c.p is not None
    )
    return f"{len(sure)} have a corrected p below 0.05, the largest: {named}."


def _curves(
    configurations: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]]
) -> list[Drawn]:
    def words(kind: str, metric: str) -> tuple[str, ...]:
        return tuple(
            f"{kind} of {name}: {_metrics(members, reached, metric)}."
            for name, members in by_model(configurations).items()
        )

    return [
        Drawn(
            "roc",
            "ROC curves",
            "Mean over folds and seeds. Thick gray line: cell area alone.",
            partial(roc_figure, configurations),
            words("ROC curves", "auroc"),
            _SQUARE,
        ),
        Drawn(
            "precision_recall",
            "Precision and recall",
            "Mean over folds and seeds. Horizontal line: share of leukemic cells (chance level).",
            partial(precision_recall_figure, configurations),
            words("Precision over recall", "auprc"),
            _SQUARE,
        ),
        Drawn(
            "reliability",
            "Calibration",
            "Observed share of leukemic cells against the score; on the diagonal, scores equal "
            "probabilities. Pale: uncalibrated scores; solid: after temperature scaling on "
            "validation images.",
            partial(reliability_figure, configurations),
            words("Calibration", "ece_calibrated"),
            _SQUARE,
        ),
    ]


def _metrics(
    configurations: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]], name: str
) -> str:
    """``AUROC none 0.900, dcgan 0.910``."""
    found = [
        f"{configuration.run.augmentation} {reached[configuration.title][name]:.3f}"
        for configuration in configurations[:_NAMED]
        if name in reached.get(configuration.title, {})
    ]
    return (
        f"{name.partition('_')[0].upper()} {', '.join(found)}" if found else "values in the tables"
    )


def _of_decisions(
    configurations: Sequence[Configuration], reached: Mapping[str, Mapping[str, float]]
) -> list[Drawn]:
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
