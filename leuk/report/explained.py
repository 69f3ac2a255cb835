"""Pictures of explanations for the page: of one run of each model, made small."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from leuk.grid.record import Record
from leuk.report.results import Configuration
from leuk.store.foreign import file_in

_WIDEST = 1100
_LARGEST = 8000
"""Most pixels a side of a picture; leuk's own have some thousand."""

_COLORS = 192
_MOST = 24
"""Pictures on a page; the others lie in the folders of their cells."""

_TOGETHER = "cohort"
"""The entry of a record's explanations that is of all methods together."""


@dataclass(frozen=True, eq=False)
class Explained:
    """One picture.

    Attributes:
        line: whose.
        method: its name, or what of all methods it shows.
        png: made narrower and of few colors.
        alt: what it shows.
    """

    line: str
    method: str
    png: bytes
    alt: str


def explained_pictures(sweep: Path, groups: Sequence[Configuration]) -> list[Explained]:
    """Pictures of the first run that has any, of the first line of each model that has one."""
    of_model: dict[str, list[Explained]] = {}
    for group in groups:
        if not of_model.get(group.run.model):
            of_model[group.run.model] = _of_group(sweep, group)
    return [picture for found in of_model.values() for picture in found][:_MOST]


def _of_group(sweep: Path, group: Configuration) -> list[Explained]:
    for record in group.records:
        if found := list(_of_record(sweep, group.title, record)):
            return found
    return []


def _of_record(sweep: Path, line: str, record: Record) -> Iterator[Explained]:
    folder = sweep / record.run.folder
    for method, said in record.explanations.items():
        if not isinstance(said, dict) or method == _TOGETHER:
            continue
        if png := _small(folder, said.get("picture")):
            yield Explained(line, method, png, _alt(line, method, said))
    together = record.explanations.get(_TOGETHER)
    if isinstance(together, dict) and (png := _small(folder, together.get("curves"))):
        words = f"Deletion and insertion curves of every method on {line}, controls in gray."
        yield Explained(line, "deletion and insertion", png, words)


def _alt(line: str, method: str, said: dict[str, object]) -> str:
    count, blank = said.get("images"), said.get("degenerate")
    of_cells = f"{count} test cells, balanced by outcome," if isinstance(count, int) else "images"
    empty = f"; {blank} maps are degenerate" if isinstance(blank, int) and blank else ""
    return f"{method} of {line}: where {of_cells} speak for leukemia and where against{empty}."


def _small(folder: Path, name: object) -> bytes | None:
    """A picture of a cell's own folder as a small PNG; None where there is none to read."""
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
