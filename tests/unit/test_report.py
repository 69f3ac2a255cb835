from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from leuk.errors import StoreError
from leuk.grid.cell import Cell
from leuk.grid.record import Record, figures
from leuk.report.tables import COLUMNS, NOTES, write_report

CELL = Cell("cnn", "none", "folds", 0)


def complete(cell: Cell, auroc: float) -> Record:
    values = dict.fromkeys(COLUMNS.values(), 0.5) | {"auroc": auroc}
    return Record(
        cell,
        "abc",
        status="complete",
        data={"fingerprint": "d", "counts": {}},
        metrics={"test": figures(values)},
        baselines={"area": figures(values | {"auroc": 0.87})},
    )


def write(sweep: Path, *records: Record) -> None:
    for record in records:
        record.write(sweep / record.cell.folder)


def test_cells_seeds_and_baselines_stand_in_one_table(tmp_path: Path) -> None:
    write(tmp_path, complete(CELL, 0.9), complete(replace(CELL, seed=1), 0.92))
    text = write_report(tmp_path)
    assert (tmp_path / "report/table.md").read_text() == text + "\n"
    table = pd.read_csv(tmp_path / "report/table.csv").set_index("cell")
    assert table.loc["cnn-none-folds-s1", "auroc"] == 0.92
    mean = table.loc["cnn-none-folds (mean of 2 seeds)"]
    assert mean["auroc"] == pytest.approx(0.91)
    assert mean["auroc_sd"] == pytest.approx(0.0002**0.5)
    assert table.loc["baseline: area", "auroc"] == 0.87
    assert list(table.index).count("baseline: area") == 1
    assert "0.910 ± 0.014" in text


def test_failed_and_unfinished_cells_are_shown(tmp_path: Path) -> None:
    failed = Record(replace(CELL, seed=1), "abc")
    failed.fail(RuntimeError("no luck"))
    write(tmp_path, complete(CELL, 0.9), failed, Record(replace(CELL, seed=2), "abc"))
    text = write_report(tmp_path)
    assert "failed: no luck" in text
    assert "running: not finished" in text


def test_warnings_and_unreadable_records_are_told(tmp_path: Path) -> None:
    record = complete(CELL, 0.9)
    record.warnings.append("gradcam: 2 of 16 maps are degenerate")
    write(tmp_path, record)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/record.json").write_text("{")
    text = write_report(tmp_path)
    assert "2 of 16 maps are degenerate" in text
    assert "broken/record.json: no readable record" in text


def test_lines_of_the_table_are_equally_long(tmp_path: Path) -> None:
    write(tmp_path, complete(CELL, 0.9), complete(replace(CELL, model="hybrid"), 0.9))
    lines = [line for line in write_report(tmp_path).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1


def test_empty_sweep(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records"):
        write_report(tmp_path)


def test_what_leaking_gains_stands_beside_the_honest_cell(tmp_path: Path) -> None:
    leaky = replace(CELL, split="folds_LEAKY", variant="purge_False")
    records = [complete(CELL, 0.89), complete(replace(CELL, seed=1), 0.91), complete(leaky, 0.95)]
    write(tmp_path, *records)
    text = write_report(tmp_path)
    assert "cnn-none-folds_LEAKY-purge_False has a test AUROC of 0.950" in text
    assert "cnn-none-folds of 0.900: leaking seems to gain +0.050" in text
    assert "LEAKY" not in NOTES


def test_no_honest_cell_no_gain(tmp_path: Path) -> None:
    leaky = replace(CELL, split="random_LEAKY")
    write(tmp_path, complete(leaky, 0.97), complete(replace(CELL, augmentation="dcgan"), 0.9))
    assert "seems to gain" not in write_report(tmp_path)
