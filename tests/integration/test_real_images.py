"""Main claim of the README, on real images."""

from pathlib import Path

import pytest

from leuk.cli import main
from leuk.runs.record import Record


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "dcgan"])
def test_cnn_at_64_px_beats_the_area_of_the_cell(
    cnmc: Path, tmp_path: Path, augmentation: str
) -> None:
    root = cnmc / "224"
    arguments = ["data=cnmc", f"data.root={root}", f"augmentation={augmentation}"]
    assert main(["train", f"outputs={tmp_path}", *arguments]) == 0
    record = Record.read(next(tmp_path.glob("runs/single/*/record.json")).parent)
    auroc = record.metrics["test"]["auroc"]["value"]
    area = record.baselines["area"]["auroc"]["value"]
    assert auroc is not None
    assert area is not None
    assert auroc >= 0.90
    assert auroc > area
