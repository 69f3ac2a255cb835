"""Grad-CAM (Selvaraju et al. 2017), by Captum, signed."""

import time

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import Count
from leuk.explain.explainer import Attribution, Explainer


class GradCAM(Explainer):
    """Activations of the classifier's CAM layer, weighed by the mean gradient of the logit.

    The map keeps its sign (the ReLU of the paper is left to who draws it), so that evidence
    against the target shows too.

    Args:
        batch_size: images a pass.
    """

    name = "gradcam"

    def __init__(self, batch_size: Count = 64) -> None:
        self.batch_size = batch_size

    def attribute(self, classifier: Classifier, images: Tensor, target: int) -> Attribution:
        """Maps at the size of the images; see :meth:`Explainer.attribute`.

        Raises:
            ValueError: the CAM layer gives no (B, C, h, w) activations, on which Captum would
                silently return a map without meaning.
        """
        started = time.perf_counter()
        training = classifier.training
        classifier.eval()
        method = LayerGradCam(classifier, classifier.cam_layer)
        with torch.inference_mode(False), torch.enable_grad():
            maps = [self._maps(method, part, target) for part in images.split(self.batch_size)]
        classifier.train(training)
        return Attribution(torch.cat(maps), "pixel", time.perf_counter() - started)

    def _maps(self, method: LayerGradCam, images: Tensor, target: int) -> Tensor:
        coarse = method.attribute(images, target=target)
        if not isinstance(coarse, Tensor) or coarse.ndim != 4 or coarse.shape[1] != 1:
            raise ValueError("Grad-CAM needs a layer with (B, C, h, w) activations")
        fine = LayerAttribution.interpolate(coarse, tuple(images.shape[2:]), "bilinear")
        assert isinstance(fine, Tensor)
        return fine[:, 0].detach().float().cpu()
