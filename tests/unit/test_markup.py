"""Markdown and tables, taken apart for the page."""

import pandas as pd

from leuk.report.blocks import section_blocks, table_of
from leuk.report.prose import Heading, Items, Paragraph, Span, blocks, spans
from leuk.report.table import Grid, Section


def test_markdown_is_taken_apart() -> None:
    text = "A **b** `c`\nd\n\n## T\n- one\n  more\n- [x](../y/z.png)\n\n[out](https://e.org)"
    first, heading, items, last = blocks(text)
    assert isinstance(first, Paragraph)
    assert first.spans == (
        Span("A "),
        Span("b", "strong"),
        Span(" "),
        Span("c", "code"),
        Span(" d"),
    )
    assert heading == Heading("T")
    assert isinstance(items, Items)
    assert items.entries == ((Span("one more"),), (Span("x", "link", "../y/z.png"),))
    assert isinstance(last, Paragraph)
    assert last.spans == (Span("out"),)
    assert spans("") == ()


def test_tables_set_numbers_to_the_right_and_intervals_apart() -> None:
    grid = Grid(("configuration", "AUROC", "n", "what"), (("a", "0.9 [0.8, 1.0]", "12", "7f10ab"),))
    table = table_of(grid, "T")
    assert table.header == (("configuration", False), ("AUROC", True), ("n", True), ("what", False))
    value = table.rows[0][1]
    assert (value.spans, value.interval) == ((Span("0.9"),), "[0.8, 1.0]")
    empty = table_of(Grid(("configuration", "x"), ()), "T")
    assert empty.rows == ()
    section = Section("s", "Title", (grid, "## Below", grid), pd.DataFrame())
    first, _, second = section_blocks(section, "Mine")
    assert (first.caption, first.named) == ("Mine", False)  # type: ignore[union-attr]
    assert (second.caption, second.named) == ("Below", True)  # type: ignore[union-attr]
