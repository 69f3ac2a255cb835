"""``leuk synthesize`` through the real command line, reduced to seconds."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL_SYNTHESIS
from PIL import Image

from leuk.cli import main
from leuk.data.layouts import index_images
from leuk.runs import gan as gan_fit

Leuk = Callable[..., int]
Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("blank_figures")

SIDE = ["extractor.side=64"]
GANS = ("dcgan", "wgan", "cgan")


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def only_gan(outputs: Path) -> Path:
    (path,) = outputs.glob("artifacts/gan/*/gan.ckpt")
    return path


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, artifacts: Path
) -> tuple[Path, str, dict[str, str]]:
    """Outputs of a sweep over three GANs, the text printed, and each GAN's artifact by name."""
    outputs = tmp_path_factory.mktemp("trained")
    of_sweep = ["-m", "gan=dcgan,wgan,cgan", "name=three", f"outputs={outputs}"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        arguments = [*SMALL_SYNTHESIS, *SIDE, f"data.cache={artifacts}"]
        assert main(["synthesize", *of_sweep, *arguments]) == 0
    found = {}
    for gan in GANS:
        (path,) = outputs.glob(f"synthetic/three/{gan}-folds-s0-*/balanced/manifest.csv")
        (found[gan],) = pd.read_csv(path)["gan"].dropna().unique()
    return outputs, printed.getvalue(), found


@pytest.fixture
def copied(trained: tuple[Path, str, dict[str, str]], tmp_path: Path) -> dict[str, str]:
    """Artifacts of the GANs in a copy of the outputs, private to a test."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return trained[2]


def test_three_gans_write_all_documented_files(
    trained: tuple[Path, str, dict[str, str]],
) -> None:
    outputs, printed, artifacts = trained
    assert {path.name for path in outputs.glob("artifacts/gan/[!.]*")} == set(artifacts.values())
    assert len(set(artifacts.values())) == 3
    sweep = outputs / "synthetic/three"
    for gan in GANS:
        (folder,) = sweep.glob(f"{gan}-folds-s0-*")
        report = json.loads((folder / "quality.json").read_text())
        rows = report["quality"]["hem"]["rows"]
        assert set(rows) == {"synthetic", "real", "other_class", "black", "mean_image"}
        assert "fid" not in rows["synthetic"]
        for picture in ("images_hem.png", "closest_hem.png"):
            assert (folder / picture).stat().st_size > 3_000
    table = pd.read_csv(sweep / "table_2.csv")
    assert set(GANS) <= {name.split("-")[0] for name in table["set"]}
    assert (sweep / "table_2.md").read_text().strip() in printed
    assert "1.274" in printed  # the published FID of the thesis's DCGAN
    assert f"written to {sweep}" in printed
    with Image.open(sweep / "figure_8.png") as figure:
        assert figure.width > figure.height > 200


def test_balanced_set_is_readable_as_cnmc_with_the_origin_of_each_image(
    trained: tuple[Path, str, dict[str, str]],
) -> None:
    (folder,) = trained[0].glob("synthetic/three/dcgan-folds-s0-*/balanced")
    manifest = pd.read_csv(folder / "manifest.csv")
    counts = manifest["label"].value_counts()
    assert counts[0] == counts[1]
    images = index_images(folder)
    assert len(images) == len(manifest)
    joined = images.merge(manifest, left_on="path", right_on="file", suffixes=("", "_manifest"))
    assert (joined["label"] == joined["label_manifest"]).all()
    assert len(joined) == len(manifest)
    synthetic = manifest[manifest["origin"] == "synthetic"]
    assert set(synthetic["label"]) == {0}
    array = np.load(folder / "synthetic.npy")
    first = synthetic.iloc[0]
    pixels = np.asarray(Image.open(folder / first["file"]))
    np.testing.assert_array_equal(pixels, array[int(first["position"])])
    assert set(synthetic["gan"]) == {trained[2]["dcgan"]}
    assert manifest.loc[manifest["origin"] == "real", "subject"].notna().all()


@pytest.mark.parametrize("gan", ["dcgan", pytest.param("cgan", marks=pytest.mark.slow)])
def test_both_classes_in_equal_share(leuk: Leuk, tmp_path: Path, gan: str) -> None:
    override = ["augmentation.classes=[hem,all]", "augmentation.count=12"]
    assert leuk("synthesize", *SIDE, f"gan={gan}", "name=both", *override) == 0
    (folder,) = tmp_path.glob(f"synthetic/both/{gan}-*")
    manifest = pd.read_csv(folder / "balanced/manifest.csv")
    synthetic = manifest[manifest["origin"] == "synthetic"]
    assert synthetic["label"].value_counts().to_dict() == {0: 12, 1: 12}
    fitted = list(tmp_path.glob("artifacts/gan/*/gan.ckpt"))
    assert len(fitted) == (1 if gan == "cgan" else 2)
    assert set(json.loads((folder / "quality.json").read_text())["quality"]) == {"hem", "all"}


def test_killed_training_resumes_with_the_results_of_an_uninterrupted_one(
    start: Start, leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)  # as in the process
    overrides = [*SIDE, "gan_fit.epochs=8", "gan_fit.sample_every=8"]
    process = start("synthesize", tmp_path, *overrides)
    while not list(tmp_path.glob("artifacts/gan/.*.unfinished/checkpoints/[!.]*.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("artifacts/gan/*/gan.ckpt"))
    latest = max(tmp_path.glob("artifacts/gan/.*/checkpoints/[!.]*.ckpt"))
    torn = latest.with_name("epoch=99999.ckpt")
    torn.write_bytes(latest.read_bytes()[:1000])  # as a kill while writing leaves it
    assert leuk("synthesize", *overrides) == 0
    assert "resuming after epoch" in capsys.readouterr().out
    assert not list(tmp_path.glob("artifacts/gan/.*.unfinished"))
    resumed = weights(only_gan(tmp_path))
    shutil.rmtree(tmp_path / "artifacts/gan")
    assert leuk("synthesize", *overrides) == 0
    for key, value in weights(only_gan(tmp_path)).items():
        assert torch.equal(value, resumed[key]), key


def test_three_processes_train_a_shared_gan_once(start: Start, tmp_path: Path) -> None:
    settings = ("gan_fit.epochs=3", f"data.cache={tmp_path}/cache")
    processes = [start("synthesize", tmp_path, f"name=p{n}", *settings) for n in range(3)]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], printed
    assert sum("training leuk.gans.dcgan.DCGAN" in text for text in printed) == 1
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("synthetic/*/*/quality.json")]
    assert len(reports) == 3
    assert all(report["quality"] == reports[0]["quality"] for report in reports)


def test_damaged_gan_is_detected_and_trained_again(
    leuk: Leuk, tmp_path: Path, copied: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "artifacts/gan" / copied["dcgan"] / "gan.ckpt"
    before = weights(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255  # of the same size
    path.write_bytes(content)
    assert leuk("synthesize", *SIDE, "name=two") == 0
    assert "damaged or incomplete; building it again" in capsys.readouterr().out
    for key, value in weights(path).items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.resolution=48"], "data.resolution=48: the GANs need a multiple of 32, such as 64"),
        (["gan_fit.batch_size=500"], "set gan_fit.batch_size="),
        (["augmentation.classes=[healthy]"], "choose hem, all or both"),
        (["extractor=inception", "extractor.weights=/nowhere.pth"], "/nowhere.pth"),
        (["extractor=classifier", "extractor.run=/nowhere"], "name the folder of a finished run"),
    ],
)
def test_bad_input_has_a_remedy(
    leuk: Leuk,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    side = [] if any("extractor=" in o for o in overrides) else ["extractor.side=64"]
    assert leuk("synthesize", "name=bad", *side, *overrides) == 2
    assert message in capsys.readouterr().err


def test_class_that_the_training_stage_lacks(
    tmp_path: Path, tiny_folds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in tiny_folds.glob("fold_0/hem/*"):
        path.unlink()
    data = ["data=cnmc", f"data.root={tiny_folds}", "data.resolution=32", f"outputs={tmp_path}"]
    split = ["split.train=[fold_0]", "split.val=0.5", "split.test=[fold_1]"]
    assert main(["synthesize", *data, *split]) == 2
    assert "hem" in capsys.readouterr().err


def test_nonfinite_loss_stops_the_job_and_keeps_the_good_epochs(
    leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("synthesize", *SIDE, "name=nan", "gan.fitting.adversary_rate=1e38") == 2
    assert "the loss became NaN or infinite at generator update" in capsys.readouterr().err
    assert not list(tmp_path.glob("artifacts/gan/*/gan.ckpt"))


def test_gan_is_trained_once_for_all_commands_and_own_classifiers_are_extractors(
    leuk: Leuk, tmp_path: Path, copied: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(gan_fit, "limit_epochs", fail)
    assert leuk("train", "augmentation=dcgan", "name=c", "explain=none") == 0
    (run,) = tmp_path.glob("runs/c/cnn*")
    assert leuk("synthesize", "name=s", "extractor=classifier", f"extractor.run={run}") == 0
    (path,) = tmp_path.glob("synthetic/s/*/quality.json")
    quality = json.loads(path.read_text())["quality"]["hem"]
    assert quality["extractor"] == f"classifier {run.name}"
    rows = quality["rows"]
    assert rows["real"]["kernel_distance"] < rows["black"]["kernel_distance"]
