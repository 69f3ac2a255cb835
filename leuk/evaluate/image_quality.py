"""How good made cells are: one table, with what its numbers mean beside them.

``judge`` is the way in. A distance alone says nothing, least of all at a few hundred cells; so the
made set is one row, and the same figures of sets whose quality is known are the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from leuk.data.effective import effective_patients
from leuk.evaluate.collapse import collapse, copying
from leuk.evaluate.distances import Metrics, Patients, distances, equal_rows
from leuk.evaluate.features import Extractor, Features
from leuk.evaluate.memorization import (
    closest_pairs,
    compare,
    copied,
    nearest_in_features,
    nearest_in_pixels,
)
from leuk.evaluate.morphology import (
    Morphology,
    MorphologyExtractor,
    measure_each,
    morphology_distance,
)
from leuk.evaluate.probes import two_sample_auroc, usefulness
from leuk.evaluate.similarity import diversity, nearest_similarity
from leuk.evaluate.vectors import Images, check_images

Rows = npt.NDArray[np.int64]

_SIMILAR = 500
"""Cells, in random order already, whose SSIM is enough for its mean."""

_WHOLE = ("synthetic", "train", "reference")
"""Sets that are searched for copies whole; of the others only what is compared is looked at."""

_SHOWN = 16
"""Pairs kept to be looked at."""


@dataclass(frozen=True, eq=False)
class RealImages:
    """What made cells are measured against; ``uint8 (N, R, R, 3)`` each.

    Attributes:
        train: the cells of the class that the GAN was fitted on.
        train_other: training cells of the other class.
        reference: cells of the class from subjects that the GAN never saw.
        reference_other: cells of the other class from such subjects.
        patients: by the name of a set above, ``(N,)`` the patient of each of its images; the images
            of a set that it does not name are independent.
    """

    train: Images
    train_other: Images
    reference: Images
    reference_other: Images
    patients: Mapping[str, Patients] = field(default_factory=dict)

    @property
    def sets(self) -> dict[str, Images]:
        """The sets by name."""
        return {name: value for name, value in vars(self).items() if name != "patients"}


@dataclass(frozen=True)
class Quality:
    """Everything measured; plain values, so that ``dataclasses.asdict`` of it is JSON.

    Attributes:
        extractor: whose features were used.
        n: cells in each set.
        rows: figures of each set against the same held-out real cells: ``made``; ``real``, the
            floor, training cells; ``other_class``; ``black``, black images; ``mean_image``, the
            mean training cell over and over. Of each: the figures of
            :func:`leuk.evaluate.distances.distances`; ``ssim`` and ``ssim_mask`` with the nearest
            held-out cells; ``diversity``; ``spread``, how much pixels differ between the images of
            the set (gray levels); ``distinct``, share of images that are not repeated; ``empty``,
            share of black images; ``morphology``, mean distance of the cells' measures; and
            ``two_sample_auroc``, AUROC of a probe that tells the set from held-out cells. The spread of a
            distance is None, and so is ``two_sample_auroc``, where patients are too few.
        morphology: for each row, how far each measure of the cells is off; see
            :func:`leuk.evaluate.morphology.morphology_distance`.
        memorization: in ``features`` and in ``pixels``; see
            :func:`leuk.evaluate.memorization.compare`; in ``pixels`` also ``copies``, the number of
            synthetic images that are exact or near-exact copies of training images of either class.
        closest: the pairs of made and training cell closest in pixels: row of the made cell, row of
            the training cell, distance in gray levels.
        usefulness: AUROC on held-out cells of a probe trained on ``made`` cells, and on ``real``.
        warnings: what is plainly wrong with the made cells; empty when nothing is.
        patients: effective number of patients of each real set as it was compared; empty where
            they are not known.
    """

    extractor: str
    n: int
    rows: dict[str, Metrics]
    morphology: dict[str, Metrics]
    memorization: dict[str, Metrics]
    closest: list[tuple[int, int, float]]
    usefulness: Metrics
    warnings: list[str]
    patients: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Cells:
    """A set of cells with what is found out about it once."""

    images: Images
    features: Features
    measures: npt.NDArray[np.float64]
    patients: Patients | None = None

    @classmethod
    def seen(
        cls, images: Images, extractor: Extractor, patients: Patients | None = None
    ) -> "_Cells":
        if isinstance(extractor, MorphologyExtractor):
            # Measuring takes as long as a network does.
            measures = extractor.measured(images)
            return cls(images, extractor.of(measures), measures, patients)
        return cls(images, extractor(images), measure_each(images), patients)

    @cached_property
    def shape(self) -> Morphology:
        return Morphology.of(self.measures)

    def take(self, rows: Rows) -> "_Cells":
        patients = None if self.patients is None else self.patients[rows]
        return _Cells(self.images[rows], self.features.take(rows), self.measures[rows], patients)


def judge(
    made: Images,
    real: RealImages,
    extractor: Extractor,
    seed: int,
    synthetic_other: Images | None = None,
) -> Quality:
    """Judge made cells of one class.

    All sets are cut down at random to the size of the smallest; only the search for copies uses all
    made, held-out and training cells. Each image goes through the extractor once.

    Args:
        made: ``uint8 (N, R, R, 3)``.
        real: real cells at the same resolution.
        extractor: gives the features.
        seed: of every random choice.
        synthetic_other: made cells of the other class, to train the probe of usefulness on; real ones
            take their place where there are none.

    Raises:
        ValueError: images that are not 8-bit, of different resolutions, or fewer than 10 in a set.
    """
    given = {"synthetic": made, **real.sets}
    if synthetic_other is not None:
        given["synthetic_other"] = synthetic_other
    _check_resolution(given)
    kept = equal_rows([len(images) for images in given.values()], seed)
    whose = real.patients
    sets = {name: _Cells.seen(given[name], extractor, whose.get(name)) for name in _WHOLE}
    equal = {
        name: sets[name].take(rows)
        if name in sets
        else _Cells.seen(images[rows], extractor, whose[name][rows] if name in whose else None)
        for (name, images), rows in zip(given.items(), kept, strict=True)
    }
    judged = _judged(equal, real.train, extractor)
    reference = equal["reference"]
    shapes = {
        name: morphology_distance(cells.shape, reference.shape) for name, cells in judged.items()
    }
    rows = {
        name: {**_figures(cells, reference, seed), "morphology": shapes[name]["mean"]}
        for name, cells in judged.items()
    }
    memorized, closest = _memorization(sets)
    copies = copied(made, real.train) | copied(made, real.train_other)
    memorized["pixels"]["copies"] = int(copies.sum())
    return Quality(
        extractor=extractor.name,
        n=len(kept[0]),
        rows=rows,
        morphology=shapes,
        memorization=memorized,
        closest=closest,
        usefulness=_usefulness(equal),
        warnings=[*collapse(rows["synthetic"], rows["real"]), *copying(memorized)],
        patients={
            name: effective_patients(cells.patients.tolist())
            for name, cells in equal.items()
            if cells.patients is not None
        },
    )


def _judged(equal: dict[str, _Cells], train: Images, extractor: Extractor) -> dict[str, _Cells]:
    """The sets of the table's rows, in their order."""
    n = len(equal["synthetic"].images)
    mean = np.mean(train, axis=0, keepdims=True).round().astype(np.uint8)
    return {
        "synthetic": equal["synthetic"],
        "real": equal["train"],
        "other_class": equal["reference_other"],
        "black": _repeated(np.zeros_like(mean), n, extractor),
        "mean_image": _repeated(mean, n, extractor),
    }


def _repeated(image: Images, n: int, extractor: Extractor) -> _Cells:
    return _Cells.seen(image, extractor).take(np.zeros(n, dtype=np.int64))


def _figures(cells: _Cells, reference: _Cells, seed: int) -> Metrics:
    """One row but for its morphology: see :attr:`Quality.rows`."""
    nearest = nearest_in_features(cells.features, reference.features)
    whose = cells.patients, reference.patients
    return {
        **distances(cells.features, reference.features, seed, *whose),
        **nearest_similarity(cells.images[:_SIMILAR], reference.images, nearest.rows[:_SIMILAR]),
        "diversity": diversity(cells.images, seed),
        "spread": _spread(cells.images),
        "distinct": len({image.tobytes() for image in cells.images}) / len(cells.images),
        "empty": cells.shape.empty_share,
        "two_sample_auroc": two_sample_auroc(cells.features, reference.features, seed, *whose),
    }


def _spread(images: Images) -> float:
    """Mean over pixels of their standard deviation over the images."""
    # Line by line: all pixels as floats would take eight times the memory of the images.
    return float(np.mean([images[:, line].std(axis=0).mean() for line in range(images.shape[1])]))


def _memorization(
    sets: dict[str, _Cells],
) -> tuple[dict[str, Metrics], list[tuple[int, int, float]]]:
    made, held_out, train = (sets[name] for name in ("synthetic", "reference", "train"))
    pixels = nearest_in_pixels(made.images, train.images)
    figures = {
        "features": compare(
            nearest_in_features(made.features, train.features),
            nearest_in_features(held_out.features, train.features),
            nearest_in_features(train.features, train.features, itself=False),
            held_out.patients,
        ),
        "pixels": compare(
            pixels,
            nearest_in_pixels(held_out.images, train.images),
            nearest_in_pixels(train.images, train.images, itself=False),
            held_out.patients,
        ),
    }
    return figures, closest_pairs(pixels, _SHOWN)


def _usefulness(equal: dict[str, _Cells]) -> Metrics:
    features = {name: cells.features for name, cells in equal.items()}
    test = features["reference"], features["reference_other"]
    other = features.get("synthetic_other", features["train_other"])
    return {
        "synthetic": usefulness(features["synthetic"], other, *test),
        "real": usefulness(features["train"], features["train_other"], *test),
    }


def _check_resolution(given: dict[str, Images]) -> None:
    for name, images in given.items():
        check_images(images)
        if images.shape[1:] != given["synthetic"].shape[1:]:
            raise ValueError(
                f"{name} cells have {images.shape[1]} pixels a side,"
                f" made ones {given['synthetic'].shape[1]}"
            )
