"""Grad-CAM (Selvaraju et al. 2017), by Captum, signed."""

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, Explainer, evaluation_mode, log_odds


class GradCAM(Explainer):
    """Activations of a layer, weighted by the mean gradient of the log-odds.

    Maps keep their sign, without the ReLU of the paper, to show evidence against the target too.

    Args:
        layer: name in ``named_modules()`` of a module with output ``(B, C, h, w)``; None for the
            classifier's own CAM layer.
        batch_size: images per pass.
    """

    name = "gradcam"
    title = "Grad-CAM"
    quantity = "activation x gradient of the log-odds of leukemia"
    thesis_figure = 9

    def __init__(self, layer: str | None = None, batch_size: Count = 64) -> None:
        self.layer = layer
        self.batch_size = batch_size

    def check(self, classifier: Classifier) -> None:
        if self.layer is not None:
            modules = dict(classifier.named_modules())
            if not self.layer or self.layer not in modules:
                raise ConfigError(self._wrong_layer(classifier, "no such layer"))

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        method = LayerGradCam(lambda batch: log_odds(classifier(batch)), self._layer_of(classifier))
        return Attribution(self._maps(method, classifier, images, None), "pixel")

    def of_classes(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Compute maps of each class's logit, ``float32 (2, B, R, R)`` on the CPU, healthy first.

        For a classifier with a single output, each map is the negative of the other. Images
        ``(B, 3, R, R)`` are in [0, 1], on the classifier's device.

        Raises:
            ConfigError: the layer does not exist or has no spatial output.
        """
        self.check(classifier)
        method = LayerGradCam(classifier, self._layer_of(classifier))
        with evaluation_mode(classifier):
            return torch.stack([self._maps(method, classifier, images, target) for target in Label])

    def _layer_of(self, classifier: Classifier) -> nn.Module:
        if self.layer is None:
            return classifier.cam_layer
        return classifier.get_submodule(self.layer)

    def _maps(
        self, method: LayerGradCam, classifier: Classifier, images: Tensor, target: int | None
    ) -> Tensor:
        maps = []
        with torch.autocast(images.device.type, enabled=False):
            for part in images.split(self.batch_size):
                coarse = method.attribute(part, target=target)
                if not isinstance(coarse, Tensor) or coarse.ndim != 4 or coarse.shape[1] != 1:
                    problem = "its activations have no shape (B, C, h, w)"
                    raise ConfigError(self._wrong_layer(classifier, problem))
                fine = LayerAttribution.interpolate(coarse, tuple(images.shape[2:]), "bilinear")
                assert isinstance(fine, Tensor)
                maps.append(fine[:, 0].detach().float().cpu())
        return torch.cat(maps)

    def _wrong_layer(self, classifier: Classifier, problem: str) -> str:
        known = ", ".join(layers_of(classifier))
        return f"explain.gradcam.layer={self.layer}: {problem}; choose from {known}"


def layers_of(classifier: Classifier) -> list[str]:
    """Names of the layers that Grad-CAM can use: convolution, normalization, pooling, CAM layer."""
    spatial = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
    return [
        name
        for name, module in classifier.named_modules()
        if isinstance(module, spatial) or module is classifier.cam_layer
    ]
