import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.prototypes import Prototype, Prototyped, PrototypeHead
from leuk.classifiers.vit import ViT
from leuk.data.labels import Label
from leuk.data.pixels import Batch
from leuk.errors import DataError, TrainingError
from leuk.explain.figures import save_prototypes

FORMS = ["cnn", "vit", "hybrid", "hybrid-overlap"]
EQUAL = math.log(1 / 1e-4)
ROUNDING = 0.05
"""Tolerance of similarities: distances are rounded by about 1e-6, beside the epsilon of 1e-4."""

SMALL = {"width": 16, "depth": 1, "mlp": 16}


def form(name: str) -> Prototyped:
    torch.manual_seed(0)
    if name == "cnn":
        return CNN(32, (4, 8), head="prototype", per_class=2).eval()
    if name == "vit":
        return ViT(32, 8, head="prototype", per_class=2, **SMALL).eval()  # type: ignore[arg-type]
    patch, stride = (4, 2) if name == "hybrid-overlap" else (2, 2)
    hybrid = Hybrid(32, (4, 8), patch, stride, head="prototype", per_class=2, **SMALL)  # type: ignore[arg-type]
    return hybrid.eval()


def image_batches(count: int = 12) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 32, 32, generator=generator)
    labels, rows = torch.arange(count) % 2, torch.arange(count) * 10
    return [
        Batch(images=images[some], labels=labels[some], rows=rows[some])
        for some in (slice(0, 5), slice(5, 10), slice(10, count))
    ]


def head_of(model: Prototyped) -> PrototypeHead:
    assert model.prototypes is not None
    return model.prototypes


def test_similarity_follows_the_paper() -> None:
    head = PrototypeHead(6, per_class=3)
    grid = torch.randn(2, 6, 4, 5)
    patches = head.patches(grid).permute(0, 2, 3, 1).flatten(1, 2)
    distances = torch.cdist(patches, head.prototypes.expand(2, -1, -1)).square().amin(dim=1)
    torch.testing.assert_close(
        head(grid), ((distances + 1) / (distances + 1e-4)).log(), rtol=1e-4, atol=0
    )
    assert head.head.bias is None
    assert head.head.weight.tolist() == [[1.0] * 3 + [-0.5] * 3, [-0.5] * 3 + [1.0] * 3]


def test_losses_pull_to_the_own_class_and_push_from_the_other() -> None:
    head = PrototypeHead(6, per_class=2)
    grid, labels = torch.randn(3, 6, 2, 2), torch.tensor([1, 0, 1])
    patches = head.patches(grid).permute(0, 2, 3, 1).flatten(1, 2)
    nearest = torch.cdist(patches, head.prototypes.expand(3, -1, -1)).square().amin(dim=1)
    healthy, leukemic = nearest[:, :2].amin(dim=1), nearest[:, 2:].amin(dim=1)
    on_cell = torch.cdist(patches[:, 1:], head.prototypes.expand(3, -1, -1)).square().amin(dim=1)
    of_class = torch.where(labels == 1, on_cell[:, 2:].amin(dim=1), on_cell[:, :2].amin(dim=1))
    own = of_class.mean()
    other = torch.where(labels == 1, healthy, leukemic).mean()
    outside = torch.tensor([[0.9, 0.4, 0.0, 0.1]]).expand(3, -1)
    similarities, cost = head.with_cost(grid, labels, outside)
    torch.testing.assert_close(cost, 0.8 * own - 0.08 * other + 1e-4 * 4 * 0.5)
    torch.testing.assert_close(similarities, head(grid))
    cost.backward()
    assert head.prototypes.grad is not None
    assert head.prototypes.grad.isfinite().all()


@pytest.mark.parametrize("name", FORMS)
def test_a_single_pass_gives_logits_and_loss(name: str) -> None:
    model, batch = form(name), image_batches()[0]
    assert model.features(batch["images"]).shape == (5, 4)
    passes: list[Tensor] = []
    head_of(model).embed.register_forward_hook(lambda *args: passes.append(args[2]))
    logits, cost = model.training_logits(batch["images"], batch["labels"])
    assert len(passes) == 1
    torch.testing.assert_close(logits, model(batch["images"]))
    (logits.sum() + cost).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", FORMS)
def test_projected_prototypes_are_training_patches_of_their_class(name: str) -> None:
    model, batches = form(name), image_batches()
    prototypes = model.project(iter(batches))
    head = head_of(model)
    images = {int(r): i for b in batches for r, i in zip(b["rows"], b["images"], strict=True)}
    labels = {int(r): int(c) for b in batches for r, c in zip(b["rows"], b["labels"], strict=True)}
    assert [p.label for p in prototypes] == [0, 0, 1, 1]
    for number, prototype in enumerate(prototypes):
        assert labels[prototype.row] == prototype.label
        similarities = model.features(images[prototype.row][None])[0].tolist()
        assert similarities[number] == pytest.approx(EQUAL, abs=ROUNDING)
        assert 0 <= prototype.top <= 32 - prototype.side
        assert 0 <= prototype.left <= 32 - prototype.side
        _, step = model.patch_pixels
        y, x = prototype.top // step, prototype.left // step
        place = head.patches(model.grid(images[prototype.row][None]))[0, :, y, x]
        torch.testing.assert_close(place, head.prototypes[number])


@pytest.mark.parametrize("name", FORMS)
def test_prototypes_are_not_background(name: str) -> None:
    model, batches = form(name), image_batches()
    for batch in batches:
        batch["images"][:, :, :16] = 0
        batch["images"][:, :, :, :16] = 0
    for prototype in model.project(batches):
        assert prototype.top + prototype.side > 16
        assert prototype.left + prototype.side > 16
    black = [Batch(b, images=torch.zeros_like(b["images"])) for b in batches]  # type: ignore[misc]
    assert len(model.project(black)) == 4
    logits, cost = model.training_logits(black[0]["images"], black[0]["labels"])
    assert logits.isfinite().all()
    assert cost.isfinite()


def test_nearest_patch_of_all_batches_is_taken() -> None:
    model, batches = form("cnn"), image_batches()
    head = head_of(model)
    before = head.prototypes.detach().clone()
    grids = torch.cat([head.patches(model.grid(b["images"])) for b in batches])
    patches = grids.permute(0, 2, 3, 1).flatten(1, 2)
    distances = torch.cdist(patches, before.expand(len(patches), -1, -1)).square().amin(dim=1)
    labels = torch.cat([b["labels"] for b in batches])
    rows = torch.cat([b["rows"] for b in batches])
    model.train()
    prototypes = model.project(reversed(batches))
    assert model.training
    for number, prototype in enumerate(prototypes):
        own = labels == prototype.label
        best = int(distances[own, number].argmin())
        assert prototype.row == int(rows[own][best])
        least = float(distances[own, number].min().detach())
        assert prototype.similarity == pytest.approx(math.log((least + 1) / (least + 1e-4)), 1e-3)


def test_last_layer_is_fitted_to_the_projected_prototypes() -> None:
    model, batches = form("cnn"), image_batches()
    model.weigh_by([2.0, 1.0])
    model.project(batches)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    similarities = torch.cat([model.features(b["images"]) for b in batches]).detach()
    labels = torch.cat([b["labels"] for b in batches])
    weight = head_of(model).head.weight

    def loss() -> Tensor:
        fit = torch.nn.functional.cross_entropy(
            similarities @ weight.T, labels, model.class_weights
        )
        return fit + 1e-4 * (weight[0, 2:].abs().sum() + weight[1, :2].abs().sum())

    first = float(loss().detach())
    model.refit_head(iter(batches))
    assert float(loss().detach()) < first
    (gradient,) = torch.autograd.grad(loss(), weight)
    assert gradient.abs().max() < 1e-2  # the minimum of a convex loss
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    assert changed == ["prototypes.head.weight"]


def test_positions_are_saved_with_the_weights() -> None:
    model = form("cnn")
    assert model.placed() == []
    prototypes = model.project(image_batches())
    again = form("cnn")
    again.load_state_dict(model.state_dict())
    assert again.placed() == prototypes


def test_projection_needs_both_classes_and_finite_weights() -> None:
    for batches in (
        [],
        [Batch(b, labels=torch.ones(5, dtype=torch.long)) for b in image_batches()[:1]],
    ):
        with pytest.raises(DataError, match="both classes"):
            form("cnn").project(batches)
    broken = form("cnn")
    with torch.no_grad():
        head_of(broken).embed[0].weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"lower model\.optim\.learning_rate"):
        broken.project(image_batches())


def test_equal_patches_are_equal_under_autocast() -> None:
    model, batches = form("cnn"), image_batches()
    images = torch.cat([b["images"] for b in batches])
    with torch.autocast("cpu", torch.bfloat16):
        model.project(batches)
        similarities = model.features(images)
    assert similarities.dtype == torch.float32
    expected = torch.full((4,), EQUAL)
    torch.testing.assert_close(similarities.amax(dim=0), expected, atol=ROUNDING, rtol=0)


def test_figure_has_the_box_at_the_patch(tmp_path: Path) -> None:
    images = torch.zeros(3, 3, 32, 32)
    sheets = []
    for left in (0, 16):
        places = [
            Prototype(Label.HEM, 7, 8, left, 8, 2.0),
            Prototype(Label.ALL, 7, 8, 8, 8, 2.0),
            Prototype(Label.ALL, 9, 0, 0, 8, 2.0),
        ]
        save_prototypes(tmp_path / f"{left}.png", images, places, "prototypes")
        sheets.append(Image.open(tmp_path / f"{left}.png").convert("RGB").tobytes())
    assert sheets[0] != sheets[1]
