from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from leuk.classifiers.cnn import CNN
from leuk.data.labels import Label
from leuk.explain.choice import choose_cells
from leuk.explain.explainer import Attribution
from leuk.explain.gradcam import GradCAM
from leuk.explain.overlays import save_overlays


@pytest.fixture
def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(resolution=32, widths=(4, 8, 8), hidden=8).eval()


def by_hand(cnn: CNN, images: Tensor) -> Tensor:
    """Grad-CAM from its definition: activations weighed by their mean gradient, summed."""
    kept: list[Tensor] = []
    handle = cnn.cam_layer.register_forward_hook(lambda *args: kept.append(args[2]))
    logits = cnn(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, Label.ALL].sum(), kept[0])
    coarse = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True)
    return nn.functional.interpolate(coarse, images.shape[2:], mode="bilinear")[:, 0].detach()


def test_gradcam_is_what_its_paper_says(cnn: CNN) -> None:
    images = torch.rand(5, 3, 32, 32)
    attribution = GradCAM(batch_size=2).attribute(cnn, images, Label.ALL)
    torch.testing.assert_close(attribution.maps, by_hand(cnn, images))
    assert attribution.maps.shape == (5, 32, 32)
    assert float(attribution.maps.min()) < 0 < float(attribution.maps.max())


def test_gradcam_of_the_other_class_has_the_other_sign(cnn: CNN) -> None:
    images = torch.rand(2, 3, 32, 32)
    sick, healthy = (GradCAM().attribute(cnn, images, label).maps for label in (1, 0))
    torch.testing.assert_close(sick, -healthy)


def test_explaining_leaves_the_classifier_as_it_was(cnn: CNN) -> None:
    cnn.train()
    before = {key: value.clone() for key, value in cnn.state_dict().items()}
    with torch.no_grad():
        GradCAM().attribute(cnn, torch.rand(2, 3, 32, 32), Label.ALL)
    assert cnn.training
    assert all(torch.equal(before[key], value) for key, value in cnn.state_dict().items())
    assert all(parameter.grad is None for parameter in cnn.parameters())
    assert not cnn.cam_layer._forward_hooks


def test_layer_without_a_grid_is_refused(cnn: CNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CNN, "cam_layer", property(lambda self: self.activation))
    with pytest.raises((ValueError, AssertionError)):
        GradCAM().attribute(cnn, torch.rand(2, 3, 32, 32), Label.ALL)


def test_degenerate_maps_are_told_from_others() -> None:
    maps = torch.rand(4, 8, 8)
    maps[0] = 0
    maps[1] = 0.3
    maps[2, 0, 0] = float("nan")
    assert Attribution(maps, "pixel", 0.0).degenerate.tolist() == [True, True, True, False]


def test_pictures_show_degenerate_maps_as_such(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 16, 16)
    pictures = []
    for name, second in (("one", torch.zeros(16, 16)), ("two", torch.full((16, 16), torch.nan))):
        maps = torch.stack([torch.linspace(-1, 1, 256).view(16, 16), second])
        drawn = Attribution(maps, "pixel", 0.0)
        save_overlays(tmp_path / f"{name}.png", images, drawn, ["a", "b"], "title", "unit")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    np.testing.assert_array_equal(*pictures)
    drawn = Attribution(maps[:1].repeat(2, 1, 1), "pixel", 0.0)
    save_overlays(tmp_path / "three.png", images, drawn, ["a", "b"], "title", "unit")
    assert not np.array_equal(pictures[0], np.asarray(Image.open(tmp_path / "three.png")))


def test_chosen_cells_come_from_all_outcomes_and_many_subjects() -> None:
    generator = np.random.default_rng(0)
    cells = pd.DataFrame(
        {
            "label": generator.integers(0, 2, 400),
            "subject": [f"S{i}" for i in generator.integers(0, 10, 400)],
        }
    )
    cells["decided"] = np.where(generator.random(400) < 0.9, cells["label"], 1 - cells["label"])
    chosen = cells.iloc[choose_cells(cells, 16)]
    outcomes = chosen.groupby(["label", "decided"]).size()
    assert outcomes.tolist() == [4, 4, 4, 4]
    assert chosen["subject"].nunique() >= 4
    assert choose_cells(cells, 16) == choose_cells(cells.copy(), 16)
    assert len(set(choose_cells(cells, 1000))) == 400
