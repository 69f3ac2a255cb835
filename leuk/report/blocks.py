"""What chapters of a page consist of: words, tables and pictures, ready for a template."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from leuk.report.drawing import DPI, Drawn
from leuk.report.heatmap import HeatMap
from leuk.report.html import png_of, png_uri
from leuk.report.prose import Heading, Items, Paragraph, Spans, blocks, spans
from leuk.report.sections import Grid, Section

_WITH_INTERVAL = re.compile(r"(\S+) (\[[^\]]*\])(.*)")
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*(e-?\d+)?( .*)?")
_NOTHING = ("", "-")


@dataclass(frozen=True)
class TableCell:
    """One place of a table.

    Attributes:
        spans: its words.
        interval: what stands in brackets behind a figure, and what follows it.
        numeric: whether it is set to the right.
    """

    spans: Spans
    interval: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first place of a row names it.

    Attributes:
        caption: what it shows.
        header: of each column its words, and whether its places are numbers.
        rows: as many places each as the header has.
        named: whether the heading above says the same as the caption.
    """

    caption: str
    header: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[TableCell, ...], ...]
    named: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class HeatTable:
    """A table whose places are shaded.

    Attributes:
        caption: what it shows.
        header: of the columns; the first names the line.
        rows: name, and for each place its words, its interval and its shade, None where empty.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str, int | None], ...]], ...]
    kind: Literal["heat"] = "heat"


@dataclass(frozen=True)
class Pictures:
    """A figure of one or several pictures.

    Attributes:
        name: of its files.
        title: its heading.
        caption: how to read it.
        pictures: addresses within the page, and what each shows.
        wide: whether it keeps its width on a narrow screen and is moved there.
    """

    name: str
    title: str
    caption: str
    pictures: tuple[tuple[str, str], ...]
    wide: bool = False
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for, and open on paper."""

    summary: str
    blocks: tuple["Block", ...]
    kind: Literal["details"] = "details"


Block = Heading | Paragraph | Items | Table | HeatTable | Pictures | Details


def prose(markdown: str) -> list[Block]:
    """Words of a section as blocks."""
    return list(blocks(markdown))


def section_blocks(section: Section, caption: str = "") -> list[Block]:
    """Tables and words of a section.

    Args:
        section: it.
        caption: of its first table; its own title if empty. Others are named by their heading.
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
    """Blocks behind one line; nothing where there are none."""
    return [Details(summary, tuple(blocks))] if blocks else []


def fold_headings(blocks: Sequence[Block]) -> list[Block]:
    """Fold what follows each heading behind it; what comes before the first stays."""
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
    """A table of texts; columns of numbers are set to the right."""
    columns = list(zip(*grid.rows, strict=True)) or [()] * len(grid.header)
    numeric = [all(map(_is_numeric, column)) for column in columns]
    rows = tuple(
        tuple(_place(text, right) for text, right in zip(row, numeric, strict=True))
        for row in grid.rows
    )
    return Table(caption, tuple(zip(grid.header, numeric, strict=True)), rows, named)


def _is_numeric(text: str) -> bool:
    return text in _NOTHING or _NUMBER.fullmatch(text) is not None


def _place(text: str, numeric: bool) -> TableCell:
    if found := _WITH_INTERVAL.fullmatch(text):
        return TableCell(spans(found[1]), f"{found[2]}{found[3]}", numeric=True)
    return TableCell(spans(text), numeric=numeric)


def heat_table(heat: HeatMap) -> HeatTable:
    """The grid at a glance, with shades from 0 to :data:`leuk.report.heatmap.LEVELS` - 1."""
    rows = []
    for row, (name, lines) in enumerate(zip(heat.rows, heat.lines, strict=True)):
        places: list[tuple[str, str, int | None]] = []
        for column, line in enumerate(lines):
            if line is None:
                places.append(("-", "", None))
                continue
            value, low, high = line.metrics["auroc"]
            interval = "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
            places.append((f"{value:.3f}", interval, heat.level(row, column)))
        rows.append((name, tuple(places)))
    return HeatTable("Test AUROC by model and augmentation", ("", *heat.columns), tuple(rows))


def pictures_of(drawn: Drawn, png: bytes) -> Pictures:
    """A figure as it was written, cut into its panels if it has any."""
    whole = drawn.panel is None
    cut = [png] if drawn.panel is None else _panels(png, drawn.panel, len(drawn.alt))
    shown = tuple(zip(map(png_uri, cut), drawn.alt, strict=True))
    return Pictures(drawn.name, drawn.title, drawn.caption, shown, wide=whole)


def _panels(png: bytes, size: tuple[float, float], count: int) -> list[bytes]:
    """Panels of a figure, row by row: on a narrow screen they stand one below the other."""
    width, height = (round(side * DPI) for side in size)
    with Image.open(io.BytesIO(png)) as picture:
        across = round(picture.width / width)
        corners = [(place % across * width, place // across * height) for place in range(count)]
        return [
            png_of(picture.crop((left, top, left + width, top + height))) for left, top in corners
        ]
