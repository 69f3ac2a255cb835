"""Pictures of explanations for the page, of one run of each model, reduced in size."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from leuk.report.results import Configuration
from leuk.runs.record import Record
from leuk.store import file_in

_WIDEST = 1100
_LARGEST = 8000
"""Largest side in pixels that is read; pictures written by leuk have a few thousand."""

_COLORS = 192
_MOST = 24
"""Maximum number of pictures on the page; the others are in the folders of their runs."""

_COHORT = "cohort"
"""Entry of a record's explanations that concerns all methods."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Picture.

    Attributes:
        configuration: name of the configuration.
        method: name of the method, or the content of a picture of all methods.
        png: PNG file, reduced in width and colors.
        alt: alternative text.
    """

    configuration: str
    method: str
    png: bytes
    alt: str


def explained_pictures(sweep: Path, configurations: Sequence[Configuration]) -> list[Explained]:
    """Pictures of the first run with any, of the first such configuration of each model."""
    of_model: dict[str, list[Explained]] = {}
    for configuration in configurations:
        if not of_model.get(configuration.run.model):
            of_model[configuration.run.model] = _of_group(sweep, configuration)
    return [picture for found in of_model.values() for picture in found][:_MOST]


def _of_group(sweep: Path, configuration: Configuration) -> list[Explained]:
    for record in configuration.records:
        if found := list(_of_record(sweep, configuration.title, record)):
            return found
    return []


def _of_record(sweep: Path, name: str, record: Record) -> Iterator[Explained]:
    folder = sweep / record.run.folder
    for method, entry in record.explanations.items():
        if not isinstance(entry, dict) or method == _COHORT:
            continue
        if png := _small(folder, entry.get("picture")):
            yield Explained(name, method, png, _alt(name, method, entry))
    cohort = record.explanations.get(_COHORT)
    if isinstance(cohort, dict) and (png := _small(folder, cohort.get("curves"))):
        alt = f"Deletion and insertion curves of every method for {name}, controls in gray."
        yield Explained(name, "deletion and insertion", png, alt)


def _alt(name: str, method: str, entry: dict[str, object]) -> str:
    count, blank = entry.get("images"), entry.get("degenerate")
    images = f"{count} test images, balanced by outcome" if isinstance(count, int) else "images"
    empty = f"; {blank} maps are degenerate" if isinstance(blank, int) and blank else ""
    return f"{method} of {name}: regions of {images} that support or oppose leukemia{empty}."


def _small(folder: Path, name: object) -> bytes | None:
    """Return a picture from the folder of a run as a small PNG; None if it is not readable."""
    if not isinstance(name, str):
        return None
    try:
        with Image.open(file_in(folder, name), formats=("PNG",)) as image:
            if max(image.size) > _LARGEST:
                return None
            image.thumbnail((_WIDEST, 4 * _WIDEST))
            small = image.convert("RGB").quantize(_COLORS, Image.Quantize.FASTOCTREE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
