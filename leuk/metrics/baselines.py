"""Baselines that every model is compared with: majority class, cell area, morphology."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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

from leuk.data.decode import LIT
from leuk.metrics.arrays import Floats, Images, Integers, check_images
from leuk.metrics.synthetic.distances import Patients, patient_numbers
from leuk.metrics.synthetic.features import Features

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

    The stain alone separates real images of different subjects, so the value must be compared with
    that of training images (Lopez-Paz & Oquab 2017). All images of a patient are in the same fold,
    since a probe that has seen other images of a patient recognizes the patient, not the set.

    Args:
        synthetic: features of the set to evaluate.
        real: features of the real images, from the same extractor.
        seed: seed of the folds.
        synthetic_patients: ``(N,)`` patients of ``synthetic`` if these are real images; None if its
            images are independent, such as those of a GAN.
        real_patients: ``(N,)`` patients of ``real``; None if its images are independent.

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
    folds = PredefinedSplit(
        np.concatenate([_folds(patients, count, generator) for patients in codes])
    )
    scores = cross_val_predict(_probe(), features, labels, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def _folds(
    patients: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
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
        test: features of held-out real images of the class of ``train``.
        test_other: features of held-out real images of the other class.

    Returns:
        AUROC on the test sets: 0.5 for no information, below 0.5 for a misleading probe.
    """
    probe = _probe().fit(*_stacked(train, train_other))
    features, labels = _stacked(test, test_other)
    return float(roc_auc_score(labels, probe.decision_function(features)))


def _probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=_STEPS))


def _stacked(
    one: Features, other: Features
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    if one.name != other.name:
        raise ValueError(f"features of different extractors: {one.name} and {other.name}")
    features = np.concatenate([one.pooled, other.pooled]).astype(np.float64)
    return features, np.repeat([1, 0], [len(one), len(other)])


# --- Area, shape, color and texture of cells, and distances between two sets of images in these

Mask = npt.NDArray[np.bool_]

MEASURES = ("area", "eccentricity", "solidity", "red", "green", "blue", "texture", "specks")
"""Names of the measures, in the order of :attr:`Morphology.values`."""

_LEAST = np.array([0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 0.01])
"""Lower bounds of the standard deviations: specks hardly vary between real cells, and a single
stray pixel must not outweigh all other measures."""

_RIM = 2
"""Width in pixels of the rim excluded from the texture, which would measure the edge occupied."""


@dataclass(frozen=True, eq=False)
class Morphology:
    """Measures of cells, a row per image that is not empty.

    Attributes:
        values: ``float64 (M, 8)``: share of the image that the cell covers, eccentricity of the
            ellipse with the same moments (0 to 1), share of its convex hull that it fills, mean
            red, green and blue (0 to 255), standard deviation of the Laplacian of its brightness
            (the focus measure of Pech-Pacheco et al. 2000; it depends on the resolution), and share
            of lit pixels outside its largest part.
        empty: number of images without a lit pixel, which have no row.
    """

    values: npt.NDArray[np.float64]
    empty: int

    @classmethod
    def of(cls, rows: npt.NDArray[np.float64]) -> "Morphology":
        """Build from rows ``float64 (N, 8)`` of :func:`measure_each`; empty images have area 0."""
        occupied = rows[:, 0] > 0
        return cls(rows[occupied], int((~occupied).sum()))

    @property
    def empty_share(self) -> float:
        """Share of images without a lit pixel, in [0, 1]."""
        return self.empty / (self.empty + len(self.values))


def measure(images: Images) -> Morphology:
    """Measure each cell of ``uint8 (N, R, R, 3)``.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    rows = [_measure(image) for image in images]
    kept = [row for row in rows if row is not None]
    values = np.array(kept, dtype=np.float64).reshape(len(kept), len(MEASURES))
    return Morphology(values, len(rows) - len(kept))


def measure_each(images: Images) -> npt.NDArray[np.float64]:
    """Measure each image, ``float64 (N, 8)``, with zeros for images without a lit pixel.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    values = np.zeros((len(images), len(MEASURES)))
    occupied = lit(images).any(axis=(1, 2))
    if occupied.any():
        values[occupied] = measure(images[occupied]).values
    return values


class MorphologyExtractor:
    """Extractor that uses cell measures as features and needs no network.

    Measures are standardized by the mean and standard deviation of the given images, the latter at
    least the smallest visible difference: 0.01 for shares, one gray level for colors.

    Args:
        images: real training images ``uint8 (M, R, R, 3)``.
    """

    name = "cell measures"
    inception = False

    def __init__(self, images: Images) -> None:
        self._images, self._own = images, measure_each(images)
        self._mean = self._own.mean(axis=0)
        self._spread = np.maximum(self._own.std(axis=0), _LEAST)

    def __call__(self, images: Images) -> Features:
        return self.of(self.measured(images))

    def measured(self, images: Images) -> npt.NDArray[np.float64]:
        """Return :func:`measure_each`, reused for the images that the extractor was built with."""
        return self._own if images is self._images else measure_each(images)

    def of(self, measures: npt.NDArray[np.float64]) -> Features:
        """Features from measures ``float64 (N, 8)``."""
        scaled = (measures - self._mean) / self._spread
        return Features(self.name, False, scaled.astype(np.float32))


def lit(images: Images) -> Mask:
    """Mask of the cells, ``bool (N, R, R)``: pixels whose brightest channel is above black."""
    return np.asarray(images.max(axis=-1) > LIT)


def _measure(image: Images) -> list[float] | None:
    mask = lit(image)
    if not mask.any():
        return None
    cell = max(regionprops(label(mask)), key=lambda region: region.area)
    inside = np.zeros_like(mask)
    inside[tuple(cell.coords.T)] = True
    return [
        float(cell.area / mask.size),
        float(cell.eccentricity),
        # A hull of a single pixel's width has no area.
        float(cell.solidity) if cell.area_convex else 1.0,
        *image[inside].mean(axis=0).tolist(),
        _texture(image, inside),
        float(1 - cell.area / mask.sum()),
    ]


def _texture(image: Images, inside: Mask) -> float:
    core = ndimage.binary_erosion(inside, iterations=_RIM)
    if not core.any():
        return 0.0
    gray = image.mean(axis=-1)
    return float(ndimage.laplace(gray)[core].std())


def morphology_distance(synthetic: Morphology, real: Morphology) -> dict[str, float | None]:
    """Distance of two sets in each measure, in standard deviations of the real set.

    Returns:
        For each of :data:`MEASURES` the Wasserstein-1 distance of the two sets over the standard
        deviation of the real set (0 is best), and their ``mean``; None if all images of a set are
        empty.
    """
    if not len(synthetic.values) or not len(real.values):
        return dict.fromkeys((*MEASURES, "mean"))
    found = [
        float(wasserstein_distance(a, b) / (b.std() or 1.0))
        for a, b in zip(synthetic.values.T, real.values.T, strict=True)
    ]
    return {**dict(zip(MEASURES, found, strict=True)), "mean": float(np.mean(found))}


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
        model.fit(self._chosen(measures), labels)
        return lambda table: np.asarray(model.predict_proba(self._chosen(table))[:, 1])

    def _chosen(self, measures: pd.DataFrame) -> Floats:
        return measures[list(self.columns)].to_numpy(np.float64)


BASELINES = {
    "majority": Baseline(),
    "area": Baseline(("area",)),
    "morphology": Baseline(MEASURES),
}
