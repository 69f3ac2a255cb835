"""Pretrained network, fine-tuned on cell images."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file  # comes with timm
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.base import Classifier
from leuk.classifiers.optim import Optim, ParameterGroup
from leuk.config.schema import Count, Positive, Share
from leuk.config.targets import nearest
from leuk.errors import ConfigError
from leuk.metrics.synthetic.features import NAME, lite0_file, lite0_network

log = logging.getLogger(__name__)

HUB = "imagenet"
"""Pretrained weights from timm's hub."""

PACKAGE = "lite0-package"
"""Pretrained weights of EfficientNet-lite0 from a Python package."""

RANDOM = "none"
"""Random initial weights."""

_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "teacher.", "student.")
"""Prefixes of tensor names after data-parallel, compiled or self-supervised training."""

_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "fc_norm.", "dino_head.", "ibot_head.")
"""Names of head layers, which a backbone does not have."""


class Pretrained(Classifier):
    """Any timm network with its head replaced by a layer of two logits.

    The head learns at the rate of ``optim``, the backbone at a fraction of it (discriminative
    rates, Howard & Ruder 2018); in the first ``optim.frozen_epochs`` the backbone is frozen. Batch
    normalization uses the pretrained statistics even in training, because the test AUROC was lower
    with statistics of cell images. Checkpoints contain all weights, so loading one needs neither
    timm's hub nor the package.

    Raises:
        ConfigError: timm has no such network, or the network cannot take images of this size; the
            weights are missing, unreadable, or belong to another network. Under
            ``torch.device("meta")`` no weights are read or downloaded, but a missing file or
            package is reported.
    """

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels
        backbone: str = "tf_efficientnet_lite0",  # timm's name, with or without a tag of weights
        # HUB; PACKAGE, only for tf_efficientnet_lite0; RANDOM; or the path of a state dict (.pth or
        # .safetensors).
        weights: str = "imagenet",
        side: Count | None = None,  # in pixels, to which images are resized; None for resolution
        dropout: Share = 0.2,  # dropout rate of the features
        backbone_rate: Positive = 0.1,  # factor on the learning rate of the backbone
        # Keep mean and variance of batch normalization, while scale and offset are trained; ignored
        # with RANDOM weights, which have no statistics.
        frozen_statistics: bool = True,
        optim: Optim | Mapping[str, Any] = Optim(test_views=8),
    ) -> None:
        super().__init__(optim)
        # A model loaded from a checkpoint gets its weights from there.
        self.save_hyperparameters({"weights": RANDOM})
        self.side = side or resolution
        self.backbone_rate = backbone_rate
        self.frozen_statistics = frozen_statistics and weights != RANDOM
        network: Any = _build(backbone, weights, self.side)
        self.backbone = network
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))
        self.channels_first = getattr(network, "output_fmt", "NCHW") != "NHWC"
        self.normalize_by(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        self.grid = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(network.head_hidden_size or network.num_features, 2)
        if self.head.weight.is_meta:  # then a forward pass costs nothing
            try:
                self.eval()(torch.empty(2, 3, self.side, self.side))
                self.train()
            except Exception as error:  # the 1,000 networks raise many kinds
                raise ConfigError(
                    f"model.backbone={backbone} at {self.side} px: {_reason(error)}; set "
                    "model.side, or choose another backbone"
                ) from error

    def features(self, images: Tensor) -> Tensor:
        inputs = self.normalized(images)
        if inputs.shape[2] != self.side:
            smaller = self.side < inputs.shape[2]  # only downsampling needs antialiasing
            size = (self.side, self.side)
            inputs = F.interpolate(inputs, size, mode="bilinear", antialias=smaller)
        network: Any = self.backbone
        maps = network.forward_features(inputs)
        features: Tensor
        if maps.ndim == 3:  # (B, prefix + N, D)
            # The mean of the patch tokens, because with [CLS] they would have no gradient here.
            patches = maps[:, self.prefix :].transpose(1, 2)
            rows = math.isqrt(patches.shape[2])
            features = self.grid(patches.unflatten(2, (rows, -1))).mean(dim=(2, 3))
        elif self.channels_first:
            features = network.forward_head(self.grid(maps), pre_logits=True)
        else:
            grid = self.grid(maps.permute(0, 3, 1, 2))
            features = network.forward_head(grid.permute(0, 2, 3, 1), pre_logits=True)
        return features

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(features))
        return logits

    @property
    def cam_layer(self) -> nn.Module:
        """Last feature map of the backbone, or its patch tokens as a map."""
        return self.grid

    def parameter_groups(self) -> list[ParameterGroup]:
        backbone = list(self.backbone.parameters())
        return [(list(self.head.parameters()), 1.0), (backbone, self.backbone_rate)]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        finds_unused = getattr(self.trainer.strategy, "_ddp_kwargs", {}).get(
            "find_unused_parameters", False
        )
        if self.optim.frozen_epochs and self.trainer.world_size > 1 and not finds_unused:
            raise ConfigError(
                f"model.optim.frozen_epochs={self.optim.frozen_epochs}: with several processes, "
                "DDP waits for gradients of the frozen weights; set "
                "trainer.strategy=ddp_find_unused_parameters_true or model.optim.frozen_epochs=0"
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        learns = self.current_epoch >= self.optim.frozen_epochs
        self.backbone.requires_grad_(learns).train(learns)
        if self.frozen_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


# --- Backbones: timm's networks without their heads, and their weights


def _build(name: str, weights: str, side: int) -> nn.Module:
    if not timm.is_model(name):
        match = nearest(name, timm.list_models())
        hint = f"did you mean {match}?" if match else "timm.list_models() lists the names"
        raise ConfigError(f"model.backbone={name}: timm has no such network; {hint}")
    if weights == PACKAGE and name != NAME:
        raise ConfigError(
            f"model.weights={PACKAGE}: these are weights of {NAME}, not of {name}; set "
            f"model.weights={HUB} or model.weights=FILE"
        )
    file = lite0_file(None, "model.weights") if weights == PACKAGE else Path(weights).expanduser()
    if weights not in (HUB, RANDOM, PACKAGE) and not file.is_file():
        raise ConfigError(
            f"model.weights={weights}: no such file; set a file, {HUB}, {PACKAGE} or {RANDOM}"
        )
    network = _create(name, side, pretrained=False)
    if not next(network.parameters()).is_meta:
        if weights == HUB:
            network = _create(name, side, pretrained=True)
        elif weights == PACKAGE:
            _load(network, lite0_network(file, "model.weights").state_dict(), weights)
        elif weights != RANDOM:
            _load(network, _read(file), weights)
    for module in network.modules():
        # Explanation methods need the input of an activation, which in-place ones overwrite.
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 - mypy infers a tensor
    return network


def _create(name: str, side: int, pretrained: bool) -> nn.Module:
    config: Any = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {}
    if config is not None and config.fixed_input_size and side != config.input_size[-1]:
        size = {"img_size": side}
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    except Exception as error:  # the hub, its cache and 1,000 constructors raise many kinds
        if pretrained:
            raise ConfigError(
                f"model.weights={HUB}: cannot get weights of {name} from timm's hub "
                f"({_reason(error)}); go online, or set model.weights=FILE, or "
                f"model.weights={RANDOM} for random weights"
            ) from error
        raise ConfigError(f"model.backbone={name} at {side} px: {_reason(error)}") from error
    assert isinstance(network, nn.Module)
    return network


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            loaded = loaded.get(key, loaded)
        return dict(loaded)
    except Exception as error:  # a damaged file can raise any kind
        # Without torch's own message, which advises to load with weights_only=False, i.e. to run
        # any code in the file.
        raise ConfigError(
            f"{path}: cannot be read as weights ({type(error).__name__}); give a state dict "
            "written by torch.save, or a .safetensors file"
        ) from error


def _load(network: nn.Module, given: dict[str, Tensor], source: str) -> None:
    """Load weights with or without a head, whose names may have prefixes, into a network."""
    own = network.state_dict()
    while not own.keys() & given.keys():
        prefix = next((w for w in _WRAPPERS if any(name.startswith(w) for name in given)), None)
        if prefix is None:
            break
        given = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
    matched = {name for name in own if name in given and given[name].shape == own[name].shape}
    unmatched = [name for name in own if name not in matched]
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    heads = tuple(f"{head}." for head in heads) + _HEADS
    unknown = [name for name in given if name not in own and not name.startswith(heads)]
    if unmatched or unknown:
        first = f", {(unmatched or unknown)[0]} first"
        raise ConfigError(
            f"model.weights={source}: weights of another backbone: {len(matched)} of {len(own)} "
            f"tensors match, {len(unmatched)} are missing or have another shape, {len(unknown)} "
            f"are unknown{first}; give the weights of this backbone"
        )
    network.load_state_dict({name: given[name] for name in own})
    log.info("model.weights=%s: loaded all %d tensors of the backbone", source, len(own))
