"""Page of predictions for new images, with pictures.

Images referred to an expert come first. File names reach the page only as escaped text.
"""

from pathlib import Path

import pandas as pd

from leuk.data.decode import UnusableError, decode
from leuk.data.labels import Label
from leuk.report.html import Chapter, page, picture_uri, png_uri
from leuk.report.table import (
    Block,
    Column,
    Items,
    Paragraph,
    Picture,
    Pictures,
    Shown,
    Table,
    Text,
    code,
    number,
    strong,
    text,
)
from leuk.runs.predict import SHEET, Predicted

_UNREADABLE_SHOWN = 50

_DECISIONS = {Label.ALL.name: "leukemic", Label.HEM.name: "healthy", "": "no decision"}

_TILES = {
    "leukemic": "classified as leukemic",
    "healthy": "classified as healthy",
    "referred": "referred to an expert",
    "unfamiliar": "unlike the training images",
    "without_cell": "without a cell",
    "unknown_scale": "of unknown scale",
    "unreadable": "unreadable",
}


def _picture(key: str) -> Column:
    return Column((key,), lambda picture: Shown(picture=picture), numeric=False)


_COLUMNS = {
    "image": text("image"),
    "as the model sees it": _picture("picture"),
    "Grad-CAM": _picture("overlay"),
    "decision": text("decision"),
    "score": number("score", missing="-"),
    "referral": text("referral"),
    "distance": number("distance", missing="-"),
}


_PATIENTS = {
    "patient": text("patient"),
    "images": number("images", "d"),
    "left out": number("left_out", "d"),
    "score": number("score", missing="-"),
    "decision": Column(("decision",), lambda decision: _DECISIONS[decision], numeric=False),
    "referral": Column(("why",), lambda why: why or "no", numeric=False),
    "most suspicious": text("most_suspicious_1"),
    "least suspicious": text("least_suspicious_1"),
}


def predicted_page(predicted: Predicted, folder: Path, most: int) -> str:
    """Page of predictions for new images.

    Args:
        predicted: the predictions; the image files are read again for the pictures.
        folder: folder of the overlays.
        most: maximum number of images shown.
    """
    summary, rows, frozen = predicted.summary, predicted.rows, predicted.frozen
    counts = summary["counts"]
    # The sort is stable, so referred and decided images keep their order.
    order = sorted(range(len(rows)), key=lambda place: not rows[place].refer)
    good = [place for place in order if not rows[place].problem]
    hidden = f" Not shown here: {len(good) - most}, listed in predictions.csv."
    images: list[Block] = [
        Paragraph(f"Images referred to an expert come first.{hidden if len(good) > most else ''}")
    ]
    if shown := [_row(predicted, folder, place) for place in good[:most]]:
        caption = (
            "Score: calibrated probability of leukemia. Distance: distance from the training "
            "images."
        )
        images.append(Table(pd.DataFrame(shown, dtype=object), _COLUMNS, caption))
    sheet: list[Block] = []
    if (folder / SHEET).is_file():
        alt = "Images beside their Grad-CAM maps, with a color bar"
        picture = Picture(png_uri((folder / SHEET).read_bytes()), alt)
        caption = (
            "The first images, each beside its Grad-CAM map: orange regions support leukemia, "
            "purple regions oppose it."
        )
        sheet.append(Pictures("Grad-CAM", caption, (picture,)))
    patients: list[Block] = []
    if predicted.patients is not None and (rule := predicted.patient_rule):
        reason = f" Validation is too small to decide without an expert: {rule.band.reason}."
        patients = [
            Paragraph(
                "A patient's score is the mean log odds of the calibrated scores of the images; "
                f"from {rule.threshold:.3f} on, a patient is classified as leukemic."
                f"{reason if rule.band.reason else ''}"
            ),
            Table(predicted.patients, _PATIENTS),
        ]
    unreadable: list[Text] = [(code(row.image), f": {row.problem}") for row in rows if row.problem]
    if (others := len(unreadable) - _UNREADABLE_SHOWN) > 0:
        more = f"and {others} more, listed in predictions.csv"
        unreadable = [*unreadable[:_UNREADABLE_SHOWN], more]
    warnings: list[Text] = [
        "For research only, not for diagnosis: the model has not been validated for clinical use.",
        *((strong(warning),) for warning in summary["warnings"]),
        frozen.band.message,
        frozen.test.message,
    ]
    limit = "not computed"
    if predicted.limit is None:
        unknown = "The images were not compared with the training images (familiarity=false)."
        warnings.append(unknown)
    else:
        limit = f"{predicted.limit:.4f}"
    frame = predicted.view.frame
    facts = {
        "threshold": f"{frozen.name}, {frozen.threshold:.6f} of the uncalibrated score",
        "threshold of the calibrated score": f"{frozen.calibrated_threshold:.6f}",
        "temperature": f"{frozen.temperature:.4f}",
        "distance above which an image is unfamiliar": limit,
        "images": f"{frame.resolution} px, {frame.framing}",
        "fingerprint of the settings": summary["fingerprint"],
        "hash of the weights": summary["weights"],
    }
    settings = Table(
        pd.DataFrame(facts.items(), columns=["name", "value"]),
        {"setting": text("name"), "value": text("value")},
    )
    return page(
        f"{summary['images']}: predictions",
        f"{counts['leukemic']} of {counts['images']} images are classified as leukemic; "
        f"{counts['referred']} are referred to an expert.",
        eyebrow=(
            "Predictions of ",
            strong(predicted.finished.folder.name),
            f" for {summary['images']}",
        ),
        tiles=[(str(counts[key]), label) for key, label in _TILES.items()],
        warned="Read before using these decisions",
        warnings=[Chapter("", "", (Items(tuple(warnings)),))],
        chapters=[
            Chapter(
                "unreadable", "Unreadable images", [Items(tuple(unreadable))] * bool(unreadable)
            ),
            *([Chapter("patients", "Patients", patients)] if patients else []),
            Chapter("images", "Images", images),
            Chapter("evidence", "Evidence in the images", sheet),
            Chapter("settings", "Model and settings", [settings]),
        ],
    )


def _row(predicted: Predicted, folder: Path, place: int) -> dict[str, object]:
    row, name = predicted.rows[place], f"image {place + 1}"
    overlay = picture = None
    if row.overlay:
        overlay = Picture(png_uri((folder / row.overlay).read_bytes()), f"Grad-CAM of {name}")
    try:
        seen = decode(predicted.images[place].path, predicted.view.frame)
        picture = Picture(picture_uri(seen.pixels), name)
    except UnusableError:  # black, or deleted since it was predicted
        pass
    return {
        "image": f"{place + 1} · {row.image}",
        "picture": picture,
        "overlay": overlay,
        "decision": _DECISIONS[row.decision],
        "score": row.calibrated,
        "referral": row.why or "no",
        "distance": row.distance,
    }
