"""Bad input, each with its error message; nothing is lost and nothing incomplete remains."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_cell

from leuk.runs.record import Record

Leuk = Callable[..., int]


def real(root: Path) -> list[str]:
    return ["data=cnmc", f"data.root={root}", "data.resolution=32", "data.framing=full"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    from leuk.cli import main

    def train(*overrides: str) -> int:
        shrunk = ["fit.epochs=1", "data.batch_size=4", "explain_images=2", "trainer=cpu"]
        return main(["train", f"outputs={tmp_path}/out", "split.val=0.5", *shrunk, *overrides])

    return train


def failure(tmp_path: Path) -> str:
    (path,) = tmp_path.glob("out/runs/single/*/record.json")
    record = Record.read(path.parent)
    assert record.status == "failed"
    assert record.error is not None
    assert "Traceback" in record.error["traceback"]
    return record.error["message"]


def test_missing_root(run: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*real(tmp_path / "nowhere")) == 2
    printed = capsys.readouterr()
    assert "nowhere: no such folder; set the folder of the C-NMC images" in printed.err
    assert "Traceback" not in printed.out + printed.err
    assert not (tmp_path / "out").exists()


def test_empty_source_fold(run: Leuk, tiny_folds: Path, tmp_path: Path) -> None:
    for path in (tiny_folds / "fold_1").rglob("*.bmp"):
        path.unlink()
    assert run(*real(tiny_folds)) == 1
    assert "split.test: no source fold fold_1; choose from fold_0" in failure(tmp_path)


@pytest.mark.parametrize(("fold", "stage"), [(0, "split.val=0.5"), (1, "split.test")])
def test_source_fold_without_healthy_images(
    run: Leuk, tiny_folds: Path, tmp_path: Path, fold: int, stage: str
) -> None:
    for path in (tiny_folds / f"fold_{fold}/hem").glob("*.bmp"):
        path.unlink()
    assert run(*real(tiny_folds)) == 1
    assert failure(tmp_path).startswith(f"{stage}: ")
    assert "hem" in failure(tmp_path)


def test_truncated_image_can_be_skipped(run: Leuk, tiny_folds: Path, tmp_path: Path) -> None:
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    path.write_bytes(path.read_bytes()[:1024])
    assert run(*real(tiny_folds)) == 1
    assert "truncated BMP (expected 3126 bytes, found 1024)" in failure(tmp_path)
    assert "set data.on_corrupt=skip" in failure(tmp_path)
    assert run(*real(tiny_folds), "data.on_corrupt=skip", "explain=none") == 0


def test_unwritable_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from leuk.cli import main

    (tmp_path / "file").write_text("")
    assert main(["train", f"outputs={tmp_path}/file/out"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_fewer_healthy_images_than_a_batch(
    run: Leuk, tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in range(3, 9):
        for subject in (1, 2):
            write_cell(tiny_folds / f"fold_0/all/UID_{subject}_{cell}_1_all.bmp")
    small_gan = ["gan_fit.epochs=1", "gan_fit.batch_size=64", "gan.latent=4"]
    assert run(*real(tiny_folds), "augmentation=dcgan", *small_gan) == 1
    message = "gan_fit.batch_size=64: only 2 training images for the GAN"
    assert message in capsys.readouterr().out
    (path,) = tmp_path.glob("out/runs/single/*/record.json")
    error = Record.read(path.parent).error
    assert error is not None
    assert error["message"].startswith(message)


def test_nothing_to_balance_is_warned_of(run: Leuk, tiny_folds: Path, tmp_path: Path) -> None:
    assert run(*real(tiny_folds), "augmentation=dcgan", "explain=none") == 0
    (path,) = tmp_path.glob("out/runs/single/*/record.json")
    assert "no healthy images are missing" in Record.read(path.parent).warnings[0].text


def test_identical_images_with_two_labels(
    run: Leuk, tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leuk.cli import main

    source = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    (tiny_folds / "fold_1/hem/UID_H4_9_1_hem.bmp").write_bytes(source.read_bytes())
    assert main(["data", "data=cnmc", f"data.root={tiny_folds}", f"outputs={tmp_path}/a"]) == 1
    assert "UID_H4_9_1_hem.bmp: identical to" in capsys.readouterr().out
    assert run(*real(tiny_folds)) == 1
    assert "an identical image has the other label" in failure(tmp_path)
