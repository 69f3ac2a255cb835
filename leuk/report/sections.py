"""Sections of a report: titled tables and texts, written as Markdown and CSV files.

Each builder of this package returns a :class:`Section`, which the page shows as HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leuk.store import csv_text, write_text


@dataclass(frozen=True)
class Grid:
    """A table of formatted texts.

    Attributes:
        header: column headings; the first column holds the row headings.
        rows: texts of each row, one per column.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def markdown(self) -> str:
        """Markdown table, the first column aligned left and the others right."""
        lines = [[text.replace("|", "/") for text in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

        def joined(line: Sequence[str]) -> str:
            others = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
            return "| " + " | ".join([line[0].ljust(widths[0]), *others]) + " |"

        rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
        return "\n".join([joined(lines[0]), f"|{'|'.join(rule)}|", *map(joined, lines[1:])])


@dataclass(frozen=True, eq=False)
class Section:
    """Section of a report.

    Attributes:
        name: stem of its files.
        title: its heading.
        parts: tables, and paragraphs or lists in Markdown, in order.
        table: the same data as numbers, for the CSV file.
    """

    name: str
    title: str
    parts: tuple[Grid | str, ...]
    table: pd.DataFrame

    @property
    def markdown(self) -> str:
        """The section as Markdown."""
        shown = [part if isinstance(part, str) else part.markdown for part in self.parts]
        return "\n\n".join([f"# {self.title}", *(text for text in shown if text)])

    def write(self, folder: Path) -> None:
        """Write ``<name>.md`` and ``<name>.csv`` to a folder."""
        write_text(folder / f"{self.name}.md", self.markdown + "\n")
        write_text(folder / f"{self.name}.csv", csv_text(self.table))


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """``0.912 [0.88, 0.94]``; without brackets if bounds are missing."""
    if value is None or pd.isna(value):
        return ""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.2f}, {high:.2f}]"


def difference_text(value: float, low: float, high: float) -> str:
    """``+0.012 [-0.010, +0.034]``."""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def p_text(p: float) -> str:
    """``0.012``, or ``<0.001``."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
