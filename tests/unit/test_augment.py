import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from leuk.data.augment import Transforms, warp


def blob(count: int = 8, side: int = 33) -> Tensor:
    """Smooth off-center blobs, ``(count, 3, side, side)`` in [0, 1], black at the border."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    shape = torch.exp(-(((x - 0.2) / 0.25) ** 2) - ((y + 0.1) / 0.15) ** 2)
    return shape.expand(count, 3, side, side).clone()


def drawn(value: float) -> object:
    """A stand-in for the random source that always draws ``value`` in [-1, 1)."""
    return lambda *shape, device: torch.full(shape, value, device=device)


def test_nothing_switched_on_changes_nothing() -> None:
    images = blob()
    assert Transforms()(images) is images


@pytest.mark.parametrize(
    ("transforms", "angle", "scale", "shear"),
    [
        (Transforms(rotation=33), 33.0, 1.0, 0.0),
        (Transforms(zoom=0.15), 0.0, 1.15, 0.0),
        (Transforms(shear=20), 0.0, 1.0, 20.0),
    ],
)
def test_warp_agrees_with_torchvision(
    monkeypatch: pytest.MonkeyPatch,
    transforms: Transforms,
    angle: float,
    scale: float,
    shear: float,
) -> None:
    monkeypatch.setattr("leuk.data.augment._symmetric", drawn(1.0))
    images = blob()
    ours = transforms(images)
    # The sign is a convention; the parameters are symmetric about zero.
    candidates = [
        affine(images, s * angle, [0, 0], scale, [s * shear, 0.0], InterpolationMode.BILINEAR)
        for s in (1, -1)
    ]
    assert min(float((ours - other).abs().max()) for other in candidates) < 0.02
    assert float((ours - images).abs().max()) > 0.05


def test_translation_is_a_share_of_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leuk.data.augment._symmetric", drawn(1.0))
    images = blob(side=40)
    shifted = Transforms(translate=0.1)(images)
    torch.testing.assert_close(shifted[..., :-4, :-4], images[..., 4:, 4:])


def test_flips_are_exact_and_even() -> None:
    torch.manual_seed(0)
    images = blob(400)
    flipped = Transforms(horizontal_flip=True)(images)
    same = (flipped - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (flipped - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert bool((same ^ mirrored).all())
    assert 150 < int(same.sum()) < 250


def test_outside_is_black_and_values_stay_in_range() -> None:
    recipe = Transforms(rotation=45, brightness=0.9, color=0.9, contrast=0.9)
    images = recipe(torch.ones(16, 3, 32, 32))
    assert float(images.min()) == 0
    assert float(images.max()) <= 1
    corner = warp(torch.ones(1, 3, 32, 32), turn(math.pi / 4))[0, :, 0, 0]
    assert float(corner.max()) == 0


def turn(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])


def test_color_leaves_the_background_black() -> None:
    images = blob() * (blob() > 0.1)
    changed = Transforms(brightness=0.3, color=0.3, contrast=0.3)(images)
    assert float(changed[images == 0].abs().max()) == 0
    assert float((changed - images).abs().max()) > 0.01


def gray(count: int, value: float = 0.5) -> Tensor:
    return torch.full((count, 3, 4, 4), value)


def test_brightness_is_of_an_image_and_color_of_each_channel() -> None:
    torch.manual_seed(0)
    # A relative change of at most 0.5 of 0.4: from 0.2 to 0.6.
    many = Transforms(brightness=0.5)(gray(64, 0.4))[:, 0, 0, 0]
    assert 0.2 <= float(many.min()) < 0.3
    assert 0.5 < float(many.max()) <= 0.6
    brighter, colored = (Transforms(**{name: 0.5})(gray(4)) for name in ("brightness", "color"))
    assert brighter.amax(dim=(1, 2, 3)).unique().numel() == 4
    torch.testing.assert_close(brighter.amax(dim=(1, 2, 3)), brighter.amin(dim=(1, 2, 3)))
    assert colored[:, :, 0, 0].unique().numel() == 12
    torch.testing.assert_close(colored.amax(dim=(2, 3)), colored.amin(dim=(2, 3)))


def test_contrast_is_about_the_mean_of_the_lit_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lit pixels 0.2 and 0.6 have a mean of 0.4; half as far again from it are 0.1 and 0.7."""
    monkeypatch.setattr("leuk.data.augment._symmetric", drawn(1.0))
    images = torch.zeros(1, 3, 4, 4)
    images[..., 1, 1], images[..., 2, 2] = 0.2, 0.6
    expected = torch.zeros(1, 3, 4, 4)
    expected[..., 1, 1], expected[..., 2, 2] = 0.1, 0.7
    torch.testing.assert_close(Transforms(contrast=0.5)(images), expected)
