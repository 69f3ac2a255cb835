"""Networks of timm without their heads, with weights from its hub, a file or a Python package."""

import logging
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file  # comes with timm
from torch import Tensor, nn

from leuk.config.nearest import nearest
from leuk.errors import ConfigError
from leuk.evaluate.lite0 import NAME, lite0_file, lite0_network

log = logging.getLogger(__name__)

HUB = "imagenet"
"""Weights that timm's hub has for a network."""

PACKAGE = "lite0-package"
"""Weights of EfficientNet-lite0 from a Python package."""

RANDOM = "none"
"""Weights as they are initialised."""


def build_backbone(name: str, weights: str, side: int) -> nn.Module:
    """A network of timm without its head.

    Under ``torch.device("meta")`` nothing is read or downloaded, but a file or package that is
    missing is found.

    Args:
        name: in timm, with or without the tag of its weights.
        weights: :data:`HUB`, :data:`PACKAGE`, :data:`RANDOM`, or the file of a state dict.
        side: pixels a side of its images.

    Raises:
        ConfigError: a network that there is not or that cannot take such images; weights that are
            missing, cannot be read, or are another network's.
    """
    if not timm.is_model(name):
        match = nearest(name, timm.list_models())
        known = f"did you mean {match}?" if match else "timm.list_models() lists those there are"
        raise ConfigError(f"model.backbone={name}: no network of timm; {known}")
    if weights == PACKAGE and name != NAME:
        raise ConfigError(
            f"model.weights={PACKAGE}: they are of {NAME} and not of {name}; set "
            f"model.weights={HUB} or the file of its weights"
        )
    file = _file(weights)
    network = _create(name, side, pretrained=False)
    if not next(network.parameters()).is_meta:
        if weights == HUB:
            network = _create(name, side, pretrained=True)
        elif weights == PACKAGE:
            assert file is not None
            _take(network, lite0_network(file, "model.weights").state_dict(), weights)
        elif file is not None:
            _take(network, _read(file), weights)
    for module in network.modules():
        # An explanation method needs what goes into an activation.
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 - mypy takes it for a tensor
    return network


def _file(weights: str) -> Path | None:
    if weights in (HUB, RANDOM):
        return None
    if weights == PACKAGE:
        return lite0_file(None, "model.weights")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"model.weights={weights}: no such file; name one, or {HUB}, {PACKAGE} or {RANDOM}"
        )
    return path


def _create(name: str, side: int, pretrained: bool) -> nn.Module:
    config: Any = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {}
    if config is not None and config.fixed_input_size and side != config.input_size[-1]:
        size = {"img_size": side}
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    except Exception as error:  # whatever a hub, a cache or one of 1,000 constructors raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if pretrained:
            raise ConfigError(
                f"model.weights={HUB}: timm's hub gave none for {name} ({reason}); go online, set "
                f"model.weights=FILE, or model.weights={RANDOM} to start from random ones"
            ) from error
        raise ConfigError(f"model.backbone={name} at {side} px: {reason}") from error
    assert isinstance(network, nn.Module)
    return network


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        given = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            given = given.get(key, given)
        return dict(given)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        # Not torch's own words, which advise to run whatever code the file holds.
        raise ConfigError(
            f"{path}: cannot be read as weights ({type(error).__name__}); name a state dict that "
            "torch.save wrote, or a .safetensors file"
        ) from error


_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "teacher.", "student.")
"""Prefixes that data-parallel, compiled and self-supervised training put before each name."""


def _take(network: nn.Module, given: dict[str, Tensor], source: str) -> None:
    """Load all tensors of a network from the weights of the same network with or without a head.

    Args:
        network: without a head.
        given: tensors by name, all of them perhaps behind wrappers of :data:`_WRAPPERS`.
        source: of the weights, for messages.

    Raises:
        ConfigError: tensors that are missing, of another shape, or left over beside those of a
            head; with their counts.
    """
    own = network.state_dict()
    given = _unwrapped(given, set(own))
    matched = {name for name in own if name in given and given[name].shape == own[name].shape}
    unmatched = [name for name in own if name not in matched]
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    heads = tuple(f"{head}." for head in heads) + _HEADS
    left_over = [name for name in given if name not in own and not name.startswith(heads)]
    if unmatched or left_over:
        first = f", {unmatched[0]} first" if unmatched else f", {left_over[0]} first"
        raise ConfigError(
            f"model.weights={source}: not of this backbone: {len(matched)} of {len(own)} tensors "
            f"matched, {len(unmatched)} missing or of another shape, {len(left_over)} left "
            f"over{first}; name the file of its own"
        )
    network.load_state_dict({name: given[name] for name in own})
    log.info("model.weights=%s: all %d tensors of the backbone loaded", source, len(own))


_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "fc_norm.", "dino_head.", "ibot_head.")
"""Names of the layers behind the features, which a backbone lacks."""


def _unwrapped(given: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Drop wrappers from the names until one of them matches or none is left."""
    while not own & set(given):
        for wrapper in _WRAPPERS:
            inner = {
                name.removeprefix(wrapper): tensor
                for name, tensor in given.items()
                if name.startswith(wrapper)
            }
            if inner:
                given = inner
                break
        else:
            break
    return given
