"""Predictions of a finished run for new images: a table row per image, in bounded memory."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.progress import track

from leuk.data.decode import Decoded, NoCellError, UnusableError, decode
from leuk.data.labels import Label
from leuk.data.layouts import Images, UnlabeledImage, find_images
from leuk.data.pixels import decode_ahead, to_float
from leuk.data.scale import REMEDY, Size, View, file_sizes, has_background
from leuk.errors import ConfigError, DataError
from leuk.explain.base import Attribution
from leuk.explain.figures import drawn_of, save_overlays
from leuk.explain.gradcam import GradCAM
from leuk.metrics.arrays import Images as Pixels
from leuk.metrics.novelty import Familiar, largest_parts, no_cell
from leuk.metrics.patients import mean_logit
from leuk.runs.evaluate import Scorer
from leuk.runs.finished import FinishedRun, Frozen
from leuk.runs.run import predictions_folder, source_paths
from leuk.runs.trainer import check_device
from leuk.store import (
    Replaceable,
    csv_text,
    ensure_writable,
    read_arrays,
    whole_file,
    write_json,
    write_text,
)

log = logging.getLogger(__name__)

TABLE = "predictions.csv"
SUMMARY = "summary.json"
PAGE = "predictions.html"
SHEET = "overlays.png"
OVERLAYS = "overlays"
PATIENTS = "patients.csv"
SUSPICIOUS = 3
"""Number of images named per patient, the most and the least suspicious."""

CNMC = r"UID_([A-Za-z]?\d+)_"
"""Patient in C-NMC's file names, such as H3 in ``UID_H3_1_1_hem.bmp``."""

FAMILIAR = "familiar.npz"
"""Cache in the folder of a run, see :func:`load_familiarity`."""

_NAMED = 10
"""Maximum number of images in a log line."""

_FEW = 3
_MANY = 0.25
"""Number and share of images with doubtful scale from which on the scale of all is doubtful."""


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
        overlay: file of its Grad-CAM; empty if it has none.
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
    """Predictions for new images, with the rule behind the decisions."""

    finished: FinishedRun
    frozen: Frozen
    limit: float | None  # distance above which an image is unfamiliar; None without distances
    view: View  # brings images to the scale of the training images
    images: Sequence[UnlabeledImage]
    rows: Sequence[Prediction]  # a row per image
    summary: dict[str, Any]
    patients: pd.DataFrame | None = None  # from predict_patients, if the patients are known
    patient_rule: Frozen | None = None  # from scores of patients to their decisions


def check_predicting(cfg: DictConfig) -> None:
    """Refuse predictions that would fail, before anything is written."""
    finished = FinishedRun.read(cfg.run)
    check_device(cfg)
    finished.frozen(str(cfg.threshold), cfg.aim)
    finished.scorer(cfg, int(cfg.batch_size))
    view = finished.view(cfg)
    files = find_images(cfg.images).images
    if cfg.patients:
        patients_of(cfg.patients, [file.name for file in files])
    sizes = file_sizes(file.path for file in files if not file.problem)
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
        (TABLE, PATIENTS, SUMMARY, PAGE, SHEET, f"{OVERLAYS}/*.png"),
        cfg.replace,
    )


def predict(cfg: DictConfig, folder: Path) -> Predicted:
    """Predict new images, and write the table, the summary and the overlays into a folder."""
    finished = FinishedRun.read(cfg.run)
    frozen, view = finished.frozen(str(cfg.threshold), cfg.aim), finished.view(cfg)
    found = find_images(cfg.images)
    scorer = finished.scorer(cfg, int(cfg.batch_size))
    familiarity = load_familiarity(finished, scorer, cfg.root) if cfg.familiarity else None

    rows = [Prediction(image.name, problem=image.problem) for image in found.images]
    usable = [n for n, image in enumerate(found.images) if not image.problem]
    decoded = decode_ahead([found.images[n].path for n in usable], view.frame)
    pairs = zip(usable, decoded, strict=True)
    tracked = iter(track(pairs, "predicting images", len(usable)))
    sizes: Counter[Size] = Counter()
    pictured: dict[int, Pixels] = {}  # of the first images with a cell
    while batch := list(islice(tracked, scorer.batch_size)):
        good: dict[int, Decoded] = {}
        for n, image in batch:
            if isinstance(image, NoCellError):
                rows[n] = replace(rows[n], cell_found=False, refer=True, why=image.problem)
            elif isinstance(image, UnusableError):
                rows[n] = replace(rows[n], problem=f"{image.problem}; {image.remedy}")
            else:
                sizes[image.size] += 1
                if view.covers(image.size):
                    good[n] = image
                else:
                    width, height = image.size
                    why = f"its scale is unknown: no training image has {width} x {height} px"
                    rows[n] = replace(rows[n], refer=True, why=why, scale="unknown")
        if good:
            predicted = _predict_batch([*good.values()], scorer, frozen, familiarity, view)
            for (n, image), values in zip(good.items(), predicted, strict=True):
                rows[n] = replace(rows[n], **values)
                if rows[n].cell_found and len(pictured) < int(cfg.overlays):
                    pictured[n] = image.pixels
    _log_files(cfg.images, found, rows)

    warnings = [f"LEAKY: {item.text}" for item in finished.record.warnings if item.kind == "leaky"]
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
    for warning in warnings:
        log.warning("%s: %s", finished.folder.name, warning)
    patients = patient_rule = None
    if cfg.patients:
        patient_rule = finished.frozen_for_patients(cfg.aim)
        names = patients_of(cfg.patients, [row.image for row in rows])
        patients = predict_patients(rows, names, patient_rule)
        place = {row.image: n for n, row in enumerate(rows)}
        suspicious = patients[[*_EXTREMES]].to_numpy().ravel()
        # The maps of these images replace those of the first images.
        named = [place[name] for name in dict.fromkeys(suspicious) if name]
        pictured = {
            n: decode(found.images[n].path, view.frame).pixels for n in named[: int(cfg.overlays)]
        }
        write_text(folder / PATIENTS, csv_text(patients.astype({"refer": "boolean"})))
    captions = {n: f"{rows[n].decision} {rows[n].calibrated:.2f}" for n in pictured}
    for n, file in save_maps(folder, scorer, pictured, captions, finished.folder.name).items():
        rows[n] = replace(rows[n], overlay=file)

    limit = familiarity.images.limit if familiarity else None
    summary = {
        **source_paths(cfg, "run", "images"),
        "run_name": finished.record.run.folder,
        "fingerprint": finished.record.fingerprint,
        "weights": finished.weights_digest,
        "threshold": {"name": frozen.name, "value": frozen.threshold},
        "temperature": frozen.temperature,
        "band": {
            **asdict(frozen.band),
            "message": frozen.band.message,
            "reason": frozen.band.reason,
            "test": asdict(frozen.test),
        },
        "distance_limit": limit,
        "warnings": warnings,
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
        "scale": {
            "training": asdict(view.scale),
            "frame": cfg.frame,
            "pixel_size": cfg.pixel_size,
        },
    }
    table = pd.DataFrame([asdict(row) for row in rows])
    flags = dict.fromkeys(("refer", "unfamiliar", "cell_found"), "boolean")
    write_text(folder / TABLE, csv_text(table.astype(flags)))
    write_json(folder / SUMMARY, summary)
    about = (finished, frozen, limit, view, found.images)
    return Predicted(*about, rows, summary, patients, patient_rule)


_EXTREMES = [f"{end}_suspicious_{n}" for end in ("most", "least") for n in range(1, SUSPICIOUS + 1)]
"""Columns of the names of images, of the highest and of the lowest scores of a patient."""


def patients_of(patients: str, names: Sequence[str]) -> list[str]:
    """Return the patient of each image; empty where it has none.

    Args:
        patients: a CSV file with columns ``image`` and ``patient``, a regular expression with a
            group, or ``cnmc``.
        names: names of the images.

    Raises:
        ConfigError: the file or expression cannot be read, or no image has a patient.
    """
    if patients.lower().endswith(".csv"):
        try:
            table = pd.read_csv(patients, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            known = dict(zip(table["image"], table["patient"], strict=True))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"patients={patients}: not a CSV file with columns image and patient ({error})"
            ) from error
        found = [known.get(name, "") for name in names]
    else:
        try:
            pattern = re.compile(CNMC if patients == "cnmc" else patients)
        except re.error as error:
            raise ConfigError(f"patients={patients}: not a regular expression ({error})") from error
        if pattern.groups != 1:
            raise ConfigError(
                f"patients={patients}: it needs a group for the patient, such as '^([A-Z]+-\\d+)_'"
            )
        matches = [pattern.search(name) for name in names]
        found = [(match[1] or "") if match else "" for match in matches]
    if names and not any(found):
        raise ConfigError(
            f"patients={patients}: it gives no patient for any image, such as {names[0]}"
        )
    return found


def predict_patients(
    rows: Sequence[Prediction], names: Sequence[str], frozen: Frozen
) -> pd.DataFrame:
    """Predict each patient from the calibrated scores of the images.

    Args:
        rows: predictions of the images.
        names: the patient of each image; images without a patient are left out.
        frozen: the rule for patients, see :meth:`FinishedRun.frozen_for_patients`.

    Returns:
        Columns ``patient``, ``images`` (number used), ``left_out`` (images without a score or of
        doubtful scale), ``score`` (mean log odds as a probability), ``decision``, ``refer``,
        ``why``, and the names of the images with the highest and the lowest scores.
    """
    table = pd.DataFrame(
        [(name, row.image, row.calibrated) for name, row in zip(names, rows, strict=True) if name],
        columns=["patient", "image", "score"],
    )
    doubtful = {row.image for row in rows if row.scale or row.score is None}
    found = []
    for patient, images in table.groupby("patient"):
        used = images[~images["image"].isin(doubtful)].sort_values("score", kind="stable")
        values: dict[str, Any] = {
            "patient": patient,
            "images": len(used),
            "left_out": len(images) - len(used),
            "score": None,
            "decision": "",
            "refer": True,
            "why": "no image of known scale with a cell",
        }
        low, high = used["image"].tolist(), used["image"].tolist()[::-1]
        if len(used):
            score = np.array([mean_logit(used["score"].to_numpy(np.float64))])
            leukemic = frozen.leukemic(score)
            refer = bool(frozen.refers(score)[0])
            values |= {
                "score": float(score[0]),
                "decision": Label(int(leukemic[0])).name,
                "refer": refer,
                "why": "the patient's score is in the referral band" if refer else "",
            }
        ends = (*high[:SUSPICIOUS], *[""] * (SUSPICIOUS - len(high[:SUSPICIOUS])))
        ends += (*low[:SUSPICIOUS], *[""] * (SUSPICIOUS - len(low[:SUSPICIOUS])))
        found.append(values | dict(zip(_EXTREMES, ends, strict=True)))
    return pd.DataFrame(found)


def _predict_batch(
    decoded: Sequence[Decoded],
    scorer: Scorer,
    frozen: Frozen,
    familiarity: "Familiarity | None",
    view: View,
) -> Iterator[dict[str, Any]]:
    """Values of :class:`Prediction` for images of known scale."""
    pixels = np.stack([image.pixels for image in decoded])
    scores = scorer.scores(pixels)
    calibrated = frozen.calibrated(scores)
    leukemic, banded = frozen.leukemic(scores), frozen.refers(scores)
    shares = largest_parts(pixels)
    distances = familiarity.images.distances(scorer.features(pixels)) if familiarity else None
    for n, image in enumerate(decoded):
        values = {"score": float(scores[n]), "calibrated": float(calibrated[n])}
        why = ["its score is in the referral band"] if banded[n] else []
        smallest = None
        if familiarity and distances is not None:
            unfamiliar = bool(distances[n] > familiarity.images.limit)
            values |= {"distance": float(distances[n]), "unfamiliar": unfamiliar}
            why += ["it differs from the training images"] if unfamiliar else []
            smallest = familiarity.smallest
        missing = no_cell(image.area, shares[n], smallest)
        if not missing and has_background(image.thumb[None])[0]:
            missing = "its background is not black"
        if missing:
            why = [f"no cell found: {missing}"]
            yield values | {"cell_found": False, "refer": True, "why": why[0]}
            continue
        doubt = view.area_warning(image.area)
        if image.filled and image.at_border:
            doubt = "its cell is cut by the border of the image"
        why += [doubt] if doubt else []
        yield values | {
            "decision": (Label.ALL if leukemic[n] else Label.HEM).name,
            "cell_found": True,
            "refer": bool(why),
            "why": "; ".join(why),
            "scale": "doubtful" if doubt else "",
        }


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


# --- Features of a run's training images, to find unfamiliar new images; cached in its folder

DISTANCES_FORMAT = 2
"""Version in the cache key; increase it when the content of the file changes its meaning."""

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Reference values of the training images, with which new images are compared."""

    images: Familiar  # training features, and the limit of the distance from validation images
    smallest: float  # share of the frame that the smallest training cell covers, in [0, 1]


def load_familiarity(finished: FinishedRun, scorer: Scorer, root: str | None) -> Familiarity:
    """Read the cache in the run's folder, or compute it from the run's real training images.

    Raises:
        DataError: the cache does not exist, and neither does the image folder, nor ``root``.
        StoreError: the data differ from those of the run.
    """
    path, key = finished.folder / FAMILIAR, f"{DISTANCES_FORMAT} {finished.weights_digest}"
    if path.exists():
        try:
            cached = read_arrays(path)
            if str(cached["key"]) == key:
                images = Familiar(cached["features"], float(cached["limit"]))
                return Familiarity(images, float(cached["smallest"]))
            log.info("%s: belongs to other weights; computing it again", path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: cannot be read (%s); computing it again", path, error)
    try:
        data = finished.data(root)
    except DataError as error:
        raise DataError(f"{error}; or skip the comparison with familiarity=false") from error
    log.info("%s: computing features of its training images, once", finished.folder.name)

    def chunks(stage: str) -> Iterator[Pixels]:
        rows = data.stage(stage).index.to_numpy()
        return (data.dataset.data[rows[n : n + _CHUNK]] for n in range(0, len(rows), _CHUNK))

    train = np.concatenate([scorer.features(pixels) for pixels in chunks("train")])
    held_out = np.concatenate([scorer.features(pixels) for pixels in chunks("val")])
    smallest = min(float(largest_parts(pixels).min()) for pixels in chunks("train"))
    patients = data.stage("val")["patient"].to_numpy().astype(str)
    familiar = Familiar.fitted(train, held_out, patients)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            limit = familiar.limit
            np.savez(file, key=key, features=familiar.features, limit=limit, smallest=smallest)
    except OSError as error:
        log.warning("%s: cannot be written (%s); it will be computed again each time", path, error)
    return Familiarity(familiar, smallest)


# --- Grad-CAM of new images, drawn over them: a file per image, and a sheet with the color bar

_ON_SHEET = 48
"""Maximum number of images on the sheet, so that viewers can open it."""

_SIDE = 224
"""Minimum side of an overlay in pixels."""


def save_maps(
    folder: Path,
    scorer: Scorer,
    images: Mapping[int, Pixels],
    captions: Mapping[int, str],
    title: str,
) -> dict[int, str]:
    """Explain images ``uint8 (R, R, 3)`` by Grad-CAM for leukemia and draw the maps.

    Returns:
        File of each image by its number, relative to the folder.
    """
    if not images:
        return {}
    batch = to_float(torch.from_numpy(np.stack([*images.values()])).to(scorer.device))
    parts = [
        GradCAM().attribute(scorer.classifier, part, Label.ALL)
        for part in batch.split(scorer.batch_size)
    ]
    drawn = drawn_of(Attribution.join(parts))
    files = {number: f"{OVERLAYS}/{number + 1:05d}.png" for number in images}
    for position, (file, image) in enumerate(zip(files.values(), batch, strict=True)):
        inked = (drawn.over(position, image) * 255).round().astype(np.uint8)
        times = max(1, -(-_SIDE // len(inked)))
        with whole_file(folder / file) as temporary:
            Image.fromarray(inked.repeat(times, axis=0).repeat(times, axis=1)).save(temporary)
    numbered = [f"{number + 1}: {captions[number]}" for number in images][:_ON_SHEET]
    save_overlays(folder / SHEET, batch[:_ON_SHEET], drawn, numbered, title)
    return files
