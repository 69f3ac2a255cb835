"""Baselines that every model is compared with: majority class, cell area, morphology."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage.measure import label, regionprops
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from leuk.data.decode import cell_mask
from leuk.metrics.arrays import Floats, Images, Integers, check_images
from leuk.metrics.synthetic.distances import Patients, patient_numbers
from leuk.metrics.synthetic.features import Extractor, Features

# --- Probes of synthetic images: separability from real images, and usefulness for training

_FOLDS = 5
_STRENGTH = 0.01
"""Inverse of the L2 penalty, which is strong as features outnumber images."""

_STEPS = 1000


def two_sample_auroc(
    synthetic: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> float | None:
    """Separate synthetic from real images: the classifier two-sample test.

    The stain alone separates real images of different patients, so the value must be compared with
    that of training images (Lopez-Paz & Oquab 2017). All images of a patient are in the same fold,
    since a probe that has seen other images of a patient recognizes the patient, not the set.
    Arguments are those of :func:`leuk.metrics.synthetic.distances.distances`.

    Returns:
        AUROC of cross-validation in five folds, or in as many as the set with the fewest patients
        has: 0.5 for sets that cannot be separated, 1 for perfect separation. None if a set has a
        single patient.
    """
    features, labels = _stacked(synthetic, real)
    codes = [
        patient_numbers(synthetic_patients, len(synthetic)),
        patient_numbers(real_patients, len(real)),
    ]
    count = min(_FOLDS, *(int(patients.max()) + 1 for patients in codes))
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    folds = np.concatenate([_folds(patients, count, generator) for patients in codes])
    scores = cross_val_predict(
        _probe(), features, labels, cv=PredefinedSplit(folds), method="decision_function"
    )
    return float(roc_auc_score(labels, scores))


def _folds(patients: Integers, count: int, generator: np.random.Generator) -> Integers:
    """Assign whole patients to folds, the largest first, each to the smallest fold so far."""
    images = np.bincount(patients)
    order = generator.permutation(len(images))
    filled = np.zeros(count)
    fold_of = np.zeros(len(images), np.int64)
    for patient in order[np.argsort(-images[order], kind="stable")]:
        fold_of[patient] = np.argmin(filled)
        filled[fold_of[patient]] += images[patient]
    return fold_of[patients]


def usefulness(
    train: Features, train_other: Features, test: Features, test_other: Features
) -> float:
    """Train a probe on a pair of sets and classify another pair.

    With synthetic training images this is "train on synthetic, test on real" (Esteban et al. 2017),
    to be compared with as many real training images. If a single class is synthetic, the probe may
    learn the look of synthetic images instead of the class; the AUROC then falls, as it should.

    Args:
        train: features of images of a class, synthetic or real.
        train_other: features of images of the other class.
        test: features of held-out real images of the class.
        test_other: features of held-out real images of the other class.

    Returns:
        AUROC on the test sets: 0.5 for no information, below 0.5 for a misleading probe.
    """
    probe = _probe().fit(*_stacked(train, train_other))
    features, labels = _stacked(test, test_other)
    return float(roc_auc_score(labels, probe.decision_function(features)))


def _probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=_STEPS))


def _stacked(one: Features, other: Features) -> tuple[Floats, Integers]:
    if one.name != other.name:
        raise ValueError(f"features of different extractors: {one.name} and {other.name}")
    features = np.concatenate([one.pooled, other.pooled]).astype(np.float64)
    return features, np.repeat([1, 0], [len(one), len(other)])


# --- Area, shape, color and texture of cells, and distances between two sets of images in these

MEASURES = ("area", "eccentricity", "solidity", "red", "green", "blue", "texture", "specks")
"""Names of the measures, in the order of the columns of :func:`measure_each`."""

_LEAST = np.array([0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 0.01])
"""Lower bounds of the standard deviations: specks hardly vary between real cells, and a single
stray pixel must not outweigh all other measures."""

_RIM = 2
"""Width in pixels of the rim excluded from the texture, which would measure the edge occupied."""


def measure_each(images: Images) -> Floats:
    """Measure each cell of ``uint8 (N, R, R, 3)``.

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
    return np.array([_measured(image) for image in images])


def _measured(image: Images) -> list[float]:
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


class MorphologyExtractor(Extractor):
    """Extractor that uses cell measures as features and needs no network.

    Measures are standardized by the mean and standard deviation of the given images, the latter at
    least the smallest visible difference: 0.01 for shares, one gray level for colors.

    Args:
        images: real training images ``uint8 (M, R, R, 3)``.
    """

    name = "cell measures"

    def __init__(self, images: Images) -> None:
        own = measure_each(images)
        self._mean = own.mean(axis=0)
        self._spread = np.maximum(own.std(axis=0), _LEAST)

    def __call__(self, images: Images) -> Features:
        return self.of(measure_each(images))

    def of(self, measures: Floats) -> Features:
        """Features from measures ``float64 (N, 8)``."""
        scaled = (measures - self._mean) / self._spread
        return Features(self.name, False, scaled.astype(np.float32))


def morphology_distance(synthetic: Floats, real: Floats) -> dict[str, float | None]:
    """Distance of two sets in each measure, in standard deviations of the real set.

    Args:
        synthetic: measures ``float64 (N, 8)``; images without a lit pixel are left out.
        real: the same of the real images, ``float64 (M, 8)``.

    Returns:
        For each of :data:`MEASURES` the Wasserstein-1 distance of the two sets over the standard
        deviation of the real set (0 is best), and their ``mean``; None if all images of a set are
        empty.
    """
    one, other = (rows[rows[:, 0] > 0] for rows in (synthetic, real))
    if not len(one) or not len(other):
        return dict.fromkeys((*MEASURES, "mean"))
    found = [
        float(wasserstein_distance(a, b) / (b.std() or 1.0))
        for a, b in zip(one.T, other.T, strict=True)
    ]
    return {**dict(zip(MEASURES, found, strict=True)), "mean": float(np.mean(found))}


# --- Baselines


Scorer = Callable[[pd.DataFrame], Floats]
"""From a table of measures, a row per image, to the probability of leukemia ``(N,)``."""


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on a few measures of each cell, standardized on training images.

    Attributes:
        columns: the measures it uses; without any, every image gets the share of leukemic images
            among the training images.
    """

    columns: tuple[str, ...] = ()

    def fitted(self, measures: pd.DataFrame, labels: Integers) -> Scorer:
        """Fit on training images.

        Args:
            measures: a row per image, with :attr:`columns` among its columns.
            labels: ``(N,)``, 1 = leukemic; both classes present.
        """
        if self.columns:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS))
        else:
            model = DummyClassifier(strategy="prior")
        columns = list(self.columns)
        model.fit(measures[columns].to_numpy(np.float64), labels)
        return lambda table: np.asarray(
            model.predict_proba(table[columns].to_numpy(np.float64))[:, 1]
        )


BASELINES = {
    "majority": Baseline(),
    "area": Baseline(("area",)),
    "morphology": Baseline(MEASURES),
}
