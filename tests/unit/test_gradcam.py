"""Grad-CAM and attention rollout against their definitions, and the contract of all methods."""

import pytest
import torch
from shap_cases import MODELS, build_classifier
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.data.labels import Label
from leuk.errors import ConfigError, DataError
from leuk.explain.gradcam import GradCAM, layers_of
from leuk.explain.rollout import AttentionRollout
from leuk.explain.shap import GradientSHAP

IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=MODELS)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return build_classifier(request.param)


def by_hand(classifier: Classifier, images: Tensor, layer: str | None = None) -> Tensor:
    """Activations weighted by their mean gradient, summed over channels."""
    module = dict(classifier.named_modules())[layer] if layer else classifier.cam_layer
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda *args: kept.append(args[2]))
    logits = classifier(images)
    handle.remove()
    margin = logits[:, Label.ALL] - logits[:, Label.HEM]
    (gradient,) = torch.autograd.grad(margin.sum(), kept[0])
    coarse = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True)
    fine = torch.nn.functional.interpolate(coarse, images.shape[2:], mode="bilinear")
    return fine[:, 0].detach()


def test_gradcam_matches_its_definition(classifier: Classifier) -> None:
    found = GradCAM(batch_size=2).attribute(classifier, IMAGES, Label.ALL, IMAGES)
    torch.testing.assert_close(found.maps, by_hand(classifier, IMAGES))
    assert not found.degenerate.any()
    layer = layers_of(classifier)[0]
    found = GradCAM(layer=layer).attribute(classifier, IMAGES, Label.ALL, IMAGES)
    torch.testing.assert_close(found.maps, by_hand(classifier, IMAGES, layer))


@pytest.mark.parametrize("layer", ["blocks.9", "hidden", ""])
def test_layers_without_a_map_are_refused_naming_suitable_ones(layer: str) -> None:
    with pytest.raises(ConfigError, match=r"blocks\.0\.0"):
        GradCAM(layer=layer).attribute(build_classifier("cnn"), IMAGES, Label.ALL, IMAGES)


def test_each_class_has_a_map_of_its_own_logit(classifier: Classifier) -> None:
    healthy, sick = GradCAM().of_classes(classifier, IMAGES)
    both = GradCAM().attribute(classifier, IMAGES, Label.ALL, IMAGES).maps
    torch.testing.assert_close(sick - healthy, both, rtol=1e-4, atol=1e-6)


def test_targets_may_differ_between_images(classifier: Classifier) -> None:
    sick = GradCAM().attribute(classifier, IMAGES, Label.ALL, IMAGES).maps
    targets = torch.tensor([1, 0, 1, 0, 0])
    mixed = GradCAM().attribute(classifier, IMAGES, targets, IMAGES).maps
    torch.testing.assert_close(mixed, sick * (targets * 2 - 1)[:, None, None])


def test_explaining_does_not_change_the_classifier(classifier: Classifier) -> None:
    classifier.train()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    with torch.no_grad():
        GradCAM().attribute(classifier, IMAGES, Label.ALL, IMAGES)
    assert classifier.training
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert not any(module._forward_hooks for module in classifier.modules())


def test_images_of_another_size_are_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"data\.resolution=32"):
        GradCAM().attribute(classifier, torch.rand(2, 3, 64, 64), Label.ALL, IMAGES)


def test_methods_that_compare_need_a_background() -> None:
    assert GradCAM().attribute(build_classifier("cnn"), IMAGES, Label.ALL).maps.shape == (5, 32, 32)
    with pytest.raises(ValueError, match="shap_pixels compares with training images"):
        GradientSHAP().attribute(build_classifier("cnn"), IMAGES, Label.ALL)


def test_rollout_is_the_product_of_attentions() -> None:
    model = build_classifier("vit")
    found = AttentionRollout(batch_size=2).attribute(model, IMAGES, Label.ALL, IMAGES)
    attention = model.attention(IMAGES).detach().mean(dim=2)
    mixed = (attention + torch.eye(17)) / 2
    expected = (mixed[:, 2] @ mixed[:, 1] @ mixed[:, 0])[:, 0, 1:]
    sums = torch.nn.functional.avg_pool2d(found.maps[:, None], 8).flatten(1) * 64
    torch.testing.assert_close(sums, expected)
    assert float(expected.sum(dim=1).max()) < 1
    assert found.unit == "patch"
    healthy = AttentionRollout().attribute(model, IMAGES, Label.HEM, IMAGES)
    torch.testing.assert_close(found.maps, healthy.maps)  # whatever the class
