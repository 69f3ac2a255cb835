"""Grad-CAM of new cells, drawn over them: a file a cell, and a sheet with the colour bar."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leuk.data.labels import Label
from leuk.evaluate.vectors import Images
from leuk.explain.explainer import Attribution
from leuk.explain.gradcam import GradCAM
from leuk.explain.overlays import as_cells, drawn_of, save_overlays
from leuk.runs.asking import Asker
from leuk.store.atomic import whole_file

FOLDER = "overlays"
SHEET = "overlays.png"

_ON_SHEET = 48
"""Cells on one picture; more would make it too large to open."""

_SIDE = 224
"""Least pixels a side of a file."""


def save_maps(
    folder: Path,
    asker: Asker,
    cells: Mapping[int, Images],
    captions: Mapping[int, str],
    title: str,
) -> dict[int, str]:
    """Explain cells by Grad-CAM for leukemia and draw it.

    Args:
        folder: where the files go.
        asker: whose decisions they are.
        cells: ``uint8 (R, R, 3)`` each, by number from 0.
        captions: likewise.
        title: over the sheet.

    Returns:
        The file of each cell, relative to the folder.
    """
    if not cells:
        return {}
    images = asker.images(np.stack(list(cells.values())))
    # Grad-CAM compares with nothing.
    parts = [
        GradCAM().attribute(asker.classifier, part, Label.ALL, part[:1]).maps
        for part in images.split(asker.batch_size)
    ]
    drawn = drawn_of("gradcam", Attribution(torch.cat(parts), "pixel"))
    files = {number: f"{FOLDER}/{number + 1:05d}.png" for number in cells}
    for position, (file, cell) in enumerate(zip(files.values(), as_cells(images), strict=True)):
        inked = (drawn.over(position, cell) * 255).round().astype(np.uint8)
        times = max(1, -(-_SIDE // len(inked)))
        with whole_file(folder / file) as temporary:
            Image.fromarray(inked.repeat(times, axis=0).repeat(times, axis=1)).save(temporary)
    said = [f"{number + 1}: {captions[number]}" for number in cells][:_ON_SHEET]
    save_overlays(folder / SHEET, images[:_ON_SHEET], drawn, said, title)
    return files
