"""Figures of a cohort: all methods side by side for one image, and mean maps by outcome."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from leuk.explain.cohort import MEANING, UNKNOWN, Cohort
from leuk.explain.explainer import Attribution
from leuk.explain.overlays import Canvas, Drawn, Pixels, drawn_of, to_pixels

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
