"""Tables and texts of a report, rendered as terminal text, CSV, Markdown and HTML.

A table is a DataFrame and a :class:`Column` for each column shown: values are numbers until they
are printed, and the column decides how. :class:`Section` joins tables and texts; a page shows its
blocks through ``templates/blocks.html``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from leuk.store import csv_text, write_text

LONGEST = 12
"""Number of rows above which a page splits a table by model, or folds it."""


@dataclass(frozen=True)
class Span:
    """Part of a text in one style; ``to`` is the target of a link."""

    text: str
    style: Literal["", "code", "strong", "link"] = ""
    to: str = ""

    @property
    def markdown(self) -> str:
        """The span as Markdown, on one line."""
        text = " ".join(self.text.splitlines())
        forms = {"code": f"`{text}`", "strong": f"**{text}**", "link": f"[{text}]({self.to})"}
        return forms.get(self.style, text)


Text = str | tuple["str | Span", ...]
"""A text: plain, or with parts in other styles."""


def code(text: str) -> Span:
    """Command or name of a file."""
    return Span(text, "code")


def strong(text: str) -> Span:
    """Emphasized text."""
    return Span(text, "strong")


def link(text: str, to: str) -> Span:
    """Link to a file of the same sweep; plain text if the target is anything else."""
    inside = to.startswith("../") and not set(to) & set(":\\() \n\t<>")
    return Span(text, "link", to) if inside else Span(text)


def spans(text: Text) -> tuple[Span, ...]:
    """Spans of a text."""
    parts = (text,) if isinstance(text, str) else text
    return tuple(Span(part) if isinstance(part, str) else part for part in parts)


def joined(text: Text) -> str:
    """Markdown of a text, on one line."""
    return "".join(span.markdown for span in spans(text))


# --- Values of a table


@dataclass(frozen=True)
class Picture:
    """A picture on a page: its data URI, alternative text, and lines of text below it."""

    uri: str
    alt: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """Printed value of a table, with an interval or a picture that a page sets apart."""

    text: Text = ""
    interval: str = ""
    picture: Picture | None = None

    @property
    def markdown(self) -> str:
        """Value and interval; a pipe would end the field of a Markdown table."""
        return " ".join(filter(None, (joined(self.text), self.interval))).replace("|", "/")


@dataclass(frozen=True)
class Column:
    """Format of a column.

    Attributes:
        keys: names of the columns of the DataFrame that it reads, such as value and bounds.
        show: function that prints their values, None where they are missing.
        numeric: True to align it right.
    """

    keys: tuple[str, ...]
    show: Callable[..., str | Shown]
    numeric: bool = True

    def of(self, row: Mapping[str, Any]) -> Shown:
        """Print the values of a row of the DataFrame."""
        values = (row.get(key) for key in self.keys)
        known = (None if isinstance(one, float) and one != one else one for one in values)
        shown = self.show(*known)
        return shown if isinstance(shown, Shown) else Shown(shown)


def text(key: str) -> Column:
    """Column of texts."""
    return Column((key,), lambda value: "" if value is None else str(value), numeric=False)


def number(key: str, form: str = ".3f", missing: str = "") -> Column:
    """Column of numbers, such as ``0.912``."""
    return Column((key,), lambda value: missing if value is None else format(value, form))


def estimate(key: str, missing: str = "", form: str = ".3f", bounds: str = ".2f") -> Column:
    """Column of values with intervals, such as ``0.912 [0.88, 0.94]``."""

    def show(value: float | None, low: float | None, high: float | None) -> str | Shown:
        return missing if value is None else with_interval(value, low, high, form, bounds)

    return Column((key, f"{key}_low", f"{key}_high"), show)


def difference(keys: tuple[str, str, str], missing: str = "") -> Column:
    """Column of differences with intervals, such as ``+0.012 [-0.010, +0.034]``."""
    return Column(keys, lambda *known: signed(*known) if known[0] is not None else missing)


def p_value(key: str, missing: str = "") -> Column:
    """Column of p values."""
    return Column((key,), lambda p: missing if p is None else p_text(p))


def with_interval(
    value: float, low: float | None, high: float | None, form: str = ".3f", bounds: str = ".2f"
) -> Shown:
    """Value, with its interval if known."""
    known = low is not None and high is not None
    return Shown(f"{value:{form}}", f"[{low:{bounds}}, {high:{bounds}}]" if known else "")


def signed(value: float, low: float | None, high: float | None) -> Shown:
    """Difference, with its interval if known."""
    return with_interval(value, low, high, "+.3f", "+.3f")


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """``0.912 [0.88, 0.94]``; without brackets if bounds are missing."""
    known = [None if bound is None or pd.isna(bound) else bound for bound in (value, low, high)]
    return "" if known[0] is None else with_interval(known[0], known[1], known[2]).markdown


def difference_text(value: float, low: float, high: float) -> str:
    """``+0.012 [-0.010, +0.034]``."""
    return signed(value, low, high).markdown


def p_text(p: float) -> str:
    """``0.012``, or ``<0.001``."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


# --- Blocks: tables, texts, and what only a page shows


@dataclass(frozen=True, eq=False)
class Table:
    """A table; its first column holds the row headings.

    Attributes:
        data: values, a row per row of the table.
        columns: columns shown, by heading.
        title: caption; empty to repeat the heading above, which a page then hides.
        levels: shade of each value after the row heading, None where it is empty; None for a table
            without shades.
    """

    data: pd.DataFrame
    columns: Mapping[str, Column]
    title: str = ""
    levels: Sequence[Sequence[int | None]] | None = None
    kind = "table"

    @cached_property
    def rows(self) -> list[list[Shown]]:
        """Printed values, row by row."""
        records: list[dict[Any, Any]] = self.data.to_dict("records")
        return [[column.of(row) for column in self.columns.values()] for row in records]

    @property
    def header(self) -> list[tuple[str, bool]]:
        """Headings, each with True if the column is aligned right; the first never is."""
        return [
            (heading, column.numeric and place > 0)
            for place, (heading, column) in enumerate(self.columns.items())
        ]

    @property
    def parts(self) -> list["Table"]:
        """This table, or a table per model if it is long and its data name the models."""
        if len(self.data) <= LONGEST or "model" not in self.data or self.levels:
            return [self]
        return [
            replace(self, data=rows, title=f"{self.title}: {model}" if self.title else str(model))
            for model, rows in self.data.groupby("model", sort=False)
        ]

    @property
    def folded(self) -> bool:
        """True if the table is too long to be shown at once."""
        return len(self.data) > LONGEST

    @property
    def text(self) -> str:
        """Table for a terminal: aligned columns, without rules."""
        return "\n".join("  ".join(line).rstrip() for line in self._lines())

    @property
    def markdown(self) -> str:
        """Markdown table, the first column aligned left and the others right."""
        header, *lines = ["| " + " | ".join(line) + " |" for line in self._lines()]
        widths = [len(text) for text in header[2:-2].split(" | ")]
        rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
        return "\n".join([header, f"|{'|'.join(rule)}|", *lines])

    def _lines(self) -> list[list[str]]:
        """Header and rows, padded to the widths of the columns."""
        texts = [[heading.replace("|", "/") for heading in self.columns]]
        texts += [[shown.markdown for shown in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in texts]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind = "heading"

    @property
    def markdown(self) -> str:
        """The heading, below that of the section."""
        return f"## {' '.join(self.text.splitlines())}"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: Text
    kind = "paragraph"

    @property
    def markdown(self) -> str:
        """The paragraph on one line."""
        return joined(self.text)


@dataclass(frozen=True)
class Items:
    """A list; ``summary`` marks warnings that a page shows above its sections and not again."""

    texts: tuple[Text, ...]
    summary: bool = False
    kind = "items"

    @property
    def markdown(self) -> str:
        """Markdown list."""
        return "\n".join(f"- {joined(text)}" for text in self.texts)


@dataclass(frozen=True)
class Pictures:
    """Pictures with a common caption, shown on a page only.

    Attributes:
        title: heading; empty without a caption.
        caption: explanation of the pictures.
        pictures: the pictures.
        look: ``figure`` keeps the width on a narrow screen and scrolls, ``pixels`` enlarges small
            images without blur, ``pair`` sets small pictures side by side, with their lines.
    """

    title: str
    caption: str
    pictures: tuple[Picture, ...]
    look: Literal["figure", "pixels", "pair"] = "figure"
    kind = "pictures"


Written = Table | Heading | Paragraph | Items
Block = Written | Pictures


@dataclass(frozen=True, eq=False)
class Section:
    """Section of a report.

    Attributes:
        name: stem of its files.
        title: its heading.
        blocks: tables and texts; a plain string is a paragraph.
        table: its values for the CSV file.
    """

    name: str
    title: str
    blocks: Sequence[Written | str]
    table: pd.DataFrame

    @property
    def shown(self) -> list[Written]:
        """Blocks, with paragraphs for plain strings; empty ones are omitted."""
        blocks = [Paragraph(block) if isinstance(block, str) else block for block in self.blocks]
        return [block for block in blocks if isinstance(block, Table) or block.markdown]

    @property
    def markdown(self) -> str:
        """The section as Markdown."""
        return "\n\n".join([f"# {self.title}", *(block.markdown for block in self.shown)])

    def write(self, folder: Path) -> None:
        """Write ``<name>.md`` and ``<name>.csv`` to a folder."""
        write_text(folder / f"{self.name}.md", self.markdown + "\n")
        write_text(folder / f"{self.name}.csv", csv_text(self.table))
