"""Maps of copies of a classifier with random weights."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from checking import case
from explained import SIDE, TRUTH, FunctionExplainer, disc, linear, some_cells
from small_classifiers import small
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.explain.base import Explainer
from leuk.explain.gradcam import GradCAM
from leuk.explain.quality.faithfulness import controls
from leuk.explain.quality.randomization import CHANGED_BELOW, cascades, randomized_copies, stages_of

MAKE: dict[str, Callable[[], Classifier]] = {
    "cnn": partial(small, "cnn"),
    "deep cnn": partial(small, "cnn", convolutions=3, batch_norm=True, pool="average"),
    "vit": partial(small, "vit"),
    "hybrid": partial(small, "hybrid"),
    "prototypes": partial(small, "cnn", head="prototype"),
}


@pytest.fixture
def images() -> Tensor:
    return some_cells(6)


def test_gradcam_of_a_fitted_network_passes_and_controls_fail() -> None:
    # Leukemic cells have a bright square at a random position.
    images, labels = some_cells(64, seed=3) * 0.5, torch.arange(64) % 2
    places = torch.randint(10, 18, (64, 2), generator=torch.Generator().manual_seed(0))
    for image, label, (top, left) in zip(images, labels, places.tolist(), strict=True):
        image[:, top : top + 5, left : left + 5] += 0.5 * label
    torch.manual_seed(0)
    fitted = CNN(resolution=32, widths=(8, 8, 8), hidden=16, dropout=0.0, stack="torch")
    optimizer = torch.optim.Adam(fitted.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(fitted(images), labels).backward()
        optimizer.step()
    images, labels = images[:12], labels[:12]
    explainers: dict[str, Explainer] = {"gradcam": GradCAM(), **controls(0)}
    maps = {
        name: it.attribute(fitted, images, labels, images).maps for name, it in explainers.items()
    }
    found = cascades(case(fitted, images, labels), explainers, maps)
    assert float(np.nanmean(found["gradcam"][-1].similarity)) < CHANGED_BELOW
    assert float(np.nanmean(found["gradcam"][-1].ssim)) < 0.8
    for stage in (stage for name in controls(0) for stage in found[name]):
        np.testing.assert_allclose(stage.similarity, 1)
        np.testing.assert_allclose(stage.spearman, 1)
        np.testing.assert_allclose(stage.ssim, 1, atol=1e-5)


@pytest.mark.parametrize("form", MAKE)
def test_layers_are_randomized_from_the_head_down(form: str, images: Tensor) -> None:
    torch.manual_seed(0)
    classifier = MAKE[form]().eval()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    done: list[str] = []
    altered = classifier
    for names, altered in randomized_copies(classifier, images, 4, seed=0):
        done += names
        for name, value in altered.named_parameters():
            module = name.rpartition(".")[0]
            same = torch.equal(value, before[name])
            # Parameters that start at 0 or 1 may do so again.
            assert same or module in done
            if module in done and float(before[name].std(correction=0)) > 0:
                assert not same
        with torch.no_grad():
            assert bool(altered(images).isfinite().all())
        assert not altered.training
    assert set(done) == {name.rpartition(".")[0] for name, _ in classifier.named_parameters()}
    assert len(done) == len(set(done))
    assert all(torch.equal(before[name], it) for name, it in classifier.state_dict().items())
    assert all(parameter.requires_grad for parameter in classifier.parameters())


@pytest.mark.parametrize("form", MAKE)
@pytest.mark.parametrize("stages", [1, 4, 100])
def test_stages_start_at_the_output(form: str, stages: int) -> None:
    classifier = MAKE[form]()
    groups = stages_of(classifier, stages)
    flat = [name for group in groups for name in group]
    assert len(groups) == min(stages, len(flat))
    assert all(groups)
    assert flat[0].endswith("head")
    assert "blocks.0" in flat[-1] or "stem" in flat[-1]
    if stages > 1:
        assert groups[0] == flat[:1]


def test_copies_depend_on_the_seed_and_leave_global_generators_unchanged(images: Tensor) -> None:
    cnn = MAKE["cnn"]()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    made = [
        [copy(images) for _, copy in randomized_copies(cnn, images, 3, seed)] for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.rand(1), expected)
    for one, again, other in zip(*made, strict=True):
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_new_layers_have_the_statistics_of_new_activations(images: Tensor) -> None:
    cnn = MAKE["deep cnn"]()
    *_, (_, last) = randomized_copies(cnn, images, 2, seed=0)
    seen: dict[str, Tensor] = {}
    norms = {name: it for name, it in last.named_modules() if isinstance(it, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    with torch.no_grad():
        last(torch.cat([images, images]))
    assert len(norms) == 9
    for name, norm in norms.items():
        assert norm.momentum == 0.01
        torch.testing.assert_close(
            norm.running_mean, seen[name].mean(dim=(0, 2, 3)), atol=1e-3, rtol=1e-3
        )


def test_copies_do_not_copy_the_trainer(images: Tensor) -> None:
    class Trainer:
        def __deepcopy__(self, memo: object) -> None:
            raise AssertionError("the trainer was copied, and all its data with it")

    cnn = MAKE["cnn"]()
    cnn._trainer = Trainer()
    with torch.inference_mode():  # as in Lightning's hooks
        ((_, copy),) = randomized_copies(cnn, images, 1, seed=0)
    assert not any(parameter.is_inference() for parameter in copy.parameters())
    assert isinstance(cnn._trainer, Trainer)


def test_maps_of_random_copies_have_the_same_target(images: Tensor) -> None:
    brightness = FunctionExplainer("it", lambda _, images: images.mean(dim=1))
    model, target = linear(), torch.tensor([1, 0, 0, 1, 0, 1])
    maps = {"it": brightness.attribute(model, images, target).maps}
    own = case(model, images, target)
    (found,) = cascades(own, {"it": brightness}, maps)["it"]
    np.testing.assert_allclose(found.spearman, 1)
    np.testing.assert_allclose(found.ssim, 1, atol=1e-5)
    # Inverted maps count as similar.
    inverted = {"it": -maps["it"]}
    (found,) = cascades(own, {"it": brightness}, inverted)["it"]
    np.testing.assert_allclose(found.spearman, -1)
    np.testing.assert_allclose(found.similarity, 1)


def test_rank_correlation_with_and_without_sign() -> None:
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[0, :, 16, 10:14] = 0.5
    maps = torch.zeros(2, 1, SIDE, SIDE)
    maps[0, 0, 16, 10:14] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    maps[1, 0, 16, 10:14] = torch.tensor([1.0, 2.0, -40.0, 3.0])
    steps = iter([maps[1]])
    again = FunctionExplainer("again", lambda *_: next(steps))
    (found,) = cascades(case(linear(), images), {"it": again}, {"it": maps[0]}, stages=1)["it"]
    # Ranks 1 2 3 4 against 2 3 1 4, or 1 2 4 3 without signs: 1 - 6 sum(d^2) / (n (n^2 - 1)).
    assert found.spearman[0] == pytest.approx(1 - 6 * 6 / 60)
    assert found.absolute[0] == pytest.approx(1 - 6 * 2 / 60)
    assert found.similarity[0] == pytest.approx(0.8)


def test_structural_similarity_is_within_the_cell_and_independent_of_scale() -> None:
    images = some_cells(2) * disc(5)
    maps = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    elsewhere = maps.clone()
    elsewhere[:, :4] = 1 - elsewhere[:, :4]  # farther away than a window reaches
    scaled = elsewhere * torch.tensor([1000.0, 0.01])[:, None, None]
    again = FunctionExplainer("again", lambda *_: scaled)
    (found,) = cascades(case(linear(), images), {"it": again}, {"it": maps}, stages=1)["it"]
    # The scales differ only by the largest pixel, which is close to 1 in both.
    np.testing.assert_allclose(found.ssim, 1, atol=1e-3)


def test_incomparable_maps_leave_the_test_undecided(images: Tensor) -> None:
    model = linear()
    of_flat = cascades(case(model, images), {"it": TRUTH}, {"it": torch.zeros(6, 32, 32)})
    assert np.isnan(of_flat["it"][0].spearman).all()
    (found,) = cascades(case(model, images), {"it": TRUTH}, {"it": model.truth(images)})["it"]
    assert found.similarity.mean() < CHANGED_BELOW
    assert found.layers == [""]
