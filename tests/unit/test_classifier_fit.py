"""Training and prediction of all classifiers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from small_classifiers import FORMS, Squares, small, trainer_for
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from leuk.classifiers.optim import Optim
from leuk.errors import StoreError, TrainingError
from leuk.runs.trainer import last_readable, memory_errors, read_checkpoint
from leuk.training import WeightEMA


class Stop(Callback):
    """Callback that stops training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch and trainer.fit_loop.batch_idx == 1:
            raise KeyError("stopped")


RECIPES = {
    "constant": Optim(1e-2),
    "cosine": Optim(1e-2, weight_decay=0.1, schedule="cosine", warmup_epochs=1),
    "plateau": Optim(1e-2, schedule="plateau", plateau_patience=1),
}


@pytest.mark.parametrize(
    ("name", "recipe", "averaged"),
    [
        ("cnn", "constant", True),
        ("cnn", "plateau", False),
        ("vit", "plateau", True),
        ("hybrid", "cosine", True),
    ],
)
def test_resumed_fit_gives_the_weights_of_an_uninterrupted_fit(
    name: str, recipe: str, averaged: bool, tmp_path: Path
) -> None:
    def fitted(folder: Path, *more: Callback, resume: Path | None = None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = small(name, RECIPES[recipe])
        callbacks: list[Callback] = [WeightEMA(0.9)] if averaged else []
        keep = ModelCheckpoint(folder, filename="{epoch:05d}", save_on_train_epoch_end=True)
        trainer = trainer_for(folder, [*callbacks, *more, keep], max_epochs=5)
        squares = Squares(moved=True)
        squares.images_per_epoch = 20  # of 29: an epoch starts at the image where the last ended
        trainer.fit(model, datamodule=squares, ckpt_path=resume, weights_only=True)
        return model.state_dict()

    whole = fitted(tmp_path / "whole")
    with pytest.raises(KeyError):
        fitted(tmp_path / "interrupted", Stop(epoch=3))
    stopped = last_readable(tmp_path / "interrupted")
    assert stopped is not None
    assert stopped.name == "epoch=00002.ckpt"
    again = fitted(tmp_path / "interrupted", resume=stopped)
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key


class Waits(TorchDispatchMode):
    """Count of operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FORMS)
def test_no_batch_waits_for_the_device(name: str, tmp_path: Path) -> None:
    counts = []
    for train in (16, 64):
        with Waits() as waits:
            optim = Optim(weight_decay=0.1, schedule="cosine", label_smoothing=0.1)
            trainer = trainer_for(
                tmp_path, [WeightEMA()], max_epochs=1, precision="bf16-mixed", limit_val_batches=0
            )
            trainer.fit(small(name, optim), datamodule=Squares(4, moved=True, train=train))
        counts.append(waits.count)
    assert counts[0] == counts[1]


def test_a_wait_would_be_counted() -> None:
    with Waits() as waits:
        torch.ones(3).sum().item()
    assert waits.count == 1


def test_non_finite_loss_stops_training_and_names_its_step(tmp_path: Path) -> None:
    class Break(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 2:
                next(pl_module.parameters()).data.fill_(float("nan"))

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    # With seven batches per epoch, the third batch of the second epoch is step 9.
    with pytest.raises(TrainingError, match="became NaN or infinite at step 9;"):
        trainer_for(tmp_path, [Break(), keep]).fit(small("cnn"), datamodule=Squares())
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["epoch=0.ckpt"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_out_of_memory_error_suggests_a_batch_size(error: RuntimeError) -> None:
    with (
        pytest.raises(TrainingError, match=r"data\.batch_size=64; try data\.batch_size=32"),
        memory_errors("data.batch_size", 64),
    ):
        raise error


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("data.batch_size", 64):
        raise RuntimeError("shapes do not fit")


STAMP = {"form": "CNN", "settings": "s1", "data": "d1"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint with this stamp."""
    folder = tmp_path_factory.mktemp("saved")
    model = small("cnn")
    model.stamp |= STAMP
    trainer = trainer_for(folder, max_epochs=1)
    trainer.fit(model, datamodule=Squares())
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder / "best.ckpt"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"form": "ViT"}, "of another model .form CNN, not ViT."),
        ({"settings": "s2"}, "trained with other settings .*name=NAME"),
        ({"data": "d2"}, "trained on other data .data d1, not d2."),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    saved: Path, changed: dict[str, str], message: str
) -> None:
    assert "state_dict" in read_checkpoint(saved, STAMP)
    with pytest.raises(StoreError, match=f"best.ckpt: {message}"):
        read_checkpoint(saved, STAMP | changed)


def test_truncated_checkpoint_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"best\.ckpt: no readable checkpoint"):
        read_checkpoint(path, {})
    assert last_readable(tmp_path) is None


def test_bf16_ranks_images_as_float32_does(tmp_path: Path) -> None:
    aurocs = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        trainer = trainer_for(tmp_path, max_epochs=3, precision=precision)
        trainer.fit(small("hybrid"), datamodule=Squares())
        aurocs.append(float(trainer.callback_metrics["val/auroc"]))
    assert aurocs[1] == pytest.approx(aurocs[0], abs=0.05)


HELPERS = Path(__file__).parents[1] / "helpers"

TWO_PROCESSES = """
import atexit
import sys
import torch
from pathlib import Path
from torch import distributed
from leuk.training import EndsProcessGroup
from small_classifiers import Squares, Optim, small, trainer_for

if __name__ == "__main__":
    folder, processes, *names = sys.argv[1:]
    several = processes != "1"
    # The function registered first is called last.
    atexit.register(lambda: Path(folder, f"{trainer.global_rank}-of-{processes}").write_text(
        "open" if distributed.is_initialized() else "closed"))
    for name in names:
        plain = {"dropout": 0.0} if name == "vit" else {}
        how = {"devices": int(processes), "strategy": "ddp" if several else "auto"}
        trainer = trainer_for(folder, [EndsProcessGroup()], **how, max_epochs=10,
                              use_distributed_sampler=False)
        torch.manual_seed(0)
        fitted = small(name, Optim(1e-3), **plain)
        trainer.fit(fitted, datamodule=Squares(8, train=32))
        torch.manual_seed(1)
        results = {}
        # 19 images, which two processes cannot share evenly.
        for key, model in (("fitted", fitted), ("same", small(name))):
            trainer.test(model, datamodule=Squares(8, train=32), verbose=False)
            found = model.collected()
            results |= {f"{key}_rows": found.rows, f"{key}_scores": found.scores}
            trainer.validate(model, datamodule=Squares(8, train=32), verbose=False)
            results[f"{key}_prior_free"] = trainer.callback_metrics["val/prior_free_loss"]
        if trainer.is_global_zero:
            torch.save(results, f"{folder}/{name}-{processes}.pt")
"""


@pytest.fixture(scope="module")
def fitted_by_one_and_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of two forms by one and by two processes, as ``<form>-<processes>.pt``."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "two.py"
    script.write_text(TWO_PROCESSES)
    for processes in (1, 2):
        done = subprocess.run(
            [sys.executable, str(script), str(folder), str(processes), "cnn", "vit"],
            env={**os.environ, "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_two_processes_predict_and_train_as_one(name: str, fitted_by_one_and_two: Path) -> None:
    one, two = (
        torch.load(fitted_by_one_and_two / f"{name}-{processes}.pt", weights_only=True)
        for processes in (1, 2)
    )
    for key in ("same", "fitted"):
        assert one[f"{key}_rows"].tolist() == two[f"{key}_rows"].tolist() == list(range(32, 51))
    torch.testing.assert_close(one["same_scores"], two["same_scores"], atol=1e-6, rtol=0)
    torch.testing.assert_close(one["same_prior_free"], two["same_prior_free"], atol=1e-6, rtol=0)
    if name == "vit":  # no batch statistics, so two half batches equal a whole one
        assert one["fitted_scores"].std() > 0.1
        torch.testing.assert_close(one["fitted_scores"], two["fitted_scores"], atol=1e-4, rtol=0)


def test_processes_close_their_group_before_they_end(fitted_by_one_and_two: Path) -> None:
    ends = {file.name: file.read_text() for file in fitted_by_one_and_two.glob("*-of-*")}
    assert ends == {"0-of-1": "closed", "0-of-2": "closed", "1-of-2": "closed"}
