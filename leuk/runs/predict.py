"""Predictions of a finished run for new images: a table row per image, in bounded memory."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.progress import track

from leuk.data.decode import Decoded, NoCellError, UnusableError
from leuk.data.labels import Label
from leuk.data.layouts import Images, UnlabeledImage, find_images
from leuk.data.pixels import decode_ahead
from leuk.data.scale import REMEDY, SIZE_UNKNOWN, Size, View, file_sizes, has_background
from leuk.errors import DataError
from leuk.metrics.arrays import Images as Pixels
from leuk.metrics.novelty import largest_parts, no_cell
from leuk.runs.evaluate import Familiarity, load_familiarity
from leuk.runs.explain import FOLDER, SHEET, save_maps
from leuk.runs.finished import FinishedRun, Frozen, Predictor, trainer_for
from leuk.runs.run import predictions_folder, source_paths
from leuk.runs.trainer import check_device
from leuk.store import Replaceable, csv_text, ensure_writable, write_json, write_text

log = logging.getLogger(__name__)

TABLE = "predictions.csv"
SUMMARY = "summary.json"
PAGE = "predictions.html"

_NAMED = 10
"""Maximum number of images in a log line."""

_FEW = 3
_MANY = 0.25
"""Number and share of images with doubtful scale from which on the scale of all is doubtful."""

_FLAGS = ("refer", "unfamiliar", "cell_found")


@dataclass(frozen=True)
class Prediction:
    """Prediction for an image: a row of :data:`TABLE`, in which None is an empty field.

    Attributes:
        image: name of the image.
        score: probability of leukemia, computed as for the run's test images.
        calibrated: the score at the run's temperature.
        decision: ``ALL`` or ``HEM``; empty if no cell is found.
        refer: True if the image is referred to an expert.
        why: reason for the referral.
        distance: distance of the features to those of the training images.
        unfamiliar: True if the distance exceeds the limit from validation images.
        cell_found: True if the image shows a segmented cell on black.
        scale: ``unknown`` if the size of the image does not determine its field of view, so that it
            has no score; ``doubtful`` if its cell is cut, or smaller or larger than all training
            cells.
        overlay: file of its Grad-CAM; empty without one.
        problem: reason why the file cannot be read; all other fields are then empty.
    """

    image: str
    score: float | None = None
    calibrated: float | None = None
    decision: str = ""
    refer: bool | None = None
    why: str = ""
    distance: float | None = None
    unfamiliar: bool | None = None
    cell_found: bool | None = None
    scale: str = ""
    overlay: str = ""
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for new images, with the rule behind the decisions.

    Attributes:
        finished: the run whose classifier was used.
        frozen: the rule from scores to decisions.
        limit: distance above which an image is unfamiliar; None if distances were not computed.
        view: converts images to the scale of the training images.
        images: the new images.
        rows: a prediction per image.
        summary: settings and counts, as plain values.
    """

    finished: FinishedRun
    frozen: Frozen
    limit: float | None
    view: View
    images: Sequence[UnlabeledImage]
    rows: Sequence[Prediction]
    summary: dict[str, Any]


def check_predicting(cfg: DictConfig) -> None:
    """Refuse predictions that would fail, before anything is written.

    Raises:
        ConfigError: no finished run, or an invalid setting.
        DataError: no images, or none of known scale.
        StoreError: the folder cannot be written, or the run lacks a file.
    """
    finished = FinishedRun.read(cfg.run)
    check_device(cfg)
    trainer_for(cfg, finished, [])
    Frozen.of(finished, str(cfg.threshold), cfg.aim)
    finished.classifier()
    view = finished.view(cfg)
    sizes = file_sizes(file.path for file in find_images(cfg.images).images if not file.problem)
    if sizes and not any(map(view.covers, sizes)):
        raise DataError(f"images={cfg.images}: {view.unknown_scale(sizes)}")
    ensure_writable(Path(str(cfg.outputs)), "outputs")
    predictions_target(cfg).check()


def predictions_target(cfg: DictConfig) -> Replaceable:
    """Output folder of predictions, which ``replace=true`` may overwrite."""
    return Replaceable(
        predictions_folder(cfg),
        SUMMARY,
        source_paths(cfg, "run", "images"),
        (TABLE, SUMMARY, PAGE, SHEET, f"{FOLDER}/*.png"),
        cfg.replace,
    )


def predict(cfg: DictConfig, folder: Path) -> Predicted:
    """Predict new images, and write the table, the summary and the overlays into a folder.

    Args:
        cfg: config of ``leuk predict``.
        folder: output folder.

    Raises:
        DataError: no image can be read, or the run's data are needed but do not exist.
        StoreError: the run lacks a file.
    """
    finished = FinishedRun.read(cfg.run)
    frozen = Frozen.of(finished, str(cfg.threshold), cfg.aim)
    found = find_images(cfg.images)
    predictor = Predictor.build(cfg, finished)
    familiarity = load_familiarity(finished, predictor, cfg.root) if cfg.familiarity else None
    view = finished.view(cfg)
    rules = _Rules(view, predictor, frozen, familiarity)
    rows, pictured = rules.apply(found.images, int(cfg.overlays))
    _log_files(cfg.images, found, rows)
    scale_warnings = _doubt_scale(view, rules.sizes, rows)
    captions = {n: f"{rows[n].decision} {rows[n].calibrated:.2f}" for n in pictured}
    for n, file in save_maps(folder, predictor, pictured, captions, finished.folder.name).items():
        rows[n] = replace(rows[n], overlay=file)
    limit = familiarity.images.limit if familiarity else None
    summary = source_paths(cfg, "run", "images") | _summary(finished, frozen, limit, rows)
    summary["scale"] = {
        "training": asdict(view.scale),
        "frame": cfg.frame,
        "pixel_size": cfg.pixel_size,
    }
    summary["warnings"] += scale_warnings
    for warning in summary["warnings"]:
        log.warning("%s: %s", finished.folder.name, warning)
    write_text(folder / TABLE, _as_csv(rows))
    write_json(folder / SUMMARY, summary)
    return Predicted(finished, frozen, limit, view, found.images, rows, summary)


@dataclass(frozen=True, eq=False)
class _Rules:
    """Rules from images to table rows; ``sizes`` counts the sizes of the decoded images."""

    view: View
    predictor: Predictor
    frozen: Frozen
    familiarity: Familiarity | None
    sizes: Counter[Size] = field(default_factory=Counter)

    def apply(
        self, images: Sequence[UnlabeledImage], most: int
    ) -> tuple[list[Prediction], dict[int, Pixels]]:
        """Predict all images, in batches.

        Args:
            images: files to read; those with a problem are not read.
            most: maximum number of images to return pixels of.

        Returns:
            A row per image, and by position the pixels of the first images with a cell.
        """
        rows = [Prediction(image.name, problem=image.problem) for image in images]
        pictured: dict[int, Pixels] = {}
        usable = [n for n, image in enumerate(images) if not image.problem]
        decoded = decode_ahead([images[n].path for n in usable], self.view.frame)
        tracked = track(zip(usable, decoded, strict=True), "predicting images", len(usable))
        for batch in _batches(tracked, self.predictor.batch_size):
            good: dict[int, Decoded] = {}
            for n, image in batch:
                if not isinstance(image, Decoded):
                    rows[n] = _unusable(rows[n], image)
                    continue
                self.sizes[image.size] += 1
                if self.view.covers(image.size):
                    good[n] = image
                else:
                    width, height = image.size
                    why = f"its scale is unknown: no training image has {width} x {height} px"
                    rows[n] = replace(rows[n], refer=True, why=why, scale="unknown")
            for n, row in self._predicted(good, rows):
                rows[n] = row
                if row.cell_found and len(pictured) < most:
                    pictured[n] = good[n].pixels
        return rows, pictured

    def _predicted(
        self, decoded: dict[int, Decoded], rows: Sequence[Prediction]
    ) -> Iterator[tuple[int, Prediction]]:
        if not decoded:
            return
        pixels = np.stack([image.pixels for image in decoded.values()])
        outputs = self.predictor.predict(pixels)
        calibrated = self.frozen.calibrated(outputs.scores)
        leukemic, banded = (f(outputs.scores) for f in (self.frozen.leukemic, self.frozen.refers))
        shares = largest_parts(pixels)
        known = self.familiarity
        distances = known.images.distances(outputs.features) if known else None
        for position, (n, image) in enumerate(decoded.items()):
            row = replace(
                rows[n],
                score=float(outputs.scores[position]),
                calibrated=float(calibrated[position]),
                decision=(Label.ALL if leukemic[position] else Label.HEM).name,
                cell_found=True,
            )
            if known and distances is not None:
                distance = float(distances[position])
                row = replace(row, distance=distance, unfamiliar=distance > known.images.limit)
            missing = no_cell(image.area, shares[position], known.smallest if known else None)
            if not missing and has_background(image.thumb[None])[0]:
                missing = "its background is not black"
            doubt = self.view.area_warning(image.area)
            if image.filled and image.at_border:
                doubt = "its cell is cut by the border of the image"
            yield n, _referred(row, bool(banded[position]), missing, doubt)


def _batches(
    decoded: Iterable[tuple[int, Decoded | UnusableError]], size: int
) -> Iterator[list[tuple[int, Decoded | UnusableError]]]:
    images = iter(decoded)
    while batch := list(islice(images, size)):
        yield batch


def _unusable(row: Prediction, error: UnusableError) -> Prediction:
    if isinstance(error, NoCellError):
        return _without_cell(row, error.problem)
    return replace(row, problem=f"{error.problem}; {error.remedy}")


def _without_cell(row: Prediction, why: str) -> Prediction:
    return replace(row, decision="", cell_found=False, refer=True, why=why)


def _referred(row: Prediction, banded: bool, missing: str, doubt: str) -> Prediction:
    if missing:
        return _without_cell(row, f"no cell found: {missing}")
    why = ["its score is in the referral band"] if banded else []
    if row.unfamiliar:
        why.append("it differs from the training images")
    if doubt:
        why.append(doubt)
    scale = "doubtful" if doubt else ""
    return replace(row, refer=bool(why), why="; ".join(why), scale=scale)


def _doubt_scale(view: View, sizes: Counter[Size], rows: list[Prediction]) -> list[str]:
    """Warn of unknown or doubtful scales; if many are doubtful, refer all images in ``rows``."""
    warnings = []
    if not view.stated and not view.scale.sizes:
        warnings.append(SIZE_UNKNOWN)
    if text := view.unknown_scale(sizes):
        warnings.append(f"{text}; these images are referred to an expert without a score")
    scored = [n for n, row in enumerate(rows) if row.score is not None]
    doubtful = sum(rows[n].scale == "doubtful" for n in scored)
    if doubtful >= max(_FEW, _MANY * len(scored)):
        warnings.append(
            f"{doubtful} of {len(scored)} images show a cell that is cut, or smaller or larger "
            "than that of any training image; check their scale; all are referred to an expert"
        )
        for n in scored:
            if not rows[n].scale:
                why = "; ".join(filter(None, [rows[n].why, "the scale of the others is doubtful"]))
                rows[n] = replace(rows[n], refer=True, why=why, scale="doubtful")
    return warnings


def _log_files(source: str, found: Images, rows: Sequence[Prediction]) -> None:
    """Log the files that were skipped, show no cell or could not be read.

    Raises:
        DataError: no image could be read.
    """
    if found.others:
        listed = ", ".join(f"{n} {kind or 'without suffix'}" for kind, n in found.others.items())
        log.warning("skipped files of other types: %s", listed)
    if without := [f"{row.image} ({row.why})" for row in rows if row.cell_found is False]:
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        log.warning(
            "%d of %d images show no segmented cell on black and are referred to an expert: "
            "%s%s; %s",
            *(len(without), len(rows), ", ".join(without[:_NAMED]), more, REMEDY),
        )
    bad = [f"{row.image}: {row.problem}" for row in rows if row.problem]
    if len(bad) == len(rows):
        raise DataError(f"images={source}: none of {len(bad)} can be read; the first: {bad[0]}")
    for text in bad:
        log.warning("no prediction for %s", text)


def _summary(
    finished: FinishedRun, frozen: Frozen, limit: float | None, rows: Sequence[Prediction]
) -> dict[str, Any]:
    return {
        "run_name": finished.record.run.folder,
        "fingerprint": finished.record.fingerprint,
        "weights": finished.weights_digest,
        "threshold": {"name": frozen.name, "value": frozen.threshold},
        "temperature": frozen.temperature,
        "band": asdict(frozen.band)
        | {
            "message": frozen.band.message,
            "reason": frozen.band.reason,
            "test": asdict(frozen.test),
        },
        "distance_limit": limit,
        "warnings": [
            f"LEAKY: {item.text}" for item in finished.record.warnings if item.kind == "leaky"
        ],
        "counts": {
            "images": len(rows),
            "unreadable": sum(bool(row.problem) for row in rows),
            "without_cell": sum(row.cell_found is False for row in rows),
            "leukemic": sum(row.decision == Label.ALL.name for row in rows),
            "healthy": sum(row.decision == Label.HEM.name for row in rows),
            "referred": sum(bool(row.refer) for row in rows),
            "unfamiliar": sum(bool(row.unfamiliar) for row in rows),
            "unknown_scale": sum(row.scale == "unknown" for row in rows),
        },
    }


def _as_csv(rows: Sequence[Prediction]) -> str:
    table = pd.DataFrame([asdict(row) for row in rows])
    table = table.astype(dict.fromkeys(_FLAGS, "boolean"))
    return csv_text(table)
