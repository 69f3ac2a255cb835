"""Settings of the device."""

from collections.abc import Iterator
from typing import cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from leuk.runs.trainer import TF32


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.parametrize(("enabled", "products"), [(True, "high"), (False, "highest")])
def test_tf32_applies_to_products_and_convolutions(enabled: bool, products: str) -> None:
    TF32(enabled).setup(cast(Trainer, None), cast(LightningModule, None), "fit")
    assert torch.get_float32_matmul_precision() == products
    assert torch.backends.cudnn.allow_tf32 is enabled
