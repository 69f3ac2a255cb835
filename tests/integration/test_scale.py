"""Images of another size than the training images: scaled, refused or referred."""

import json
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_cell
from PIL import Image

from leuk.cli import main
from leuk.data.decode import Frame, Framing, decode
from leuk.data.scale import Scale
from leuk.runs.record import Record

pytestmark = pytest.mark.usefixtures("blank_figures")

FIELD = 64
"""Side in pixels of the original frames; the training files are reduced to half of it."""

TRAIN = ("data=cnmc", "data.resolution=32", "data.batch_size=16", "fit.epochs=1", "explain=none")


def reduced(folder: Path, root: Path, size: int) -> Path:
    """Copy a data set with its images resized."""
    for path in folder.rglob("*"):
        target = root / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.resize((size, size), Image.Resampling.LANCZOS).save(target)
        elif path.is_file():
            shutil.copy(path, target)
    return root


def train(root: Path, outputs: Path, *overrides: str) -> int:
    return main(
        ["train", f"outputs={outputs}", f"data.root={root}", "trainer=cpu", *TRAIN, *overrides]
    )


def only_run(outputs: Path) -> Path:
    (path,) = outputs.glob("runs/single/*/record.json")
    return path.parent


@pytest.fixture(scope="module")
def small(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of frames reduced to half."""
    return reduced(phantom, tmp_path_factory.mktemp("small") / "data", FIELD // 2)


@pytest.fixture(scope="module")
def stated(small: Path, tmp_path_factory: pytest.TempPathFactory, blank_figures: None) -> Path:
    """Run trained on the reduced frames with their field of view set."""
    outputs = tmp_path_factory.mktemp("stated")
    assert train(small, outputs, f"data.frame={FIELD}") == 0
    return only_run(outputs)


@pytest.fixture
def unstated(run: Path) -> Path:
    """The same run without the field of view."""
    record = Record.read(run)
    record.data["scale"]["frame"] = None
    record.write(run)
    return run


@pytest.fixture
def run(stated: Path, tmp_path: Path) -> Path:
    """Copy of the run, private to a test."""
    return Path(shutil.copytree(stated, tmp_path / "runs/own" / stated.name))


@pytest.fixture(scope="module")
def frames(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of the same pixels in frames of several sizes, by size."""
    folder = tmp_path_factory.mktemp("frames")
    sizes = (30, FIELD, 100)
    for path in sorted(phantom.glob("C-NMC_training_data/fold_2/*/*.png"))[::4]:
        with Image.open(path) as image:
            for size in sizes:
                edge = (size - FIELD) // 2
                box = (-edge, -edge, size - edge, size - edge)
                (folder / str(size)).mkdir(exist_ok=True)
                image.crop(box).save(folder / str(size) / path.name)
    return {size: folder / str(size) for size in sizes}


Predict = Callable[..., pd.DataFrame]


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """Table of ``leuk predict`` without the columns that need training images."""

    return partial(predicted, tmp_path)


@pytest.fixture(scope="module")
def original(
    stated: Path, frames: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    """Predictions for the original frames."""
    return predicted(tmp_path_factory.mktemp("original"), stated, frames[FIELD])


def predicted(outputs: Path, run: Path, images: Path, *overrides: str) -> pd.DataFrame:
    assert main(command(run, images, outputs, *overrides)) == 0
    (path,) = outputs.glob("predictions/*/*/predictions.csv")
    table = pd.read_csv(path)
    shutil.rmtree(outputs / "predictions")
    return table


def command(run: Path, images: Path, outputs: Path, *overrides: str) -> Iterable[str]:
    quick = ["overlays=0", "page_images=3", "familiarity=false", "trainer=cpu"]
    return ["predict", f"run={run}", f"images={images}", f"outputs={outputs}", *quick, *overrides]


def test_the_scale_is_in_the_record(stated: Path) -> None:
    record = Record.read(stated)
    scale = record.data["scale"]
    assert (scale["sizes"], scale["frame"], scale["input"]) == ([[32, 32]], FIELD, 32)
    low, high = scale["areas"]
    assert 0 < low < high < 1
    assert record.settings["data"]["frame"] == FIELD
    # Null is omitted, so that runs from before the key existed keep their fingerprints.
    assert "pixel_size" not in record.settings["data"]


@pytest.mark.parametrize("statement", ["pixel_size=1", "frame=100"])
def test_the_same_pixels_in_a_larger_frame_get_the_same_scores(
    stated: Path,
    frames: dict[int, Path],
    original: pd.DataFrame,
    predict: Predict,
    statement: str,
) -> None:
    larger = predict(stated, frames[100], statement)
    np.testing.assert_array_equal(larger["score"], original["score"])
    np.testing.assert_array_equal(larger["refer"], original["refer"])


def test_a_crop_gets_the_same_scores_where_it_cuts_no_cell(
    stated: Path, frames: dict[int, Path], original: pd.DataFrame, predict: Predict
) -> None:
    cropped = predict(stated, frames[30], "pixel_size=1")
    whole = ~cropped["why"].fillna("").str.contains("its cell is cut by the border of the image")
    assert 5 < whole.sum() < len(whole)
    np.testing.assert_array_equal(cropped["score"][whole], original["score"][whole])
    assert cropped["refer"][~whole].all()


@pytest.mark.parametrize("size", [30, 100])
def test_frames_of_an_unknown_scale_are_refused(
    stated: Path,
    frames: dict[int, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: int,
) -> None:
    count = len(list(frames[size].iterdir()))
    assert main(command(stated, frames[size], tmp_path)) == 2
    message = capsys.readouterr().err
    assert f"{count} of {count} images ({size} x {size}: {count}) do not have the size" in message
    assert "frame=same" in message
    assert "pixel_size=P" in message
    assert not (tmp_path / "predictions").exists()


def test_original_frames_need_a_statement_where_training_had_none(
    unstated: Path,
    frames: dict[int, Path],
    predict: Predict,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(unstated, frames[FIELD], tmp_path)) == 2
    assert main(command(unstated, frames[FIELD], tmp_path, "pixel_size=1")) == 2
    message = capsys.readouterr().err
    assert "pixel_size=1.0: the field of view of the run's training images is unknown" in message
    assert "train again with data.frame=N" in message
    assert predict(unstated, frames[FIELD], "frame=same")["score"].notna().all()


def test_single_images_of_an_unknown_scale_are_referred_without_a_score(
    stated: Path, frames: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "new"
    shutil.copytree(frames[FIELD], images)
    shutil.copy(next(frames[100].iterdir()), images / "odd.png")
    assert main(command(stated, images, tmp_path)) == 0
    (path,) = tmp_path.glob("predictions/*/*/predictions.csv")
    table = pd.read_csv(path).set_index("image")
    odd = table.loc["odd.png"]
    assert (odd["scale"], odd["refer"]) == ("unknown", True)
    assert odd[["score", "decision"]].isna().all()
    assert odd["why"] == "its scale is unknown: no training image has 100 x 100 px"
    assert table.drop("odd.png")["score"].notna().all()
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["counts"]["unknown_scale"] == 1
    assert "(100 x 100: 1)" in capsys.readouterr().out


def test_a_wrong_statement_is_noticed_by_the_size_of_the_cells(
    stated: Path,
    frames: dict[int, Path],
    original: pd.DataFrame,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (original["scale"] == "doubtful").mean() < 0.2
    wrong = predict(stated, frames[100], "frame=same")
    assert wrong["refer"].all()
    assert (wrong["scale"] == "doubtful").all()
    assert "smaller or larger than that of any training image" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (["frame=wide"], "frame=wide: not a field of view; set same or a number above 0"),
        (["frame=0"], "frame=0: not a field of view"),
        (["pixel_size=-1"], "pixel_size=-1.0: not a field of view; set a number above 0"),
        (["pixel_size=1", "frame=same"], "frame=same and pixel_size=1: both define the field"),
        (["frame=0.01"], "its field of view would be"),
    ],
)
def test_an_impossible_field_of_view_is_refused(
    stated: Path,
    frames: dict[int, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    statement: list[str],
    message: str,
) -> None:
    assert main(command(stated, frames[FIELD], tmp_path, *statement)) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.out + shown.err


def test_no_image_is_squashed(
    stated: Path, frames: dict[int, Path], predict: Predict, tmp_path: Path
) -> None:
    for name in ("oblong", "square"):
        (tmp_path / name).mkdir()
    for path in frames[FIELD].iterdir():
        with Image.open(path) as image:
            oblong = image.crop((0, 8, FIELD, FIELD - 8))
            oblong.save(tmp_path / "oblong" / path.name)
            square = Image.new("RGB", (FIELD, FIELD))
            square.paste(oblong, (0, 8))
            square.save(tmp_path / "square" / path.name)
    assert main(command(stated, tmp_path / "oblong", tmp_path)) == 2
    oblong, square = (
        predict(stated, tmp_path / name, "frame=same")["score"] for name in ("oblong", "square")
    )
    np.testing.assert_array_equal(oblong, square)


def test_explain_converts_images_to_the_scale_or_refuses_them(
    run: Path, frames: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["explain", f"run={run}", "explain=gradcam", "checks=none", "explain_images=2"]
    base = [*base, "checked_images=2", "explain_background=4", "trainer=cpu"]
    assert main([*base, f"images={frames[100]}"]) == 2
    assert "do not have the size of the training images (32 x 32 px)" in capsys.readouterr().err
    assert main([*base, "pixel_size=1"]) == 2
    assert "only for new images; set images=DIR" in capsys.readouterr().err
    scores = {}
    for size in (FIELD, 100):
        assert main([*base, f"images={frames[size]}", "pixel_size=1", f"name=of{size}"]) == 0
        scores[size] = pd.read_csv(run / f"explanations-of{size}/manifest.csv")["score"]
    np.testing.assert_array_equal(scores[FIELD], scores[100])


def test_an_export_carries_the_scale(stated: Path, tmp_path: Path) -> None:
    arguments = [f"run={stated}", f"outputs={tmp_path}", "format=torchscript", "name=x"]
    assert main(["export", *arguments]) == 0
    (path,) = tmp_path.glob("exports/x/**/model.json")
    scale = json.loads(path.read_text())["input"]["scale"]
    assert (scale["sizes"], scale["frame"], scale["canvas"]) == ([[32, 32]], FIELD, None)
    assert scale["areas"] == Record.read(stated).data["scale"]["areas"]


def test_fields_of_view_from_sizes() -> None:
    original, reduced = Scale.of_sizes([(450, 450), (600, 600)]), Scale.of_sizes([(224, 224)])
    assert (original.frame, reduced.frame) == (450, None)
    stated = Scale(reduced.sizes, 450)
    known = {
        name: [size for size in (224, 300, 450, 600, 700) if covers(scale, size)]
        for name, scale in (("original", original), ("reduced", reduced), ("stated", stated))
    }
    assert known == {"original": [450, 600], "reduced": [224], "stated": [224, 450, 600]}
    assert covers(reduced, 700, "cell")


def covers(scale: Scale, size: int, framing: Framing = "full") -> bool:
    return scale.view(Frame(32, framing), None, None).covers((size, size))


def test_a_larger_image_is_cropped_about_its_middle_without_cutting_the_cell(
    tmp_path: Path,
) -> None:
    for left, expected in ((40, 15), (80, 30), (0, 0)):
        pixels = np.zeros((100, 100, 3), np.uint8)
        pixels[30:50, left : left + 20] = 200
        Image.fromarray(pixels).save(tmp_path / "cell.png")
        decoded = decode(tmp_path / "cell.png", Frame(50, canvas=50))
        lit = decoded.pixels[..., 0] > 0
        assert (lit.sum(), int(lit.any(axis=0).argmax())) == (400, expected)
        assert (decoded.area, decoded.outside) == (400 / 2500, 0)
        assert decoded.at_border == (left in (0, 80))


@pytest.fixture
def mixed(tiny_folds: Path) -> Path:
    """Data set in which the second fold has larger frames."""
    for path in tiny_folds.glob("fold_1/*/*.bmp"):
        write_cell(path, size=48)
    return tiny_folds


MIXED = "images of 2 sizes (32 x 32: 8, 48 x 48: 8)"


@pytest.mark.parametrize("arguments", [["train"], ["train", "--dry-run"], ["synthesize"]])
def test_training_on_frames_of_several_sizes_is_refused_before_any_work(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    outputs = tmp_path / "out"
    data = ["data=cnmc", f"data.root={mixed}", f"outputs={outputs}"]
    assert main([*arguments, *data]) == 2
    message = capsys.readouterr().err
    assert MIXED in message
    assert "set data.frame=N if all show the same field of view" in message
    assert not outputs.exists() or not [path for path in outputs.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("statement", "field", "canvas"), [("frame=96", 96, None), ("pixel_size=2", 96, 48)]
)
def test_training_on_several_sizes_with_their_scale_stated(
    mixed: Path, tmp_path: Path, statement: str, field: int, canvas: int | None
) -> None:
    train(mixed, tmp_path / "out", f"data.{statement}", "split=random")
    record = Record.read(only_run(tmp_path / "out"))
    scale = record.data["scale"]
    assert (scale["frame"], scale["canvas"]) == (field, canvas)
    assert scale["sizes"] == [[32, 32], [48, 48]]
    # The disc's radius is a quarter of its frame, so that its share differs at equal pixel size.
    low, high = scale["areas"]
    assert high / low == pytest.approx(1 if canvas is None else (48 / 32) ** 2, rel=0.1)


def test_two_statements_of_one_field_are_refused(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(mixed, tmp_path / "out", "data.frame=96", "data.pixel_size=2") == 2
    message = capsys.readouterr().err
    assert "data.frame=96 and data.pixel_size=2: both define the field of view" in message


def test_the_audit_counts_sizes(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data", "data=cnmc", f"data.root={mixed}", f"outputs={tmp_path}/out", "split=random"]
    assert main(data) == 1
    assert capsys.readouterr().out.count(MIXED) == 1
    main([*data, "data.frame=96"])
    assert MIXED not in capsys.readouterr().out


def test_the_audit_counts_images_that_are_not_square(
    tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in tiny_folds.glob("fold_*/*/*.bmp"):
        with Image.open(path) as image:
            oblong = image.crop((0, 4, 32, 28))
        oblong.save(path)
    data = ["data", "data=cnmc", f"data.root={tiny_folds}", f"outputs={tmp_path}/out"]
    main([*data, "split=random"])
    assert "16 images are not square; they are padded with black" in capsys.readouterr().out
