"""Quality of synthetic images, as a table that includes reference sets.

:func:`assess_quality` is the entry point. A distance means little by itself, least of all with a
few hundred images, so the synthetic set is a row of a table, and sets of known quality are the
others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from leuk.data.splits import effective_patients
from leuk.metrics.arrays import Floats, Images, Integers, check_images
from leuk.metrics.baselines import measure_each
from leuk.metrics.synthetic.distances import (
    SMALLEST,
    Metrics,
    Patients,
    distances,
    diversity,
    equal_rows,
    morphology_distance,
    nearest_similarity,
    two_sample_auroc,
    usefulness,
)
from leuk.metrics.synthetic.features import Extractor, Features, MorphologyExtractor
from leuk.metrics.synthetic.memorization import (
    closest_pairs,
    compare,
    copied,
    nearest_in_features,
    nearest_in_pixels,
)

_SIMILAR = 500
"""Images, already in random order, that suffice for the mean SSIM."""

_WHOLE = ("synthetic", "train", "reference")
"""Sets searched for copies in full; of the others only the compared images are used."""

_SHOWN = 16
"""Closest pairs kept for the figure."""


@dataclass(frozen=True, eq=False)
class RealImages:
    """Real images to compare synthetic images with; each set is ``uint8 (N, R, R, 3)``.

    ``patients`` maps the name of a set to the patient of each image ``(N,)``; images of sets
    without an entry are independent.
    """

    train: Images  # of the class; the GAN was fitted on them
    train_other: Images  # of the other class
    reference: Images  # of the class, of subjects outside the GAN's training data
    reference_other: Images
    patients: Mapping[str, Patients] = field(default_factory=dict)

    @property
    def sets(self) -> dict[str, Images]:
        """The sets by name."""
        return {name: value for name, value in vars(self).items() if name != "patients"}


@dataclass(frozen=True)
class Quality:
    """All quality metrics; ``dataclasses.asdict`` of it is valid JSON.

    Attributes:
        extractor: name of the extractor of the features.
        n: images in each set.
        rows: metrics of each set against the same held-out real images: ``synthetic``; ``real``,
            training images, the best possible row; ``other_class``; ``black``, black images;
            ``mean_image``, the mean training image, repeated. Metrics of each: those of
            :func:`.distances.distances`; ``ssim`` and ``ssim_mask`` with the nearest
            held-out images; ``diversity``; ``spread``, standard deviation of pixels between the
            images (gray levels); ``distinct``, share of images that are not repeated; ``empty``,
            share of black images; ``morphology``, mean distance of the cell measures; and
            ``two_sample_auroc``, AUROC of a probe that separates the set from held-out images. The
            spread of a distance and ``two_sample_auroc`` are None with too few patients.
        morphology: for each row the distance of each cell measure, see
            :func:`.distances.morphology_distance`.
        memorization: results in ``features`` and in ``pixels``, see
            :func:`.memorization.compare`; in ``pixels`` also ``copies``, the number of
            synthetic images that are exact or near-exact copies of training images of either class.
        closest: pairs of synthetic and training images that are closest in pixels: row of the
            synthetic image, row of the training image, distance in gray levels.
        usefulness: AUROC on held-out images of a probe trained on ``synthetic`` and on ``real``
            images.
        warnings: warnings about the synthetic images; empty if none.
        patients: effective number of patients of each real set as compared; empty if patients are
            unknown.
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
class _ImageSet:
    """A set of images with its features and cell measures, each computed once."""

    images: Images
    features: Features
    measures: Floats
    patients: Patients | None = None

    @classmethod
    def extract(
        cls, images: Images, extractor: Extractor, patients: Patients | None = None
    ) -> "_ImageSet":
        measures = measure_each(images)
        # Measuring takes as long as a network, so such an extractor uses these measures.
        if isinstance(extractor, MorphologyExtractor):
            return cls(images, extractor.of(measures), measures, patients)
        return cls(images, extractor(images), measures, patients)

    def take(self, rows: Integers) -> "_ImageSet":
        patients = None if self.patients is None else self.patients[rows]
        return _ImageSet(self.images[rows], self.features.take(rows), self.measures[rows], patients)


def assess_quality(
    synthetic: Images,
    real: RealImages,
    extractor: Extractor,
    seed: int,
    synthetic_other: Images | None = None,
) -> Quality:
    """Assess synthetic images of a class, ``uint8 (N, R, R, 3)``.

    All sets are cut down at random to the size of the smallest; only the search for copies uses all
    synthetic, held-out and training images. Each image goes through the extractor once. Synthetic
    images of the other class, or else real images, train the probe of usefulness.

    Raises:
        ValueError: images that are not 8-bit, differ in resolution, have fewer than 16 pixels per
            side, or number fewer than 10 in a set.
    """
    given = {"synthetic": synthetic, **real.sets}
    if synthetic_other is not None:
        given["synthetic_other"] = synthetic_other
    for name, images in given.items():
        check_images(images)
        if images.shape[1:] != synthetic.shape[1:]:
            raise ValueError(
                f"{name} images have {images.shape[1]} pixels per side,"
                f" synthetic images {synthetic.shape[1]}"
            )
    if synthetic.shape[1] < SMALLEST:
        raise ValueError(f"SSIM needs {SMALLEST} pixels per side, found {synthetic.shape[1]}")
    kept = equal_rows([len(images) for images in given.values()], seed)
    patients = real.patients
    sets = {name: _ImageSet.extract(given[name], extractor, patients.get(name)) for name in _WHOLE}
    equal = {}
    for name, chosen in zip(given, kept, strict=True):
        if name in sets:
            equal[name] = sets[name].take(chosen)
        else:
            own = patients[name][chosen] if name in patients else None
            equal[name] = _ImageSet.extract(given[name][chosen], extractor, own)
    mean = np.mean(real.train, axis=0, keepdims=True).round().astype(np.uint8)
    repeated = np.zeros(len(kept[0]), np.int64)
    compared = {
        "synthetic": equal["synthetic"],
        "real": equal["train"],
        "other_class": equal["reference_other"],
        "black": _ImageSet.extract(np.zeros_like(mean), extractor).take(repeated),
        "mean_image": _ImageSet.extract(mean, extractor).take(repeated),
    }
    reference = equal["reference"]
    shapes = {
        name: morphology_distance(images.measures, reference.measures)
        for name, images in compared.items()
    }
    rows = {
        name: {**_row(images, reference, seed), "morphology": shapes[name]["mean"]}
        for name, images in compared.items()
    }
    features = {name: images.features for name, images in equal.items()}
    test = features["reference"], features["reference_other"]
    other = features.get("synthetic_other", features["train_other"])
    memorized, closest = _memorization(sets)
    copies = copied(synthetic, real.train) | copied(synthetic, real.train_other)
    memorized["pixels"]["copies"] = int(copies.sum())
    return Quality(
        extractor=extractor.name,
        n=len(kept[0]),
        rows=rows,
        morphology=shapes,
        memorization=memorized,
        closest=closest,
        usefulness={
            "synthetic": usefulness(features["synthetic"], other, *test),
            "real": usefulness(features["train"], features["train_other"], *test),
        },
        warnings=[*collapse(rows["synthetic"], rows["real"]), *copying(memorized)],
        patients={
            name: effective_patients(images.patients.tolist())
            for name, images in equal.items()
            if images.patients is not None
        },
    )


def _row(own: _ImageSet, reference: _ImageSet, seed: int) -> Metrics:
    """Compute a row of :attr:`Quality.rows` without its morphology."""
    nearest = nearest_in_features(own.features, reference.features)
    patients = own.patients, reference.patients
    return {
        **distances(own.features, reference.features, seed, *patients),
        **nearest_similarity(own.images[:_SIMILAR], reference.images, nearest.rows[:_SIMILAR]),
        "diversity": diversity(own.images, seed),
        # Row by row: all pixels as floats would take eight times the memory of the images.
        "spread": float(np.mean([row.std(axis=0).mean() for row in np.moveaxis(own.images, 1, 0)])),
        "distinct": len({image.tobytes() for image in own.images}) / len(own.images),
        "empty": float((own.measures[:, 0] == 0).mean()),
        "two_sample_auroc": two_sample_auroc(own.features, reference.features, seed, *patients),
    }


def _memorization(
    sets: Mapping[str, _ImageSet],
) -> tuple[dict[str, Metrics], list[tuple[int, int, float]]]:
    synthetic, held_out, train = (sets[name] for name in ("synthetic", "reference", "train"))
    pixels = nearest_in_pixels(synthetic.images, train.images)
    metrics = {
        "features": compare(
            nearest_in_features(synthetic.features, train.features),
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
    return metrics, closest_pairs(pixels, _SHOWN)


# --- Warnings about synthetic images: mode collapse, black images, copies of training images

_SAME = 1.0
"""Smallest standard deviation of pixels between images, in gray levels; real images have 11."""

_DISTINCT = 0.99
_EMPTY = 0.05
"""Least share of distinct images and largest share of black images in a synthetic set."""

_COPIES = 0.05
"""Largest excess of the share of synthetic images that are close to a training image, over the
share of training images that are."""


def collapse(synthetic: Metrics, real: Metrics) -> list[str]:
    """Warn of mode collapse and black images, from two rows of :attr:`Quality.rows`."""
    found = []
    if (empty := synthetic["empty"] or 0) > _EMPTY:
        found.append(f"{empty:.0%} of the synthetic images are black")
    if (spread := synthetic["spread"] or 0) < _SAME:
        found.append(f"the synthetic images are all alike: pixels differ by {spread:.2f} of 255")
    elif (distinct := synthetic["distinct"] or 0) < _DISTINCT:
        found.append(
            f"only {distinct:.0%} of the synthetic images are distinct, the rest repeat them"
        )
    variety = {
        "coverage": "most kinds of real images have no similar synthetic image",
        "diversity": "synthetic images resemble each other far more than real images do",
    }
    for name, meaning in variety.items():
        ours, theirs = synthetic[name] or 0, real[name] or 0
        if ours < theirs / 2:
            found.append(f"{meaning}: {name} {ours:.2f}, for real images {theirs:.2f}")
    return found


def copying(memorized: dict[str, Metrics]) -> list[str]:
    """Warn of near-exact copies, and of each space in which too many images are close to training.

    ``memorized`` is :attr:`Quality.memorization`.
    """
    found = near_exact(int(memorized["pixels"]["copies"] or 0))
    for space, metrics in memorized.items():
        ours, usual = metrics["closer_share"] or 0, metrics["train_closer_share"] or 0
        if ours > usual + _COPIES:
            found.append(
                f"{ours:.0%} of the synthetic images may be copies: in {space} they are closer to a"
                " training image than 99% of new real images are; of the training images"
                f" {usual:.0%} are that close to another training image"
            )
    return found


def near_exact(count: int) -> list[str]:
    """Warn of ``count`` near-exact copies; empty for none."""
    if not count:
        return []
    copies = "image is a copy of a training image"
    if count > 1:
        copies = "images are copies of training images"
    return [f"{count} synthetic {copies}, exact to about one gray level"]


# --- Figures with rows of synthetic and real images

_INCH, _MARGIN = 0.9, 1.4
"""Inches of an image's side, and for the names of the rows."""

_GAP = 0.03
"""Width of the white gap between images, as a share of an image."""


def save_rows(path: Path, rows: Mapping[str, Images]) -> None:
    """Write :func:`rows_figure` as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_figure(rows).savefig(path, dpi=110)


def rows_figure(rows: Mapping[str, Images]) -> Figure:
    """Draw named rows of images ``uint8 (N, R, R, 3)``."""
    most = max(map(len, rows.values()))
    width = _MARGIN + _INCH * most
    figure = Figure(figsize=(width, _INCH * len(rows)))
    axes = figure.subplots()
    for row, (name, images) in enumerate(rows.items()):
        gap = max(1, round(_GAP * images.shape[1]))
        spaced = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        strip = np.concatenate(list(spaced), axis=1)
        axes.imshow(strip, extent=(0, len(images), row + 1 - _GAP, row), interpolation="nearest")
        axes.text(-0.1, row + 0.5, name, ha="right", va="center", parse_math=False)
    axes.set(xlim=(0, most), ylim=(len(rows), 0), aspect="auto")
    axes.axis("off")
    figure.subplots_adjust(left=_MARGIN / width, right=1, top=1, bottom=0)
    return figure
