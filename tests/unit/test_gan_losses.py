"""Losses, optimizers and updates of the GANs, compared with values computed by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from small_gans import FORMS, fit, small
from torch import Tensor, nn

from leuk.gans.base import Adversarial, Fitting
from leuk.gans.diffaugment import DiffAugment
from leuk.runs.gan import limit_epochs

SIDE = 32
PIXELS = 3 * SIDE * SIDE
WEIGHT = 0.03
NORM = WEIGHT * PIXELS**0.5  # 1.6628, the norm of a score's gradient with respect to its image

SCORES = torch.tensor([[0.0], [np.log(3.0)]])  # sigmoids 1/2 and 3/4


class Mean(nn.Module):
    """Adversary that scores each image by its mean, plus 10 for label 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, labels: Tensor | None = None, alone: bool = False) -> Tensor:
        self.seen.append(images.detach().clone())
        scores = self.factor * images.flatten(1).mean(dim=1, keepdim=True)
        return scores if labels is None else scores + 10.0 * labels[:, None]


class Sum(Mean):
    """Adversary that scores each image by ``WEIGHT`` times its sum, with gradient norm ``NORM``."""

    def forward(self, images: Tensor, labels: Tensor | None = None, alone: bool = False) -> Tensor:
        return super().forward(images, labels, alone) * PIXELS * WEIGHT


def filled(*values: float) -> Tensor:
    """Constant images ``(B, 3, SIDE, SIDE)`` of the given B values."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).clone()


def with_adversary(name: str, adversary: nn.Module, **changes: Any) -> Adversarial:
    gan = small(name, dropout=0.0, **changes)
    setattr(gan, gan.ADVERSARY, adversary)
    return gan


LABELS = torch.tensor([0, 1])


class TestLosses:
    def test_dcgan(self) -> None:
        """Real scores ln 3 and 0, synthetic -ln 3 and 0: -log of 3/4, 1/2 and 3/4, 1/2."""
        gan = with_adversary("dcgan", Mean())
        found = gan.adversary_loss(filled(np.log(3), 0), filled(-np.log(3), 0), LABELS)
        assert float(found) == pytest.approx(0.980829, abs=1e-5)  # 2 x (0.287682 + 0.693147) / 2

    @pytest.mark.parametrize("networks", ["plain", "strong"])
    def test_dcgan_generator_does_not_saturate(self, networks: str) -> None:
        found = small("dcgan", networks=networks).generator_loss(SCORES)
        assert float(found) == pytest.approx(0.490415, abs=1e-5)  # (ln 2 + ln 4/3) / 2

    def test_cgan_with_plain_networks(self) -> None:
        gan = with_adversary("cgan", Mean())
        found = gan.adversary_loss(
            filled(np.log(3), -10.0), filled(-np.log(3), -10.0), LABELS
        )  # the second image of each pair scores 0 with its label, -10 without it
        assert float(found) == pytest.approx(0.980829, abs=1e-5)
        assert float(gan.generator_loss(SCORES)) == pytest.approx(0.490415, abs=1e-5)

    def test_cgan_with_strong_networks_is_hinge(self) -> None:
        gan = with_adversary("cgan", Mean(), networks="strong")
        # Real scores 0.25 and 2: hinges 0.75 and 0. Synthetic -0.5 and -3: 0.5 and 0.
        found = gan.adversary_loss(filled(0.25, -8.0), filled(-0.5, -13.0), LABELS)
        assert float(found) == pytest.approx(0.375 + 0.25)
        assert float(gan.generator_loss(SCORES)) == pytest.approx(-0.549306, abs=1e-5)

    @pytest.mark.parametrize("networks", ["plain", "strong"])
    def test_wgan(self, networks: str) -> None:
        """Mean scores are 2 and -0.5; the gradient norm is 1 / sqrt(3072) = 0.018042 everywhere."""
        gan = with_adversary("wgan", Mean(), networks=networks, penalty=7.0)
        found = gan.adversary_loss(filled(1.0, 3.0), filled(0.0, -1.0), LABELS)
        assert float(found) == pytest.approx(-2.5 + 7 * 0.964241, abs=1e-4)
        assert float(gan.generator_loss(SCORES)) == pytest.approx(-0.549306, abs=1e-5)

    def test_wgan_penalizes_steep_slopes_too(self) -> None:
        gan = with_adversary("wgan", Sum(), penalty=10.0)
        same = filled(0.1, 0.2)
        found = gan.adversary_loss(same, same, LABELS)
        assert float(found) == pytest.approx(10 * 0.439255, rel=1e-3)  # (1.662769 - 1)^2

    def test_wgan_drift_penalizes_real_scores(self) -> None:
        gan = with_adversary("wgan", Mean(), penalty=1e-9, drift=0.5)
        found = gan.adversary_loss(filled(1.0, 3.0), filled(7.0, 9.0), LABELS)
        assert float(found) == pytest.approx(0.5 * 5 + 6, abs=1e-5)  # mean square of 1 and 3 is 5

    @pytest.mark.parametrize("name", ["dcgan", "cgan"])
    @pytest.mark.parametrize(("rounds", "times"), [(0, 1), (1, 0), (2, 0), (4, 0), (8, 1), (9, 0)])
    @pytest.mark.parametrize("steps", [1, 2, 4])
    def test_r1_is_lazy_by_rounds(self, name: str, rounds: int, times: int, steps: int) -> None:
        """Every eighth round adds half the squared norm, 1.382400, times weight and interval."""
        fitting = Fitting(generator_steps=steps)
        gan = with_adversary(name, Sum(), r1=0.01, r1_every=8, fitting=fitting)
        gan.done_updates = rounds * steps
        images = filled(0.0, 0.0)
        labels = torch.zeros(2, dtype=torch.int64)
        found = gan.adversary_loss(images, images, labels)
        expected = 2 * 0.693147 + times * 0.01 * 8 * 1.3824
        assert float(found) == pytest.approx(expected, abs=1e-4)


class TestConditions:
    def test_plain_discriminator_sees_the_label_as_a_plane_of_its_sign(self) -> None:
        discriminator = small("cgan", dropout=0.0).adversary
        first = discriminator[0]  # type: ignore[index]
        planes: list[Tensor] = []
        first.register_forward_pre_hook(lambda _, inputs: planes.append(inputs[0][:, 3]))
        discriminator(filled(0.0, 0.0), LABELS)
        assert planes[0].mean(dim=(1, 2)).tolist() == [-1, 1]

    def test_one_hot_and_networks_get_the_real_labels(self, tmp_path: Path) -> None:
        """Images of class 1 are bright, so the labels of real images are known from the pixels."""
        gan = small("cgan", dropout=0.0)
        pairs: list[tuple[Tensor, Tensor]] = []
        gan.adversary.register_forward_pre_hook(
            lambda _, inputs: pairs.append((inputs[0].mean(dim=(1, 2, 3)) > 0, inputs[1]))
        )
        drawn: list[Tensor] = []
        gan.generator.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
        labels = np.arange(16) % 2
        pixels = np.repeat(labels * 255, 3072).reshape(16, SIDE, SIDE, 3).astype(np.uint8)
        fit(gan, tmp_path, epochs=1, pixels=pixels, labels=labels)
        real, synthetic, for_generator = pairs[0::4], pairs[1::4], pairs[2::4]
        for (bright, given), (_, same), (_, again), generated in zip(
            real, synthetic, for_generator, drawn[::2], strict=True
        ):
            assert torch.equal(bright, given.bool())
            assert torch.equal(given, same)
            assert torch.equal(given, again)
            assert torch.equal(given, generated)
            assert len(given.unique()) == 2


class Counts(Callback):
    """Callback that records the optimizer steps: G for the generator, D for the adversary."""

    def __init__(self, gan: Adversarial) -> None:
        self.generator = self.adversary = 0
        self.order = ""
        self.first = next(gan.generator.parameters())

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        of_generator = optimizer.param_groups[0]["params"][0] is self.first
        self.order += "G" if of_generator else "D"


class TestUpdates:
    @pytest.mark.parametrize("name", FORMS)
    @pytest.mark.parametrize(
        ("generator", "adversary", "order"),
        [(1, 1, "DGDGDGDG"), (2, 1, "DGGDGGDGGDGG"), (1, 2, "DDGDDG"), (1, 3, "DDDGD")],
    )
    def test_steps_per_round(
        self, name: str, generator: int, adversary: int, order: str, tmp_path: Path
    ) -> None:
        """Four batches of real images; an incomplete round continues in the next epoch."""
        fitting = Fitting(generator_steps=generator, adversary_steps=adversary)
        gan = small(name, fitting=fitting)
        counts = Counts(gan)
        fit(gan, tmp_path, epochs=1, callbacks=[counts])
        assert counts.order == order
        assert (gan.done_updates, gan.adversary_updates) == (order.count("G"), 4)

    @pytest.mark.parametrize(("level", "value"), [(0, -1.0), (255, 1.0)])
    def test_real_images_are_between_minus_one_and_one(
        self, level: int, value: float, tmp_path: Path
    ) -> None:
        gan = with_adversary("dcgan", mean := Mean(), fitting=Fitting(updates=1))
        fit(gan, tmp_path, pixels=np.full((4, SIDE, SIDE, 3), level, np.uint8))
        assert mean.seen[0].unique().tolist() == [value]

    def test_generator_updates_leave_the_gradients_of_the_adversary(self, tmp_path: Path) -> None:
        gan = small("dcgan", fitting=Fitting(generator_steps=2, updates=2))
        found: list[list[Tensor]] = []

        class Note(Callback):
            def on_before_optimizer_step(self, *_: Any) -> None:
                found.append([p.grad.clone() for p in gan.adversary.parameters()])

        fit(gan, tmp_path, epochs=1, callbacks=[Note()])
        own, *later = found
        assert len(later) == 2
        for gradients in later:
            assert all(torch.equal(*pair) for pair in zip(gradients, own, strict=True))

    def test_each_critic_step_has_new_real_images(self, tmp_path: Path) -> None:
        gan = small("wgan")
        real: list[Tensor] = []
        loss = gan.adversary_loss

        def spy(images: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
            real.append(images)
            return loss(images, synthetic, labels)

        gan.adversary_loss = spy  # type: ignore[method-assign]
        fit(gan, tmp_path, epochs=5)
        assert (len(real), gan.done_updates) == (20, 4)
        assert len({image.numpy().tobytes() for images in real[:4] for image in images}) == 16

    def test_resumed_in_the_middle_of_a_round(self, tmp_path: Path) -> None:
        states = []
        for epochs in ([3], [1, 3]):
            torch.manual_seed(5)
            resume = None
            for until in epochs:
                torch.manual_seed(5)
                gan = small("wgan", fitting=Fitting(adversary_steps=3))
                trainer = fit(gan, tmp_path, epochs=until, resume=resume)
                resume = tmp_path / "half.ckpt"
                trainer.save_checkpoint(resume)
            assert (gan.done_updates, gan.adversary_updates) == (4, 12)
            states.append(gan.state_dict())
        for key, value in states[0].items():
            assert torch.equal(value, states[1][key]), key

    @pytest.mark.parametrize("name", FORMS)
    def test_optimizers_have_their_settings(self, name: str) -> None:
        rates = Fitting(3e-3, 7e-4, 0.25, 0.9, adversary_steps=5)
        gan = small(name, fitting=rates)
        for_generator, for_adversary = gan.configure_optimizers()
        for optimizer, network, rate in (
            (for_generator, gan.generator, 3e-3),
            (for_adversary, gan.adversary, 7e-4),
        ):
            assert isinstance(optimizer, torch.optim.Adam)
            (group,) = optimizer.param_groups
            assert (group["lr"], group["betas"]) == (rate, (0.25, 0.9))
            assert (group["weight_decay"], group["amsgrad"]) == (0, False)
            assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]

    def test_thesis_settings(self) -> None:
        """Published rates of generator and adversary, beta 1, clip, steps and average."""
        found = {
            name: (
                *(form.generator_rate, form.adversary_rate, form.beta1, form.clip),
                *(form.generator_steps, form.adversary_steps, form.average),
            )
            for name, form in ((name, gan().fitting) for name, gan in FORMS.items())
        }
        assert found == {
            "dcgan": (1e-4, 2e-4, 0.5, 1.5, 1, 1, 0.0),
            "wgan": (1e-4, 1e-4, 0.5, None, 1, 5, 0.0),
            "cgan": (2e-4, 5e-5, 0.5, 1.0, 2, 1, 0.0),
        }


@pytest.mark.parametrize(
    ("generator", "adversary", "epochs"), [(1, 1, 4), (2, 1, 2), (1, 5, 17), (3, 2, 3)]
)
def test_planned_epochs_hold_the_updates(generator: int, adversary: int, epochs: int) -> None:
    """Ten updates need 10, 5, 50 and 8 batches, at three batches per epoch."""
    fitting = Fitting(generator_steps=generator, adversary_steps=adversary, updates=10)
    trainer = Trainer(max_epochs=100, accelerator="cpu", logger=False, enable_checkpointing=False)
    limit_epochs(trainer, small("dcgan", fitting=fitting), batches=3)
    assert trainer.max_epochs == epochs


class Gradients(Callback):
    """Callback that records the largest gradient of each network before each update."""

    def __init__(self, gan: Adversarial) -> None:
        self.gan = gan
        self.largest: dict[str, list[float]] = {"generator": [], "adversary": []}

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        held = optimizer.param_groups[0]["params"]
        name = "generator" if held[0] is next(self.gan.generator.parameters()) else "adversary"
        self.largest[name].append(max(float(p.grad.abs().max()) for p in held))


class TestClipping:
    def test_only_the_adversary_is_clipped(self, tmp_path: Path) -> None:
        gan = small("dcgan", fitting=Fitting(clip=1e-3))
        gradients = Gradients(gan)
        fit(gan, tmp_path, epochs=1, callbacks=[gradients])
        assert gradients.largest["adversary"] == pytest.approx([1e-3] * 4)
        assert min(gradients.largest["generator"]) > 2e-3

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_16_mixed_clips_unscaled_gradients(self, device: str, tmp_path: Path) -> None:
        """The loss is scaled by 1,024; a limit of 1 is far above the unscaled gradients."""
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device; the CPU takes the same path")
        steps = {}
        for clip in (None, 1e-3, 1.0):
            torch.manual_seed(0)
            gan = small("dcgan", dropout=0.0, fitting=Fitting(clip=clip))
            gradients = Gradients(gan)
            scaler = torch.amp.GradScaler(device, init_scale=1024.0)
            precision = MixedPrecision("16-mixed", device, scaler)
            fit(
                gan,
                tmp_path,
                epochs=1,
                callbacks=[gradients],
                plugins=[precision],
                accelerator=device,
            )
            steps[clip] = gradients.largest["adversary"][0]
        assert steps[None] > 1  # scaled
        assert steps[1.0] == pytest.approx(steps[None] / 1024, rel=1e-3)
        assert steps[1e-3] == pytest.approx(1e-3)


class TestAverage:
    @pytest.mark.parametrize("name", FORMS)
    def test_moves_by_its_decay_after_each_generator_update(
        self, name: str, tmp_path: Path
    ) -> None:
        """Decay min(0.2, (1 + n) / (10 + n)) at update n: 2/11, then 0.2."""
        torch.manual_seed(0)
        fitting = Fitting(1e-2, adversary_steps=2, average=0.2, updates=2)
        gan = small(name, fitting=fitting)
        assert gan.averaged is not None
        key = next(key for key, _ in gan.generator.named_parameters())
        expected = gan.generator.state_dict()[key].numpy().copy()
        decays = iter((2 / 11, 0.2))

        class Follow(Callback):
            def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
                nonlocal expected
                if gan.adversary_updates % 2 == 0:
                    decay, now = next(decays), gan.generator.state_dict()[key].numpy()
                    expected = decay * expected + (1 - decay) * now

        fit(gan, tmp_path, epochs=1, callbacks=[Follow()])
        assert gan.done_updates == 2
        averaged = gan.averaged["module"].state_dict()[key].numpy()
        np.testing.assert_allclose(averaged, expected, atol=1e-6)
        assert not np.allclose(averaged, gan.generator.state_dict()[key].numpy(), atol=1e-4)

    @pytest.mark.parametrize("name", FORMS)
    def test_average_is_sampled_from(self, name: str) -> None:
        gan = small(name, fitting=Fitting(average=0.9))
        assert gan.averaged is not None
        for network, value in ((gan.generator, -50.0), (gan.averaged["module"], 50.0)):
            last = [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d)][-1]
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.constant_(last.bias, value)
        assert (gan.sample(3, 1, seed=0) == 255).all()
        assert bool((gan.generate(gan.noise(3), torch.ones(3, dtype=torch.int64)) == -1).all())


class TestAugmentation:
    @pytest.mark.parametrize("name", FORMS)
    @pytest.mark.parametrize("networks", ["plain", "strong"])
    def test_both_inputs_in_both_updates(
        self, name: str, networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Augmentation is replaced by adding 5, so all inputs of the adversary are at least 4."""
        monkeypatch.setattr(DiffAugment, "__call__", lambda self, images: images + 5)
        gan = small(name, networks=networks, augment=DiffAugment(), fitting=Fitting(updates=2))
        if name != "wgan":
            gan.r1 = 1.0  # type: ignore[assignment]
        lowest: list[float] = []
        gan.adversary.register_forward_pre_hook(
            lambda _, inputs: lowest.append(float(inputs[0].min()))
        )
        fit(gan, tmp_path, epochs=1)
        # Per round: real, synthetic, penalty, and synthetic for the generator; R1 is not in each.
        assert len(lowest) == (8 if name == "wgan" else 7)
        assert min(lowest) >= 4
        assert max(lowest) <= 6
