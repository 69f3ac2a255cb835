"""Schemas of the commands that use a finished run."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class PredictConfig:
    """Config of ``leuk predict``, predictions for new images by a finished run."""

    run: str = MISSING
    """Folder of the finished run, under ``outputs/runs/<name>``."""
    images: str = MISSING
    """Image folder, a single image, or a text file with a path per line."""
    root: str | None = None
    """New location of the data set's images, if they have moved; needed once."""
    frame: str | None = None
    """Field of view that each image shows: ``same`` as the training images, or its longer side in
    pixels of the original frame or in µm, as ``data.frame``; null if the images have the
    size of training images."""
    pixel_size: float | None = None
    """Side of one pixel of the images, in pixels of the original frame (1 for images that were not
    resized) or in µm, as ``data.pixel_size``; in place of ``frame``."""
    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = MISSING
    """Folder of the predictions under ``outputs/predictions``; by default named like the images."""
    replace: bool = False
    """Replace existing predictions of the same run for these images."""
    threshold: str = "youden"
    """Decision threshold: ``youden`` or ``sensitivity`` (0.95), chosen on validation images;
    or ``0.5``."""
    aim: float = 0.95
    """Required share of correct decisions outside the band of scores that are referred to an
    expert. Must hold with 95 % confidence on validation patients; else all images are referred.
    """
    familiarity: bool = True
    """Compare images with the run's training images, which must be readable the first time."""
    overlays: int = 16
    """Number of images, from the start, with a figure of their Grad-CAM."""
    page_images: int = 200
    """Number of images on the page; the table contains all."""
    batch_size: int = 256
    """Images per forward pass."""
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExportConfig:
    """Config of ``leuk export``, the classifier of a finished run for use without leuk."""

    run: str = MISSING
    """Folder of the finished run, under ``outputs/runs/<name>``."""
    root: str | None = None
    """New location of the data set's images, if they have moved."""
    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = MISSING
    """Folder of the models under ``outputs/exports``; the name of the run's sweep by default."""
    replace: bool = False
    """Replace an existing exported model of the same run."""
    format: str = "onnx"
    """``onnx``, ``torchscript`` or ``safetensors``."""
    test_images: int = 64
    """Number of test images on which the exported model is compared with the original."""
    tolerance: float = 1e-4
    """Largest allowed difference between logits."""
