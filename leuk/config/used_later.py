"""The keys of the commands that put a finished cell of the grid to use, with their types."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class PredictConfig:
    """New cells judged by a finished cell of the grid: ``leuk predict``."""

    run: str = MISSING
    """Folder of the finished cell, below ``outputs/runs/<name>``."""
    images: str = MISSING
    """Folder of cell images, one image, or a text file with a path a line."""
    root: str | None = None
    """Where the images of the data set lie now, if they have moved since; only the first time."""
    frame: str | None = None
    """Field of view that each image shows: ``same`` as the training images, or its longer side in
    pixels of the original frame or in µm, as ``data.frame``; null: of the training size."""
    pixel_size: float | None = None
    """Side of one pixel of the images, in pixels of the original frame (1 for images that were not
    resized) or in µm, as ``data.pixel_size``; in place of ``frame``."""
    outputs: str = "outputs"
    """Everything written goes under this folder."""
    name: str = MISSING
    """Folder of the predictions under ``outputs/predictions``; that of the images by default."""
    threshold: str = "youden"
    """Chosen on validation cells: ``youden``, ``sensitivity`` (of 0.95), or ``0.5``."""
    aim: float = 0.95
    """Share of correct decisions outside the band of scores that is left to an expert; promised
    with 95 % confidence by validation patients, else every image is referred."""
    familiarity: bool = True
    """Whether cells are compared with the run's training cells, which the first time needs them."""
    overlays: int = 16
    """How many cells, the first ones, get a picture of their Grad-CAM."""
    page_cells: int = 200
    """How many cells are on the page; all are in the table."""
    batch_size: int = 256
    """Images at a time."""
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExportConfig:
    """The classifier of a finished cell for use without leuk: ``leuk export``."""

    run: str = MISSING
    """Folder of the finished cell, below ``outputs/runs/<name>``."""
    root: str | None = None
    """Where the images of the data set lie now, if they have moved since."""
    outputs: str = "outputs"
    """Everything written goes under this folder."""
    name: str = MISSING
    """Folder of the models under ``outputs/exports``; that of the run's sweep by default."""
    format: str = "onnx"
    """``onnx``, ``torchscript`` or ``safetensors``."""
    cells: int = 64
    """How many test cells the exported model must agree on."""
    tolerance: float = 1e-4
    """Largest difference of a logit that is agreement."""
