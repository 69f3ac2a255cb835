"""Grad-CAM of new images, drawn over them: a file per image, and a sheet with the color bar."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leuk.data.labels import Label
from leuk.evaluate.vectors import Images
from leuk.explain.explainer import Attribution
from leuk.explain.gradcam import GradCAM
from leuk.explain.overlays import drawn_of, save_overlays, to_pixels
from leuk.runs.predictor import Predictor
from leuk.store.atomic import whole_file

FOLDER = "overlays"
SHEET = "overlays.png"

_ON_SHEET = 48
"""Maximum number of images on the sheet, so that viewers can open it."""

_SIDE = 224
"""Minimum side of an overlay in pixels."""


def save_maps(
    folder: Path,
    predictor: Predictor,
    images: Mapping[int, Images],
    captions: Mapping[int, str],
    title: str,
) -> dict[int, str]:
    """Explain images by Grad-CAM for leukemia and draw the maps.

    Args:
        folder: output folder.
        predictor: classifier with its device and precision.
        images: pixels ``uint8 (R, R, 3)``, by number from 0.
        captions: captions of the images, by the same numbers.
        title: title of the sheet.

    Returns:
        File of each image, relative to the folder.
    """
    if not images:
        return {}
    batch = predictor.images(np.stack(list(images.values())))
    # Grad-CAM ignores the background, for which the first image stands in.
    maps = [
        GradCAM().attribute(predictor.classifier, part, Label.ALL, part[:1]).maps
        for part in batch.split(predictor.batch_size)
    ]
    drawn = drawn_of("gradcam", Attribution(torch.cat(maps), "pixel"))
    files = {number: f"{FOLDER}/{number + 1:05d}.png" for number in images}
    for position, (file, image) in enumerate(zip(files.values(), to_pixels(batch), strict=True)):
        inked = (drawn.over(position, image) * 255).round().astype(np.uint8)
        times = max(1, -(-_SIDE // len(inked)))
        with whole_file(folder / file) as temporary:
            Image.fromarray(inked.repeat(times, axis=0).repeat(times, axis=1)).save(temporary)
    numbered = [f"{number + 1}: {captions[number]}" for number in images][:_ON_SHEET]
    save_overlays(folder / SHEET, batch[:_ON_SHEET], drawn, numbered, title)
    return files
