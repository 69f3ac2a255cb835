"""Images of another size than the training images: scaled, refused or referred."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_cell
from PIL import Image

from leuk.cli import main
from leuk.data.audit import audit
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Frame, Framing
from leuk.data.rules import RandomImages
from leuk.data.scale import Scale
from leuk.errors import ConfigError
from leuk.report.audit_page import audit_text
from leuk.runs.record import Record

pytestmark = pytest.mark.usefixtures("blank_figures")

FIELD = 64
"""Side in pixels of the original frames; the training files are reduced to half of it."""

TRAIN = ("data.resolution=32", "data.batch_size=16", "fit.epochs=1", "explain=none", "trainer=cpu")


@pytest.fixture(scope="module")
def small(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of frames reduced to half."""
    root = Path(shutil.copytree(phantom, tmp_path_factory.mktemp("small") / "data"))
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((FIELD // 2, FIELD // 2), Image.Resampling.LANCZOS).save(path)
    return root


@pytest.fixture(scope="module")
def stated(small: Path, tmp_path_factory: pytest.TempPathFactory, blank_figures: None) -> Path:
    """Run trained on the reduced frames with their field of view set."""
    outputs = tmp_path_factory.mktemp("stated")
    data = ["data=cnmc", f"data.root={small}", f"data.frame={FIELD}"]
    assert main(["train", f"outputs={outputs}", *data, *TRAIN]) == 0
    return next(outputs.glob("runs/single/*/record.json")).parent


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
                (folder / str(size)).mkdir(exist_ok=True)
                box = (-edge, -edge, size - edge, size - edge)
                image.crop(box).save(folder / str(size) / path.name)
    return {size: folder / str(size) for size in sizes}


def command(run: Path, images: Path, outputs: Path, *overrides: str) -> list[str]:
    quick = ["overlays=0", "page_images=3", "familiarity=false", "trainer=cpu"]
    return ["predict", f"run={run}", f"images={images}", f"outputs={outputs}", *quick, *overrides]


def predicted(outputs: Path, run: Path, images: Path, *overrides: str) -> pd.DataFrame:
    assert main(command(run, images, outputs, *overrides)) == 0
    (path,) = outputs.glob("predictions/*/*/predictions.csv")
    table = pd.read_csv(path)
    shutil.rmtree(outputs / "predictions")
    return table


@pytest.fixture(scope="module")
def original(
    stated: Path, frames: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    """Predictions for the original frames."""
    return predicted(tmp_path_factory.mktemp("original"), stated, frames[FIELD])


Predict = Callable[..., pd.DataFrame]
Refuse = Callable[..., str]


@pytest.fixture
def predict(tmp_path: Path, stated: Path) -> Predict:
    """Table of ``leuk predict`` for a folder, by the run with a field of view or another."""
    return lambda images, *overrides, run=stated: predicted(tmp_path, run, images, *overrides)


@pytest.fixture
def refuse(tmp_path: Path, stated: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Message of ``leuk predict`` for a folder that it refuses."""

    def message(images: Path, *overrides: str, run: Path = stated) -> str:
        assert main(command(run, images, tmp_path, *overrides)) == 2
        assert not (tmp_path / "predictions").exists()
        return capsys.readouterr().err

    return message


def test_the_scale_is_in_the_record_and_in_an_export(stated: Path, tmp_path: Path) -> None:
    record = Record.read(stated)
    scale = record.data["scale"]
    assert (scale["sizes"], scale["frame"], scale["input"]) == ([[32, 32]], FIELD, 32)
    low, high = scale["areas"]
    assert 0 < low < high < 1
    assert record.settings["data"]["frame"] == FIELD
    # Null is omitted, so that runs from before the key existed keep their fingerprints.
    assert "pixel_size" not in record.settings["data"]
    arguments = [f"run={stated}", f"outputs={tmp_path}", "format=torchscript", "name=x"]
    assert main(["export", *arguments]) == 0
    (path,) = tmp_path.glob("exports/x/**/model.json")
    exported = json.loads(path.read_text())["input"]["scale"]
    assert {key: exported[key] for key in ("sizes", "frame", "canvas", "areas")} == {
        **{key: scale[key] for key in ("sizes", "frame", "areas")},
        "canvas": None,
    }


@pytest.mark.parametrize("statement", ["pixel_size=1", "frame=100"])
def test_the_same_pixels_in_a_larger_frame_get_the_same_scores(
    frames: dict[int, Path], original: pd.DataFrame, predict: Predict, statement: str
) -> None:
    larger = predict(frames[100], statement)
    np.testing.assert_array_equal(larger["score"], original["score"])
    np.testing.assert_array_equal(larger["refer"], original["refer"])


def test_a_crop_gets_the_same_scores_where_it_cuts_no_cell(
    frames: dict[int, Path], original: pd.DataFrame, predict: Predict
) -> None:
    cropped = predict(frames[30], "pixel_size=1")
    whole = ~cropped["why"].fillna("").str.contains("its cell is cut by the border of the image")
    assert 5 < whole.sum() < len(whole)
    np.testing.assert_array_equal(cropped["score"][whole], original["score"][whole])
    assert cropped["refer"][~whole].all()


def test_frames_of_an_unknown_scale_are_refused(frames: dict[int, Path], refuse: Refuse) -> None:
    count = len(list(frames[100].iterdir()))
    message = refuse(frames[100])
    assert f"{count} of {count} images (100 x 100: {count}) do not have the size" in message
    assert "frame=same" in message
    assert "pixel_size=P" in message
    assert "its field of view would be" in refuse(frames[100], "frame=0.01")


def test_original_frames_need_a_statement_where_training_had_none(
    run: Path, frames: dict[int, Path], predict: Predict, refuse: Refuse
) -> None:
    record = Record.read(run)
    record.data["scale"]["frame"] = None
    record.write(run)
    refuse(frames[FIELD], run=run)
    message = refuse(frames[FIELD], "pixel_size=1", run=run)
    assert "pixel_size=1.0: the field of view of the run's training images is unknown" in message
    assert "train again with data.frame=N" in message
    assert predict(frames[FIELD], "frame=same", run=run)["score"].notna().all()


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
    frames: dict[int, Path],
    original: pd.DataFrame,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (original["scale"] == "doubtful").mean() < 0.2
    wrong = predict(frames[100], "frame=same")
    assert wrong["refer"].all()
    assert (wrong["scale"] == "doubtful").all()
    message = " ".join(capsys.readouterr().out.split())
    assert "smaller or larger than that of any training image" in message


@pytest.mark.parametrize(
    ("frame", "pixel_size", "message"),
    [
        ("wide", None, "frame=wide: not a field of view; set same or a number above 0"),
        ("0", None, "frame=0: not a field of view"),
        (None, -1.0, "pixel_size=-1.0: not a field of view; set a number above 0"),
        ("same", 1.0, "frame=same and pixel_size=1: both define the field"),
    ],
)
def test_an_impossible_field_of_view_is_refused(
    frame: str | None, pixel_size: float | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Scale(((32, 32),), FIELD).view(Frame(32), frame, pixel_size)


def test_no_image_is_squashed(
    frames: dict[int, Path], predict: Predict, refuse: Refuse, tmp_path: Path
) -> None:
    for name in ("oblong", "square"):
        (tmp_path / name).mkdir()
    for path in frames[FIELD].iterdir():
        with Image.open(path) as image:
            oblong = image.crop((0, 8, FIELD, FIELD - 8))
        oblong.save(tmp_path / "oblong" / path.name)
        oblong.crop((0, -8, FIELD, FIELD - 8)).save(tmp_path / "square" / path.name)
    refuse(tmp_path / "oblong")
    oblong, square = (
        predict(tmp_path / name, "frame=same")["score"] for name in ("oblong", "square")
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


def test_fields_of_view_from_sizes() -> None:
    original, reduced = Scale.of_sizes([(450, 450), (600, 600)]), Scale.of_sizes([(224, 224)])
    assert (original.frame, reduced.frame) == (450, None)

    def covered(scale: Scale, framing: Framing = "full") -> list[int]:
        view = scale.view(Frame(32, framing), None, None)
        return [size for size in (224, 300, 450, 600, 700) if view.covers((size, size))]

    assert covered(original) == [450, 600]
    assert covered(reduced) == [224]
    assert covered(Scale(reduced.sizes, 450)) == [224, 450, 600]
    assert covered(reduced, "cell") == [224, 300, 450, 600, 700]


@pytest.fixture
def mixed(tiny_folds: Path) -> Path:
    """Data set in which the second fold has larger frames."""
    for path in tiny_folds.glob("fold_1/*/*.bmp"):
        write_cell(path, size=48)
    return tiny_folds


@pytest.mark.parametrize("arguments", [["train"], ["train", "--dry-run"], ["synthesize"]])
def test_training_on_frames_of_several_sizes_is_refused_before_any_work(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    command = [*arguments, "data=cnmc", f"data.root={mixed}", f"outputs={tmp_path}/out"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "images of 2 sizes (32 x 32: 8, 48 x 48: 8)" in message
    assert "set data.frame=N if all show the same field of view" in message
    assert not [path for path in tmp_path.glob("out/**/*") if path.is_file()]
    assert main([*command, "data.frame=96", "data.pixel_size=2"]) == 2
    message = capsys.readouterr().err
    assert "data.frame=96 and data.pixel_size=2: both define the field of view" in message


@pytest.mark.parametrize(("statement", "canvas"), [({"frame": 96}, None), ({"pixel_size": 2}, 48)])
def test_training_on_several_sizes_with_their_scale_stated(
    mixed: Path, tmp_path: Path, statement: dict[str, float], canvas: int | None
) -> None:
    cache = str(tmp_path / "cache")
    data = CNMCDataModule(str(mixed), RandomImages(), 32, cache=cache, **statement)
    data.setup()
    scale = data.scale()
    assert (scale.frame, scale.canvas, scale.sizes) == (96, canvas, ((32, 32), (48, 48)))
    # The disc's radius is a quarter of its frame, so that its share differs at equal pixel size.
    low, high = scale.areas or (0, 0)
    assert high / low == pytest.approx(1 if canvas is None else (48 / 32) ** 2, rel=0.1)


def test_the_audit_counts_sizes_and_images_that_are_not_square(mixed: Path, tmp_path: Path) -> None:
    path = next(mixed.glob("fold_0/all/*.bmp"))
    with Image.open(path) as image:
        image.crop((0, 4, 32, 28)).save(path)
    found = audit(mixed, Frame(16), tmp_path / "cache")
    kinds = {problem.kind: str(problem) for problem in found.problems}
    assert "images of 3 sizes (48 x 48: 8, 32 x 32: 7, 32 x 24: 1)" in kinds["mixed sizes"]
    assert "32 x 24 pixels; usual size: 32 x 32" in kinds["odd size"]
    assert audit(mixed, Frame(16), tmp_path / "cache", mixed=True).problems == []
    assert "1 images are not square; they are padded with black" in audit_text(found)
