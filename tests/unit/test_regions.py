"""Shares of maps in the cell's border, its interior and the background."""

import numpy as np
import pytest
import torch
from explained import SIDE, disc, some_cells
from torch import Tensor

from leuk.explain.quality.regions import region_shares, regions_of

BIG = 128
REGIONS = ("border", "interior", "cell", "background")


def painted(*masks: Tensor) -> Tensor:
    return 0.6 * torch.stack(masks)[:, None].float().repeat(1, 3, 1, 1)


@pytest.mark.parametrize("band", [0.05, 0.1, 0.25])
def test_band_has_the_specified_width(band: float) -> None:
    cell = disc(50, BIG)
    regions = regions_of(painted(cell), band)
    assert torch.equal(regions["cell"][0], cell)
    assert torch.equal(regions["background"][0], ~cell)
    line = torch.arange(BIG) - (BIG - 1) / 2
    away = 50 - torch.hypot(line[:, None], line)
    assert bool(regions["border"][0][cell & (away < 100 * band - 1)].all())
    assert not bool(regions["border"][0][away > 100 * band + 1].any())
    assert float(regions["border"].sum() / cell.sum()) == pytest.approx(
        1 - (1 - 2 * band) ** 2, abs=0.02
    )


@pytest.mark.parametrize("value", [0.3, -0.3])
def test_uniform_map_has_the_shares_of_the_area(value: float) -> None:
    images = some_cells(4)
    found = region_shares(torch.full((4, SIDE, SIDE), value), regions_of(images))
    for region in (*REGIONS, "border_of_cell"):
        np.testing.assert_allclose(found[f"absolute_{region}_ratio"], 1)
        np.testing.assert_allclose(found[f"absolute_{region}"], found[f"area_{region}"])
        positive = found[f"positive_{region}_ratio"]
        assert np.isnan(positive).all() if value < 0 else np.allclose(positive, 1)
    for kind in ("area", "absolute"):
        parts = [found[f"{kind}_{region}"] for region in REGIONS]
        np.testing.assert_allclose(parts[0] + parts[1], parts[2])
        np.testing.assert_allclose(parts[2] + parts[3], 1)


def test_map_of_one_region_is_found_there() -> None:
    cell = disc(40, BIG)
    images = painted(cell, cell)
    regions = regions_of(images)
    maps = regions["border"].double() - 2 * regions["interior"].double()
    found = region_shares(maps, regions)
    band, whole = regions["border"][0].sum(), cell.sum()
    np.testing.assert_allclose(found["positive_border"], 1)
    np.testing.assert_allclose(found["positive_background"], 0)
    np.testing.assert_allclose(found["positive_border_ratio"], BIG**2 / band)
    np.testing.assert_allclose(found["positive_border_of_cell_ratio"], whole / band)
    np.testing.assert_allclose(found["absolute_border"], band / (band + 2 * (whole - band)))


def test_cell_is_its_largest_component_without_holes() -> None:
    speck = torch.zeros(BIG, BIG, dtype=torch.bool)
    speck[2:6, 2:6] = True
    holed = disc(40, BIG) & ~disc(5, BIG)
    regions = regions_of(painted(holed | speck))
    assert torch.equal(regions["cell"][0], disc(40, BIG))
    assert bool(regions["interior"][0][disc(5, BIG)].all())


def test_image_edge_is_no_border() -> None:
    half = torch.ones(BIG, BIG, dtype=torch.bool)
    half[:, 64:] = False
    regions = regions_of(painted(half, torch.ones_like(half)))
    assert not bool(regions["border"][0, :, :20].any())
    assert bool(regions["border"][0, :, 60:64].all())
    assert not bool(regions["border"][1].any())
    ratios = region_shares(torch.ones(2, BIG, BIG), regions)["positive_border_ratio"]
    assert np.isfinite(ratios).tolist() == [True, False]


def test_no_cell_and_no_evidence_have_no_share() -> None:
    images = some_cells(3)
    images[1] = 0
    maps = torch.ones(3, SIDE, SIDE)
    maps[2] = -1
    found = region_shares(maps, regions_of(images))
    assert np.isnan(found["positive_border"]).tolist() == [False, True, True]
    assert np.isnan(found["absolute_border_ratio"]).tolist() == [False, True, False]
    assert np.isnan(found["area_cell"]).tolist() == [False, True, False]
