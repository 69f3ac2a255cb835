"""Losses, optimizers, schedules, scores and criteria of classifiers, checked by hand.

The logits of ``Known`` follow from the pixels: an image of (red, green) from 0 to 255 has the
logits gain * (ln red, ln green), so with gain 1 its probability of leukemia is
green / (red + green).
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer
from small_classifiers import Squares, follows_keras, small, trainer_for
from torch import Tensor, nn

from leuk.classifiers.base import Classifier, dihedral
from leuk.classifiers.optim import Optim, build_optimizer, schedule_of
from leuk.classifiers.pretrained import Pretrained
from leuk.config import conf_dir
from leuk.config.schema import register
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule, ImageBatches
from leuk.data.pixels import PixelBank
from leuk.errors import LeukError, TrainingError
from leuk.metrics.calibration import prior_free_loss
from leuk.runs.record import Record
from leuk.runs.run import register_resolvers

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


class Known(Classifier):
    def __init__(self, optim: Optim = Optim(), cost: float = 0.0) -> None:
        super().__init__(optim)
        self.gain = nn.Parameter(torch.ones(1))
        self.cost = cost

    def features(self, images: Tensor) -> Tensor:
        return (images[:, :2].mean(dim=(2, 3)) * 255).log()

    def logits(self, features: Tensor) -> Tensor:
        return self.gain * features

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), self.gain.new_tensor(self.cost)

    @property
    def cam_layer(self) -> nn.Module:
        return nn.Identity()

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


class Pixels(ImageBatches):
    """Images of constant (red, green); the same images train and validate, in order."""

    def __init__(self, colors: list[tuple[int, int]], labels: list[int]) -> None:
        pixels = np.zeros((len(labels), 4, 4, 3), np.uint8)
        pixels[..., :2] = np.array(colors)[:, None, None]
        rows = np.arange(len(labels))
        super().__init__(PixelBank([pixels], np.array(labels)), rows, batch_size=len(labels))

    def val_dataloader(self) -> Any:
        return self._loader(self.train)


TWO = Pixels([(5, 5), (1, 3)], [0, 1])
"""Images with leukemia probabilities 1/2 and 3/4, i.e. losses ln 2 and ln 4/3."""


def logged(model: Classifier, data: ImageBatches, folder: Path) -> dict[str, float]:
    """Metrics logged by an epoch of training and validation."""
    trainer = trainer_for(folder, max_epochs=1)
    trainer.fit(model, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(
    ("smoothing", "weights", "cost", "expected"),
    [
        (0.0, (1.0, 1.0), 0.0, (LN2 + LN4 - LN3) / 2),
        (0.0, (1.0, 1.0), 0.25, (LN2 + LN4 - LN3) / 2 + 0.25),
        # A mean weighted by class.
        (0.0, (2.0, 0.5), 0.0, (2 * LN2 + 0.5 * (LN4 - LN3)) / 2.5),
        # Targets of 0.9 and 0.1.
        (0.2, (1.0, 1.0), 0.0, (LN2 + 0.9 * (LN4 - LN3) + 0.1 * LN4) / 2),
        (
            0.2,
            (2.0, 0.5),
            0.0,
            (1.8 * LN2 + 0.05 * LN2 + 0.45 * (LN4 - LN3) + 0.2 * LN4) / 2.5,
        ),
    ],
    ids=["plain", "form", "weights", "smoothing", "both"],
)
def test_training_loss(
    smoothing: float,
    weights: tuple[float, float],
    cost: float,
    expected: float,
    tmp_path: Path,
) -> None:
    model = Known(Optim(1e-9, label_smoothing=smoothing), cost)
    model.weigh_by(weights)
    found = logged(model, TWO, tmp_path)
    assert found["train/loss"] == pytest.approx(expected, abs=1e-6)
    assert found["val/auroc"] == 1
    # The validation loss has no weights, smoothing or additional loss.
    assert found["val/loss"] == pytest.approx((LN2 + LN4 - LN3) / 2, abs=1e-6)


def test_gradient_of_the_training_loss_is_a_mean(tmp_path: Path) -> None:
    model = Known(Optim(1e-9))
    gradients: list[float] = []
    model.gain.register_hook(lambda gradient: gradients.append(float(gradient)))
    logged(model, TWO, tmp_path)
    # d/dgain of the mean of ln(1 + 1), which is constant, and ln(1 + 3^-gain).
    assert gradients == [pytest.approx(-0.25 * LN3 / 2)]


def test_prior_free_loss_by_hand() -> None:
    # By symmetry the best shift gives -1 and +1: both losses are ln(1 + 1/e).
    expected = math.log1p(math.exp(-1))
    assert prior_free_loss(np.array([5.0, 7.0]), np.array([0, 1])) == pytest.approx(expected)
    # Nine copies of an image do not change the mean of its class.
    many = np.array([5.0] * 9 + [7.0])
    assert prior_free_loss(many, np.array([0] * 9 + [1])) == pytest.approx(expected)
    assert prior_free_loss(np.array([3.0, 3.0, 3.0]), np.array([0, 0, 1])) == pytest.approx(LN2)
    # With reversed labels no shift helps.
    assert prior_free_loss(np.array([5.0, 7.0]), np.array([1, 0])) == pytest.approx(1 + expected)


def test_prior_free_loss_is_invariant_to_a_constant() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 80)
    # Binary fractions, so that adding whole numbers causes no rounding.
    log_odds = np.round(random.normal(2 * labels, 3) * 1024) / 1024
    losses = {prior_free_loss(log_odds + constant, labels) for constant in (0, -3, 8, 500)}
    assert len(losses) == 1


@pytest.mark.parametrize(
    ("log_odds", "labels"), [([0.0, math.nan], [0, 1]), ([0.0, math.inf], [0, 1]), ([0.0], [1])]
)
def test_prior_free_loss_is_nan_without_finite_values_of_both_classes(
    log_odds: list[float], labels: list[int]
) -> None:
    assert math.isnan(prior_free_loss(np.array(log_odds), np.array(labels)))


def test_logged_criterion_covers_the_whole_validation_set(tmp_path: Path) -> None:
    # Log odds 0 and ln 9, in two batches with a class each; the best shift is -ln 3.
    data = Pixels([(5, 5), (1, 9)], [0, 1])
    data.batch_size = 1
    found = logged(Known(Optim(1e-9)), data, tmp_path)
    assert found["val/prior_free_loss"] == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert found["val/loss"] == pytest.approx((LN2 + math.log(10 / 9)) / 2, abs=1e-6)
    # Nine times the odds, as after training on nine times as many leukemic images.
    shifted = Pixels([(5, 45), (1, 81)], [0, 1])
    found_shifted = logged(Known(Optim(1e-9)), shifted, tmp_path)
    assert found_shifted["val/prior_free_loss"] == pytest.approx(found["val/prior_free_loss"])
    assert found_shifted["val/loss"] > 1.7 * found["val/loss"]


def test_optimizer_gets_its_settings() -> None:
    matrix, vector, other = (nn.Parameter(torch.ones(*s)) for s in ((2, 2), (2,), (3, 3)))
    optim = Optim(learning_rate=0.02, weight_decay=0.3)
    optimizer = build_optimizer(optim, [([matrix, vector], 1.0), ([other], 0.1)])
    found = [(g["lr"], g["weight_decay"], g["betas"], g["params"]) for g in optimizer.param_groups]
    assert [group[:3] for group in found] == [
        (0.02, 0.3, (0.9, 0.999)),
        (0.02, 0.0, (0.9, 0.999)),
        (pytest.approx(0.002), 0.3, (0.9, 0.999)),
    ]
    assert [group[3][0] is p for group, p in zip(found, (matrix, vector, other), strict=True)]
    assert type(optimizer) is torch.optim.AdamW
    assert type(build_optimizer(Optim(), [([other], 1.0)])) is torch.optim.Adam


def test_first_step_moves_by_the_rate_and_decays_only_matrices() -> None:
    matrix, vector = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(Optim(0.1, weight_decay=0.5), [([matrix, vector], 1.0)])
    (4 * matrix - 3 * vector).sum().backward()
    optimizer.step()
    # Decay subtracts 0.1 * 0.5, then Adam's first step is the rate, against the gradient.
    assert float(matrix.detach()) == pytest.approx(1 - 0.05 - 0.1, abs=1e-6)
    assert float(vector.detach()) == pytest.approx(1 + 0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Ten steps of warm-up, then 0.01 + 0.99 (1 + cos(pi done)) / 2 of 100 steps.
        ("cosine", {0: 1 / 11, 9: 10 / 11, 10: 1.0, 35: 0.855018, 60: 0.505, 110: 0.01}),
        ("constant", {0: 1 / 11, 9: 10 / 11, 10: 1.0, 60: 1.0, 110: 1.0}),
    ],
)
def test_rates_of_steps(schedule: str, expected: dict[int, float]) -> None:
    optim = Optim(0.5, schedule=schedule, warmup_epochs=1.0)  # type: ignore[arg-type]
    weights = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    groups = [(weights[:1], 1.0), (weights[1:], 0.1)]
    optimizer = build_optimizer(optim, groups)
    changing = schedule_of(optim, optimizer, epochs=11, steps=110)
    for step in range(111):
        if step in expected:
            rates = [group["lr"] for group in optimizer.param_groups]
            assert rates == pytest.approx([0.5 * expected[step], 0.05 * expected[step]], rel=1e-5)
        optimizer.step()
        changing.step()


def test_rates_change_with_every_step_of_a_fit(tmp_path: Path) -> None:
    rates: list[float] = []

    class Note(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    data = Pixels([(5, 5), (1, 3)], [0, 1])
    data.batch_size = 1
    model = Known(Optim(1e-3, schedule="cosine"))
    trainer_for(tmp_path, [Note()], max_epochs=2).fit(model, datamodule=data)
    # Four steps: done 0, 1/4, 1/2, 3/4.
    shares = [1.0, 0.855018, 0.505, 0.154982]
    assert rates == pytest.approx([1e-3 * share for share in shares], rel=1e-5)


def test_predictions_are_in_the_order_of_rows_and_each_once() -> None:
    """As padded by a distributed sampler: row 7 comes twice."""
    model = Known()
    model._trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    for rows, odds, labels in (((7, 2), (3.0, 1.0), (1, 0)), ((7, 4), (3.0, 9.0), (1, 1))):
        logits = torch.tensor([[0.0, math.log(one)] for one in odds])
        model._collected.append((torch.tensor(rows), logits, torch.tensor(labels)))
    found = model.collected()
    assert found.rows.tolist() == [2, 4, 7]
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.5, 0.9, 0.75])


def test_frozen_epochs_train_only_the_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    optim = Optim(1e-2, weight_decay=0.1, frozen_epochs=1)
    model = Pretrained(32, "test_efficientnet", weights="none", side=32, optim=optim)
    states: list[dict[str, Tensor]] = []

    class Note(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            states.append({k: v.clone() for k, v in model.state_dict().items()})

        on_fit_end = on_train_epoch_start

    data = Pixels([(5, 5), (1, 3), (200, 9), (7, 80)], [0, 1, 0, 1])
    data.bank = PixelBank(
        [np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)], np.arange(4) % 2
    )
    trainer_for(tmp_path, [Note()], max_epochs=2).fit(model, datamodule=data)
    start, frozen, end = states

    def moved(before: dict[str, Tensor], after: dict[str, Tensor], module: str) -> set[bool]:
        return {not torch.equal(before[k], after[k]) for k in before if k.startswith(module)}

    assert moved(start, frozen, "backbone") == {False}
    assert moved(start, frozen, "head") == {True}
    assert moved(frozen, end, "backbone.conv_stem.weight") == {True}


@pytest.mark.parametrize("recipe", ["small", "strong", "thesis"])
def test_criterion_and_layers_of_each_recipe(recipe: str) -> None:
    register()
    register_resolvers()
    published = {"cnn": "val/loss", "hybrid": "val/loss", "vit": "val/auroc"}
    for model in (*published, "pretrained"):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            chosen = [f"model={model}", f"recipe={recipe}"]
            cfg = compose("train", chosen, return_hydra_config=True)
        thesis = recipe == "thesis"
        monitor = published.get(model, "val/auroc") if thesis else "val/prior_free_loss"
        assert (cfg.fit.monitor, cfg.fit.equal_updates) == (monitor, not thesis)
        assert cfg.fit.mode == ("max" if monitor == "val/auroc" else "min")
        if model != "pretrained":
            with torch.device("meta"):
                built: Any = instantiate(cfg.model)
            assert built.stack == built.hparams["stack"] == ("keras" if thesis else "torch")
            assert follows_keras(built) == thesis


def test_plateau_lowers_the_rate(tmp_path: Path) -> None:
    # The rate is too small to change the weights, and the ViT has no running statistics: the
    # validation loss is constant, and the rate falls after every epoch but the first.
    optim = Optim(1e-12, schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    trainer = trainer_for(tmp_path, max_epochs=8)
    trainer.fit(small("vit", optim), datamodule=Squares())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-12 / 2**7, abs=0)


def test_eight_views_are_all_turns_and_flips() -> None:
    image = torch.arange(4.0).view(1, 1, 2, 2)
    views = dihedral(image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8


@pytest.mark.parametrize("during", ["validate", "test"])
def test_views_are_averaged_wherever_images_are_scored(during: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small("cnn", Optim(1e-9, test_views=8)).eval()
    squares = Squares()
    getattr(trainer_for(tmp_path), during)(model, datamodule=squares, verbose=False)
    images = squares.bank.gather(torch.tensor(squares.held), torch.device("cpu"))["images"]
    with torch.no_grad():
        mean = torch.stack([model(view) for view in dihedral(images)]).mean(0)
    expected = mean.double().softmax(1)[:, 1]
    torch.testing.assert_close(model.collected().scores, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(expected, model(images).double().softmax(1)[:, 1], atol=1e-6)


def test_weights_broken_by_the_last_step_raise_an_error(tmp_path: Path) -> None:
    model = small("cnn")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    trainer_for(tmp_path).test(model, datamodule=Squares(), verbose=False)
    with pytest.raises(TrainingError, match=r"no finite scores.*lower model\.optim\.learning_rate"):
        model.collected()


@dataclass(frozen=True)
class Fit:
    """Results of a fit by the real command line, stopped before evaluation."""

    data: CNMCDataModule
    classifier: Classifier
    folder: Path

    @property
    def record(self) -> Record:
        return Record.read(self.folder)

    @property
    def checkpoint(self) -> dict[str, Any]:
        kept: dict[str, Any] = torch.load(self.folder / "checkpoints/best.ckpt", weights_only=True)
        return kept

    @property
    def logged(self) -> list[dict[str, str]]:
        """Validation rows of the log, in the order of epochs."""
        with (self.folder / "log/metrics.csv").open() as file:
            return [row for row in csv.DictReader(file) if row["val/prior_free_loss"]]


@pytest.fixture
def fit(leuk: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    def run(*overrides: str) -> Fit:
        fits: list[Fit] = []

        def keep(cfg: Any, folder: Path, data: Any, scorer: Any, run: Any) -> None:
            fits.append(Fit(data, scorer.classifier, folder))
            raise LeukError("stopped before evaluation")

        monkeypatch.setattr("leuk.runs.train.evaluate", keep)
        leuk("train", "explain=none", *overrides)
        (done,) = fits
        return done

    return run


def test_class_weights_and_statistics_of_training_images_reach_the_fit(
    fit: Callable[..., Fit],
) -> None:
    done = fit("name=weights", "augmentation=class_weights", "fit.epochs=4")
    rows = done.data.split.train
    healthy, leukemic = np.bincount(done.data.bank.labels.numpy()[rows])
    kept = done.checkpoint["state_dict"]
    by_hand = [len(rows) / (2 * healthy), len(rows) / (2 * leukemic)]
    assert by_hand[0] > 1 > by_hand[1]
    assert kept["class_weights"].tolist() == pytest.approx(by_hand)
    pixels = done.data.dataset.data[rows] / 255
    np.testing.assert_allclose(kept["mean"].flatten(), pixels.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(kept["std"].flatten(), pixels.std(axis=(0, 1, 2)), rtol=1e-5)
    whole = done.data.dataset.data / 255
    assert not np.allclose(kept["mean"].flatten(), whole.mean(axis=(0, 1, 2)), rtol=1e-5)
    # The best checkpoint is that of the epoch with the lowest criterion.
    losses = [float(row["val/prior_free_loss"]) for row in done.logged]
    assert done.checkpoint["epoch"] == losses.index(min(losses))
    for key, value in done.classifier.state_dict().items():
        assert torch.equal(value, kept[key]), key


def test_number_of_updates_is_equal_for_all_augmentations(fit: Callable[..., Fit]) -> None:
    done = fit("augmentation=oversample", "fit.epochs=1")
    images = len(done.data.split.train)
    assert done.checkpoint["global_step"] == images // 16 < len(done.data.train) // 16
    epoch = done.record.data["epoch"]
    assert sum(epoch.values()) == pytest.approx(images)
    assert epoch["all"] == pytest.approx(epoch["hem"])
