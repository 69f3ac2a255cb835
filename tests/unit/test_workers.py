import os
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import KFOLD, fold, varied, write_sweep

from leuk.report.sweep_report import write_report
from leuk.report.workers import spread


@pytest.mark.parametrize("workers", [1, 2, 50])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    here = os.getpid()
    found = spread(lambda item: (item * 2, os.getpid()), range(20), workers)
    assert [value for value, _ in found] == list(range(0, 40, 2))
    assert ({process for _, process in found} == {here}) is (workers == 1)
    assert spread(lambda item: item, [], workers) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_that_of_the_first_item_that_fails(workers: int) -> None:
    def half(item: int) -> int:
        if item % 2:
            raise ValueError(f"{item} is odd")
        return item // 2

    with pytest.raises(ValueError, match="3 is odd"):
        spread(half, [2, 4, 3, 6, 5, 8, 7, 9], workers)


def test_a_report_is_the_same_with_several_workers(tmp_path: Path) -> None:
    models = [replace(KFOLD, model=model) for model in ("cnn", "vit")]
    run_ids = [varied(run_id, augmentation=name) for run_id in models for name in ("none", "dcgan")]
    write_sweep(tmp_path, [fold(run_id, number) for run_id in run_ids for number in range(2)])
    (tmp_path / run_ids[0].folder / "predictions.csv").write_text("nothing")
    found = []
    for workers in (1, 2):
        write_report(tmp_path, workers)
        files = {path.name: path.read_bytes() for path in (tmp_path / "report").rglob("*.*")}
        found.append({name: text for name, text in files.items() if not name.endswith(".pdf")})
    assert found[0] == found[1]
    assert b"no column stage" in found[0]["report.html"]
    assert {"roc.png", "table.csv", "comparisons.md"} <= set(found[0])
