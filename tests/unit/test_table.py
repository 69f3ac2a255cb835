"""Tables and texts of a report: one renderer for terminal, Markdown, CSV and HTML."""

import re
from pathlib import Path

import pandas as pd
import pytest

from leuk.report.html import Chapter, page
from leuk.report.table import (
    Heading,
    Items,
    Paragraph,
    Section,
    Span,
    Table,
    code,
    difference,
    estimate,
    interval_text,
    link,
    number,
    p_text,
    p_value,
    strong,
    text,
)

EVIL = '<b onclick="x">|</b>'

DATA = pd.DataFrame(
    {
        "name": ["a_b", EVIL],
        "auroc": [0.91234, None],
        "auroc_low": [0.8, None],
        "auroc_high": [1.0, None],
        "gain": [0.05, -0.01],
        "low": [0.01, None],
        "high": [0.09, None],
        "p": [0.0004, 0.25],
        "n": [12, 3],
    }
)
COLUMNS = {
    "configuration": text("name"),
    "AUROC": estimate("auroc", "-"),
    "gain": difference(("gain", "low", "high")),
    "p": p_value("p"),
    "n": number("n", "d"),
}
TABLE = Table(DATA, COLUMNS, "Mine")


def test_numbers_are_printed_by_the_format_of_their_column() -> None:
    header, rule, first, second = TABLE.markdown.splitlines()
    assert [part.strip() for part in header.split("|")[1:-1]] == list(COLUMNS)
    assert [part.endswith(":") for part in rule.split("|")[1:-1]] == [False, *[True] * 4]
    assert [part.strip() for part in first.split("|")[1:-1]] == [
        "a_b", "0.912 [0.80, 1.00]", "+0.050 [+0.010, +0.090]", "<0.001", "12",
    ]  # fmt: skip
    # A pipe in a text would end the field.
    assert [part.strip() for part in second.split("|")[1:-1]] == [
        EVIL.replace("|", "/"), "-", "-0.010", "0.250", "3",
    ]  # fmt: skip
    assert len({len(line) for line in (header, rule, first, second)}) == 1
    assert TABLE.text.splitlines()[1].split() == first.replace("|", "").split()
    assert Table(DATA[:0], COLUMNS).rows == []


def test_a_page_aligns_numbers_sets_intervals_apart_and_escapes() -> None:
    details = [Heading("Below"), Table(DATA, COLUMNS), Paragraph((strong(EVIL), code("x")))]
    html = page(EVIL, EVIL, chapters=[Chapter("a", EVIL, [TABLE, *details])])
    assert "<b" not in html.replace("<body", "")
    assert '<td class="number">0.912 <span class="interval">[0.80, 1.00]</span></td>' in html
    assert '<th scope="col">configuration</th>' in html
    assert '<th scope="col" class="number">n</th>' in html
    assert '<th scope="row">a_<wbr>b</th>' in html
    assert '<caption id="a-1">Mine</caption>' in html
    assert '<caption id="a-3" class="unseen">Below</caption>' in html
    assert "<strong>&lt;b" in html
    assert "<code>x</code>" in html


def test_long_tables_are_split_by_model_or_folded_on_a_page() -> None:
    data = pd.DataFrame({"name": range(15), "model": ["cnn"] * 13 + ["vit"] * 2})
    long = Table(data, {"run": text("name")}, "Runs")
    assert [(one.title, len(one.rows)) for one in long.parts] == [
        ("Runs: cnn", 13),
        ("Runs: vit", 2),
    ]
    html = page("t", "h", chapters=[Chapter("a", "A", [long, Table(data[["name"]], long.columns)])])
    summaries = re.findall("<summary>(.*?)</summary>", html)
    assert summaries == ["Table of 13 rows: Runs: cnn", "Table of 15 rows: A"]


def test_a_section_is_written_as_markdown_and_csv(tmp_path: Path) -> None:
    blocks = ("One\ntwo.", Heading("H"), Items((("see ", link("y", "../r/y.png")), "b")), Items(()))
    section = Section("s", "Title", blocks, pd.DataFrame({"x": ["=1+1", "b"]}))
    section.write(tmp_path)
    expected = "# Title\n\nOne two.\n\n## H\n\n- see [y](../r/y.png)\n- b\n"
    assert (tmp_path / "s.md").read_text() == expected
    assert (tmp_path / "s.csv").read_text() == "x\n'=1+1\nb\n"


@pytest.mark.parametrize(
    "to", ["https://e.org", "/etc", "x.png", "../a:b", "..\\a", "../a)", "../a b"]
)
def test_links_lead_to_files_of_the_sweep_only(to: str) -> None:
    assert link("x", to) == Span("x")


def test_texts_of_single_values() -> None:
    assert interval_text(0.5, None, None) == "0.500"
    assert interval_text(None, None, None) == interval_text(float("nan"), 0.1, 0.2) == ""
    assert interval_text(0.5, 0.25, 0.75) == "0.500 [0.25, 0.75]"
    assert (p_text(0.0123), p_text(0.0009)) == ("0.012", "<0.001")
