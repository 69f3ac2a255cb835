"""Measures of cells, and the baselines from them that every model is compared with."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.measure import label, regionprops
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leuk.data.decode import cell_mask
from leuk.metrics.arrays import Floats, Images, Integers, check_images

MEASURES = ("area", "eccentricity", "solidity", "red", "green", "blue", "texture", "specks")
"""Names of the measures, in the order of the columns of :func:`measure_each`."""

_RIM = 2
"""Width in pixels of the rim excluded from the texture, which would measure the edge occupied."""


def measure_each(images: Images) -> Floats:
    """Measure area, shape, color and texture of each cell of ``uint8 (N, R, R, 3)``.

    Returns:
        ``float64 (N, 8)``: share of the image that the cell covers, eccentricity of the ellipse
        with the same moments (0 to 1), share of its convex hull that it fills, mean red, green and
        blue (0 to 255), standard deviation of the Laplacian of its brightness (the focus measure of
        Pech-Pacheco et al. 2000; it depends on the resolution), and share of lit pixels outside its
        largest part. All are 0 for an image without a lit pixel.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    return np.array([_measure(image) for image in images])


def _measure(image: Images) -> list[float]:
    mask = cell_mask(image)
    if not mask.any():
        return [0.0] * len(MEASURES)
    cell = max(regionprops(label(mask)), key=lambda region: region.area)
    inside = np.zeros_like(mask)
    inside[tuple(cell.coords.T)] = True
    core = ndimage.binary_erosion(inside, iterations=_RIM)
    return [
        float(cell.area / mask.size),
        float(cell.eccentricity),
        # A hull of a single pixel's width has no area.
        float(cell.solidity) if cell.area_convex else 1.0,
        *image[inside].mean(axis=0).tolist(),
        float(ndimage.laplace(image.mean(axis=-1))[core].std()) if core.any() else 0.0,
        float(1 - cell.area / mask.sum()),
    ]


BASELINES: dict[str, tuple[str, ...]] = {"majority": (), "area": ("area",), "morphology": MEASURES}
"""Name of each baseline to the measures that it uses."""

Scorer = Callable[[pd.DataFrame], Floats]
"""From a table of measures, a row per image, to the probability of leukemia ``(N,)``."""


def fit_baseline(name: str, measures: pd.DataFrame, labels: Integers) -> Scorer:
    """Fit a baseline on training images: logistic regression on standardized measures.

    Without a measure, every image gets the share of leukemic images among the training images.
    """
    columns = list(BASELINES[name])
    model = DummyClassifier(strategy="prior")
    if columns:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(measures[columns].to_numpy(np.float64), labels)
    return lambda table: np.asarray(model.predict_proba(table[columns].to_numpy(np.float64))[:, 1])
