"""Structural similarity and diversity of synthetic images."""

import numpy as np
import pytest
from drawn_images import cells

from leuk.metrics import novelty as similarity
from leuk.metrics.novelty import diversity, nearest_similarity


@pytest.mark.parametrize("side", [16, 32, 64, 128, 224])
def test_diversity_at_every_resolution(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_PAIRS", 8)
    image = cells(1, 0, side / 4, side)
    assert diversity(image.repeat(4, 0), 0) == pytest.approx(0, abs=1e-6)
    assert 0 < diversity(cells(4, 0, side / 4, side), 0) < 1


def test_ssim_of_black_images_is_high_but_not_within_the_cell() -> None:
    synthetic, rows = cells(12, 0, radius=5), np.arange(12)
    assert nearest_similarity(synthetic, synthetic, rows) == pytest.approx(
        {"ssim": 1, "ssim_mask": 1}
    )
    black = nearest_similarity(np.zeros_like(synthetic), synthetic, rows)
    ssim, within = black["ssim"], black["ssim_mask"]
    assert ssim is not None
    assert ssim > 0.6
    assert within is not None
    assert within < 0.1
    nothing = nearest_similarity(np.zeros_like(synthetic), np.zeros_like(synthetic), rows)
    assert nothing["ssim_mask"] is None
