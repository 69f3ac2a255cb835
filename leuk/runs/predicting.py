"""New cells judged by a finished run: from images to one line each, in bounded memory."""

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

from leuk.data.background import REMEDY, has_background
from leuk.data.decode import Decoded, NoCellError, UnusableError
from leuk.data.labels import Label
from leuk.data.pixels import decode_ahead
from leuk.data.scale import SIZE_UNKNOWN, Size, View, file_sizes
from leuk.data.unlabeled import Image, Images, find_images
from leuk.errors import DataError
from leuk.evaluate.novelty import largest_parts, no_cell
from leuk.evaluate.vectors import Images as Pixels
from leuk.runs.device import check_device
from leuk.runs.familiarity import Familiarity, load_familiarity
from leuk.runs.finished import Finished
from leuk.runs.frozen import Frozen
from leuk.runs.overlays import FOLDER, SHEET, save_maps
from leuk.runs.paths import predictions_folder, said_of
from leuk.runs.predictor import Predictor, trainer_for
from leuk.store.atomic import ensure_writable, write_json, write_text
from leuk.store.replaced import Replaceable
from leuk.store.spreadsheet import csv_text

log = logging.getLogger(__name__)

TABLE = "predictions.csv"
SUMMARY = "summary.json"
PAGE = "predictions.html"

_NAMED = 10
"""Images that are named where there may be many."""

_FEW = 3
_MANY = 0.25
"""Number and share of images of a doubtful scale from which the others are doubted, too."""

_FLAGS = ("refer", "unfamiliar", "cell_found")


@dataclass(frozen=True)
class Prediction:
    """What is said of one image; a column of :data:`TABLE` each, empty where it is None.

    Attributes:
        image: its name.
        score: probability of leukemia, as the run's own test cells were judged.
        calibrated: the same at the run's temperature.
        decision: ``ALL`` or ``HEM``; empty where there is no cell to decide about.
        refer: whether it is left to an expert.
        why: it is.
        distance: to the training cells.
        unfamiliar: whether that is farther than validation cells are.
        cell_found: whether the image shows a segmented cell on black.
        scale: ``unknown`` where the size of the image does not give its field of view, so that it
            has no score; ``doubtful`` where its cell is cut, or smaller or larger than all training
            cells.
        overlay: file of its Grad-CAM, where there is one.
        problem: why the file cannot be read; then nothing else is said.
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
    """New cells and what is said of them.

    Attributes:
        finished: the run that judged them.
        frozen: how scores became decisions.
        limit: distance above which a cell is unfamiliar; None where that was not looked at.
        view: that brings the images to the scale of the training images.
        images: the cells.
        lines: one for each.
        summary: what was chosen and counted, plain.
    """

    finished: Finished
    frozen: Frozen
    limit: float | None
    view: View
    images: Sequence[Image]
    lines: Sequence[Prediction]
    summary: dict[str, Any]


def check_predicting(cfg: DictConfig) -> None:
    """Refuse what cannot work, before anything is written.

    Raises:
        ConfigError: no finished run, or a setting that it does not have.
        DataError: no images, or none of a known scale.
        StoreError: nothing can be written, or the run lacks a file.
    """
    finished = Finished.read(cfg.run)
    check_device(cfg)
    trainer_for(cfg, finished, [])
    Frozen.of(finished, str(cfg.threshold), cfg.aim)
    finished.classifier()
    view = _view(cfg, finished)
    sizes = file_sizes(one.path for one in find_images(cfg.images).images if not one.problem)
    if sizes and not any(map(view.covers, sizes)):
        raise DataError(f"images={cfg.images}: {view.unknown_scale(sizes)}")
    ensure_writable(Path(str(cfg.outputs)), "outputs")
    predictions_of(cfg).check()


def predictions_of(cfg: DictConfig) -> Replaceable:
    """The folder of the predictions of a config."""
    return Replaceable(
        predictions_folder(cfg),
        SUMMARY,
        said_of(cfg, "run", "images"),
        (TABLE, SUMMARY, PAGE, SHEET, f"{FOLDER}/*.png"),
        cfg.replace,
    )


def _view(cfg: DictConfig, finished: Finished) -> View:
    return finished.scale(cfg.root).view(finished.frame, cfg.frame, cfg.pixel_size)


def predict(cfg: DictConfig, folder: Path) -> Predicted:
    """Judge images and write the table, the summary and the overlays into a folder.

    Raises:
        DataError: no image can be read, or the run's data is needed and not there.
        StoreError: the run lacks a file.
    """
    finished = Finished.read(cfg.run)
    frozen = Frozen.of(finished, str(cfg.threshold), cfg.aim)
    found = find_images(cfg.images)
    predictor = Predictor.of(cfg, finished)
    familiarity = load_familiarity(finished, predictor, cfg.root) if cfg.familiarity else None
    view = _view(cfg, finished)
    judge = _Judge(view, predictor, frozen, familiarity)
    lines, pictured = judge.all_of(found.images, int(cfg.overlays))
    _say_of_files(cfg.images, found, lines)
    scale_warnings = _doubt_scale(view, judge.sizes, lines)
    captions = {row: f"{lines[row].decision} {lines[row].calibrated:.2f}" for row in pictured}
    for row, file in save_maps(folder, predictor, pictured, captions, finished.folder.name).items():
        lines[row] = replace(lines[row], overlay=file)
    limit = familiarity.images.limit if familiarity else None
    summary = said_of(cfg, "run", "images") | _summary(finished, frozen, limit, lines)
    summary["scale"] = {
        "training": asdict(view.scale),
        "frame": cfg.frame,
        "pixel_size": cfg.pixel_size,
    }
    summary["warnings"] += scale_warnings
    for warning in summary["warnings"]:
        log.warning("%s: %s", finished.folder.name, warning)
    write_text(folder / TABLE, _as_csv(lines))
    write_json(folder / SUMMARY, summary)
    return Predicted(finished, frozen, limit, view, found.images, lines, summary)


@dataclass(frozen=True, eq=False)
class _Judge:
    view: View
    predictor: Predictor
    frozen: Frozen
    familiarity: Familiarity | None
    sizes: Counter[Size] = field(default_factory=Counter)

    def all_of(
        self, images: Sequence[Image], most: int
    ) -> tuple[list[Prediction], dict[int, Pixels]]:
        """A line for each image, and the pixels of the first that show a cell, by number."""
        lines = [Prediction(image.name, problem=image.problem) for image in images]
        pictured: dict[int, Pixels] = {}
        usable = [row for row, image in enumerate(images) if not image.problem]
        decoded = decode_ahead([images[row].path for row in usable], self.view.frame)
        followed = track(zip(usable, decoded, strict=True), "judging cells", len(usable))
        for part in _batches(followed, self.predictor.batch_size):
            good: dict[int, Decoded] = {}
            for row, one in part:
                if not isinstance(one, Decoded):
                    lines[row] = _unusable(lines[row], one)
                    continue
                self.sizes[one.size] += 1
                if self.view.covers(one.size):
                    good[row] = one
                else:
                    wide, high = one.size
                    why = f"its scale is unknown: no training image has {wide} x {high} px"
                    lines[row] = replace(lines[row], refer=True, why=why, scale="unknown")
            for row, line in self._judged(good, lines):
                lines[row] = line
                if line.cell_found and len(pictured) < most:
                    pictured[row] = good[row].pixels
        return lines, pictured

    def _judged(
        self, decoded: dict[int, Decoded], lines: Sequence[Prediction]
    ) -> Iterator[tuple[int, Prediction]]:
        if not decoded:
            return
        pixels = np.stack([one.pixels for one in decoded.values()])
        answers = self.predictor.ask(pixels)
        calibrated = self.frozen.calibrated(answers.scores)
        leukemic, banded = (f(answers.scores) for f in (self.frozen.leukemic, self.frozen.refers))
        shares = largest_parts(pixels)
        known = self.familiarity
        distances = known.images.distances(answers.features) if known else None
        for place, (row, one) in enumerate(decoded.items()):
            line = replace(
                lines[row],
                score=float(answers.scores[place]),
                calibrated=float(calibrated[place]),
                decision=(Label.ALL if leukemic[place] else Label.HEM).name,
                cell_found=True,
            )
            if known and distances is not None:
                far = float(distances[place])
                line = replace(line, distance=far, unfamiliar=far > known.images.limit)
            missing = no_cell(one.area, shares[place], known.smallest if known else None)
            if not missing and has_background(one.thumb[None])[0]:
                missing = "its background is not black"
            doubt = self.view.area_warning(one.area)
            if one.filled and one.at_border:
                doubt = "the border of its image cuts its cell"
            yield row, _referred(line, bool(banded[place]), missing, doubt)


def _batches(
    decoded: Iterable[tuple[int, Decoded | UnusableError]], size: int
) -> Iterator[list[tuple[int, Decoded | UnusableError]]]:
    images = iter(decoded)
    while part := list(islice(images, size)):
        yield part


def _unusable(line: Prediction, error: UnusableError) -> Prediction:
    if isinstance(error, NoCellError):
        return _without_cell(line, error.problem)
    return replace(line, problem=f"{error.problem}; {error.remedy}")


def _without_cell(line: Prediction, why: str) -> Prediction:
    return replace(line, decision="", cell_found=False, refer=True, why=why)


def _referred(line: Prediction, banded: bool, missing: str, doubt: str) -> Prediction:
    if missing:
        return _without_cell(line, f"no cell found: {missing}")
    why = ["its score is not sure enough"] if banded else []
    if line.unfamiliar:
        why.append("it is unlike the training cells")
    if doubt:
        why.append(doubt)
    scale = "doubtful" if doubt else ""
    return replace(line, refer=bool(why), why="; ".join(why), scale=scale)


def _doubt_scale(view: View, sizes: Counter[Size], lines: list[Prediction]) -> list[str]:
    """Warnings of an unknown or doubtful scale; where many images are doubtful, refer them all."""
    warnings = []
    if not view.stated and not view.scale.sizes:
        warnings.append(SIZE_UNKNOWN)
    if text := view.unknown_scale(sizes):
        warnings.append(f"{text}; these images are left to an expert without a score")
    scored = [row for row, line in enumerate(lines) if line.score is not None]
    doubtful = sum(lines[row].scale == "doubtful" for row in scored)
    if doubtful >= max(_FEW, _MANY * len(scored)):
        warnings.append(
            f"{doubtful} of {len(scored)} images show a cell that is cut, or smaller or larger "
            "than that of any training image; check their scale; all are left to an expert"
        )
        for row in scored:
            if not lines[row].scale:
                why = "; ".join(
                    filter(None, [lines[row].why, "the scale of the others is doubtful"])
                )
                lines[row] = replace(lines[row], refer=True, why=why, scale="doubtful")
    return warnings


def _say_of_files(where: str, found: Images, lines: Sequence[Prediction]) -> None:
    """Say in the log what was left out or could not be read.

    Raises:
        DataError: nothing could.
    """
    if found.others:
        listed = ", ".join(f"{n} {kind or 'without suffix'}" for kind, n in found.others.items())
        log.warning("files of other kinds were left out: %s", listed)
    if without := [f"{line.image} ({line.why})" for line in lines if line.cell_found is False]:
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        log.warning(
            "%d of %d images show no segmented cell on black and are left to an expert: %s%s; %s",
            *(len(without), len(lines), ", ".join(without[:_NAMED]), more, REMEDY),
        )
    bad = [f"{line.image}: {line.problem}" for line in lines if line.problem]
    if len(bad) == len(lines):
        raise DataError(f"images={where}: none of {len(bad)} can be read; the first: {bad[0]}")
    for one in bad:
        log.warning("not judged: %s", one)


def _summary(
    finished: Finished, frozen: Frozen, limit: float | None, lines: Sequence[Prediction]
) -> dict[str, Any]:
    return {
        "run": finished.record.run.folder,
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
            f"LEAKY: {one.text}" for one in finished.record.warnings if one.kind == "leaky"
        ],
        "counts": {
            "images": len(lines),
            "unreadable": sum(bool(line.problem) for line in lines),
            "without_cell": sum(line.cell_found is False for line in lines),
            "leukemic": sum(line.decision == Label.ALL.name for line in lines),
            "healthy": sum(line.decision == Label.HEM.name for line in lines),
            "referred": sum(bool(line.refer) for line in lines),
            "unfamiliar": sum(bool(line.unfamiliar) for line in lines),
            "unknown_scale": sum(line.scale == "unknown" for line in lines),
        },
    }


def _as_csv(lines: Sequence[Prediction]) -> str:
    table = pd.DataFrame([asdict(line) for line in lines])
    table = table.astype(dict.fromkeys(_FLAGS, "boolean"))
    return csv_text(table)
