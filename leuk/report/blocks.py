"""Blocks of a page: text, tables and pictures, ready for a template."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from leuk.report.figures import DPI, Drawn
from leuk.report.heatmap import HeatMap
from leuk.report.html import png_of, png_uri
from leuk.report.prose import Heading, Items, Paragraph, Spans, blocks, spans
from leuk.report.sections import Grid, Section

_WITH_INTERVAL = re.compile(r"(\S+) (\[[^\]]*\])(.*)")
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*(e-?\d+)?( .*)?")
_NOTHING = ("", "-")


@dataclass(frozen=True)
class TableCell:
    """Cell of a table.

    Attributes:
        spans: its text.
        interval: interval in brackets after a value, and the text that follows it.
        numeric: True to align it right.
    """

    spans: Spans
    interval: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column holds the row headings.

    Attributes:
        caption: text of the caption.
        header: text of each column heading, and True if the column is numeric.
        rows: cells of each row.
        named: True if the heading above repeats the caption, which is then hidden.
    """

    caption: str
    header: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[TableCell, ...], ...]
    named: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class HeatTable:
    """A table with shaded cells.

    Attributes:
        caption: text of the caption.
        header: column headings; the first belongs to the row headings.
        rows: row heading, and text, interval and shade of each cell; the shade of an empty cell
            is None.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str, int | None], ...]], ...]
    kind: Literal["heat"] = "heat"


@dataclass(frozen=True)
class Pictures:
    """A figure of one or several pictures.

    Attributes:
        name: stem of its files.
        title: its heading.
        caption: explanation of the figure.
        pictures: data URI and alternative text of each picture.
        wide: True to keep its width on a narrow screen and scroll it.
    """

    name: str
    title: str
    caption: str
    pictures: tuple[tuple[str, str], ...]
    wide: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True)
class Details:
    """Blocks that are collapsed on screen and expanded in print."""

    summary: str
    blocks: tuple["Block", ...]
    kind: Literal["details"] = "details"


Block = Heading | Paragraph | Items | Table | HeatTable | Pictures | Details


def prose(markdown: str) -> list[Block]:
    """Blocks of a Markdown text."""
    return list(blocks(markdown))


def section_blocks(section: Section, caption: str = "") -> list[Block]:
    """Blocks of a section.

    Args:
        section: the section.
        caption: caption of the first table, by default the title of the section. The caption of
            any other table is its heading.
    """
    shown: list[Block] = []
    named, heading = caption or section.title, not caption
    for part in section.parts:
        if isinstance(part, Grid):
            shown.append(table_of(part, named, heading))
            continue
        for block in prose(part) if part else ():
            shown.append(block)
            if isinstance(block, Heading):
                named, heading = block.text, True
    return shown


def folded(summary: str, blocks: Sequence[Block]) -> list[Block]:
    """Blocks collapsed behind a summary; empty if there are no blocks."""
    return [Details(summary, tuple(blocks))] if blocks else []


def fold_headings(blocks: Sequence[Block]) -> list[Block]:
    """Collapse the blocks below each heading; blocks before the first heading stay visible."""
    shown: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading):
            shown.append(Details(block.text, ()))
        elif shown and isinstance(last := shown[-1], Details):
            shown[-1] = Details(last.summary, (*last.blocks, block))
        else:
            shown.append(block)
    return shown


def table_of(grid: Grid, caption: str, named: bool = False) -> Table:
    """Convert a grid; numeric columns are aligned right."""
    columns = list(zip(*grid.rows, strict=True)) or [()] * len(grid.header)
    numeric = [all(map(_is_numeric, column)) for column in columns]
    rows = tuple(
        tuple(_cell(text, right) for text, right in zip(row, numeric, strict=True))
        for row in grid.rows
    )
    return Table(caption, tuple(zip(grid.header, numeric, strict=True)), rows, named)


def _is_numeric(text: str) -> bool:
    return text in _NOTHING or _NUMBER.fullmatch(text) is not None


def _cell(text: str, numeric: bool) -> TableCell:
    if found := _WITH_INTERVAL.fullmatch(text):
        return TableCell(spans(found[1]), f"{found[2]}{found[3]}", numeric=True)
    return TableCell(spans(text), numeric=numeric)


def heat_table(heat: HeatMap) -> HeatTable:
    """Return the heat map as a table with shades, see :meth:`leuk.report.heatmap.HeatMap.level`."""
    rows = []
    for row, (name, entries) in enumerate(zip(heat.rows, heat.entries, strict=True)):
        cells: list[tuple[str, str, int | None]] = []
        for column, entry in enumerate(entries):
            if entry is None:
                cells.append(("-", "", None))
                continue
            value, low, high = entry.metrics["auroc"]
            interval = "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
            cells.append((f"{value:.3f}", interval, heat.level(row, column)))
        rows.append((name, tuple(cells)))
    return HeatTable("Test AUROC by model and augmentation", ("", *heat.columns), tuple(rows))


def pictures_of(drawn: Drawn, png: bytes) -> Pictures:
    """Return a figure as written, cut into its panels if it has any."""
    whole = drawn.panel is None
    cut = [png] if drawn.panel is None else _panels(png, drawn.panel, len(drawn.alt))
    shown = tuple(zip(map(png_uri, cut), drawn.alt, strict=True))
    return Pictures(drawn.name, drawn.title, drawn.caption, shown, wide=whole)


def _panels(png: bytes, size: tuple[float, float], count: int) -> list[bytes]:
    """Panels of a figure, row by row; a narrow screen shows them below each other."""
    width, height = (round(side * DPI) for side in size)
    with Image.open(io.BytesIO(png)) as picture:
        across = round(picture.width / width)
        corners = [(panel % across * width, panel // across * height) for panel in range(count)]
        return [
            png_of(picture.crop((left, top, left + width, top + height))) for left, top in corners
        ]
