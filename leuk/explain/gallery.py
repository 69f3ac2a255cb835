"""All figures of a cohort, written to the folder of the explanations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from leuk.classifiers.classifier import Classifier
from leuk.explain.cohort import Cohort
from leuk.explain.explainer import Attribution
from leuk.explain.overlays import drawn_of, save_overlays
from leuk.explain.panels import captions, sampled, save_cohort, save_panels
from leuk.explain.thesis_figures import save_figure_9, save_figure_10, save_figure_11


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
