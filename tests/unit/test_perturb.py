"""Images with hidden segments, assembled in batches, against images assembled by hand."""

import pytest
import torch
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.classifiers.vit import ViT
from leuk.data.decode import LIT, cell_mask
from leuk.explain.base import log_odds
from leuk.explain.perturb import (
    Hide,
    compared_tokens,
    hidden,
    image_answers,
    patch_segments,
    predict_log_odds,
    spread,
    token_answers,
)

IMAGE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
SEGMENTS = patch_segments(32, 16, 1)[0]
PRESENCE = torch.rand(7, 16, generator=torch.Generator().manual_seed(3)) < 0.5


@pytest.fixture
def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(resolution=32, widths=(4, 8), hidden=8).eval()


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(resolution=32, patch=8, width=16, depth=2, heads=2, mlp=32, hidden=8).eval()


@pytest.mark.parametrize("batch_size", [3, 100])
def test_parts_are_replaced_as_by_hand(cnn: CNN, batch_size: int) -> None:
    segments = SEGMENTS.clone()
    segments[:8, :8] = -1  # always present
    other = torch.zeros(3, 32, 32)
    (answer,) = image_answers(cnn, IMAGE[None], other[None], segments[None], batch_size)
    found = answer(PRESENCE)
    composed = torch.stack([IMAGE] * len(PRESENCE))
    for image, row in zip(composed, PRESENCE, strict=True):
        for part in (~row).nonzero()[:, 0].tolist():
            image[:, segments == part] = 0
    torch.testing.assert_close(found, log_odds(cnn(composed)).detach())
    torch.testing.assert_close(predict_log_odds(cnn, composed, batch_size), found)
    assert not found.requires_grad


@pytest.mark.parametrize("batch_size", [3, 100])
def test_absent_patches_are_replaced_token_by_token(vit: ViT, batch_size: int) -> None:
    with torch.no_grad():
        tokens = vit.tokens(IMAGE[None])[0]
        other = torch.randn_like(tokens)
        composed = torch.where(PRESENCE[:, :, None], tokens, other)
        expected = log_odds(vit.from_tokens(composed))
    (answer,) = token_answers(vit, tokens[None], other, batch_size)
    torch.testing.assert_close(answer(PRESENCE), expected)


def test_absent_patches_look_like_the_background_s_mean(vit: ViT) -> None:
    background = torch.rand(5, 3, 32, 32)
    tokens, mean = compared_tokens(vit, IMAGE[None], background, batch_size=2)
    torch.testing.assert_close(tokens, vit.tokens(IMAGE[None]).detach())
    torch.testing.assert_close(mean, vit.tokens(background).mean(dim=0).detach())


def test_mask_is_what_is_brighter_than_the_limit_in_any_channel() -> None:
    image = torch.zeros(1, 3, 1, 4)
    image[0, 0, 0, 1] = LIT / 255
    image[0, 1, 0, 2] = (LIT + 1) / 255
    image[0, 2, 0, 3] = 1.0
    assert cell_mask(image)[0, 0].tolist() == [False, False, True, True]


def test_blur_is_a_gaussian_of_an_eighth_of_the_side() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[:, :, 16, 16] = 1
    line = torch.arange(33) - 16
    bell = torch.exp(-((line / (33 / 8)) ** 2) / 2)
    bell = torch.where(line.abs() <= 12, bell, 0)
    bell = bell / bell.sum()
    torch.testing.assert_close(hidden(image, "blur")[0, 0], bell[:, None] * bell, atol=1e-4, rtol=0)


def disk() -> Tensor:
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 8:24, 8:24] = torch.linspace(0.2, 0.8, 16)
    return image


def test_hidden_cells_keep_mask_or_coarse_structure_or_nothing() -> None:
    image = disk()
    hows: tuple[Hide, ...] = ("cell", "black", "blur")
    assert not any(hidden(0 * image, how).any() for how in hows)
    flat = hidden(image, "cell")
    assert bool((cell_mask(flat) == cell_mask(image)).all())
    torch.testing.assert_close(flat[0, 0, 8:24, 8:24], torch.full((16, 16), 0.5))
    assert float(hidden(image, "black").abs().max()) == 0
    blurred = hidden(image, "blur")
    assert float(blurred.std()) < 0.8 * float(image.std())
    assert float(blurred.mean()) == pytest.approx(float(image.mean()), rel=0.1)


def test_blur_is_the_same_under_autocast() -> None:
    image = disk().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = hidden(image, "blur")  # in bfloat16 it would not end
    torch.testing.assert_close(found, hidden(image, "blur"))


def test_sum_over_a_segment_is_its_value() -> None:
    assert patch_segments(6, 9, 1)[0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    segments = patch_segments(32, 4, 2)
    segments[1, :16, :4] = -1
    values = torch.tensor([[1.0, -2.0, 3.0, 0.0], [4.0, 5.0, -6.0, 7.0]])
    maps = spread(values, segments)
    for image in range(2):
        for part in range(4):
            inside = segments[image] == part
            assert float(maps[image][inside].sum()) == pytest.approx(float(values[image, part]))
            assert maps[image][inside].unique().numel() == 1
    assert float(maps[1, :16, :4].abs().max()) == 0
