"""Page of predictions for new images, with pictures.

Images referred to an expert come first. File names reach the page only as escaped text.
"""

from dataclasses import dataclass
from pathlib import Path

from leuk.data.decode import UnusableError, decode
from leuk.data.labels import Label
from leuk.report.html import picture_uri, png_uri, render
from leuk.runs.predict import SHEET, Predicted

_UNREADABLE_SHOWN = 50


@dataclass(frozen=True)
class Shown:
    """One image on the page.

    Attributes:
        number: row of the image in the table, from 1.
        name: file name.
        picture: data URI of the image as the model sees it; empty if unreadable.
        overlay: data URI of the image with its Grad-CAM map; empty if it has none.
        decision: the decision in a word or two.
        score: calibrated score, or a dash.
        reason: reason for referral to an expert; empty if it is not referred.
        distance: distance from the training images, or a dash.
    """

    number: int
    name: str
    picture: str
    overlay: str
    decision: str
    score: str
    reason: str
    distance: str


_DECISIONS = {Label.ALL.name: "leukemic", Label.HEM.name: "healthy", "": "no decision"}


def predicted_page(predicted: Predicted, folder: Path, most: int) -> str:
    """Page of predictions for new images.

    Args:
        predicted: the predictions; the image files are read again for the pictures.
        folder: folder of the overlays.
        most: maximum number of images shown.
    """
    rows = predicted.rows
    bad = [(row.image, row.problem) for row in rows if row.problem]
    # The sort is stable, so referred and decided images keep their order.
    order = sorted(range(len(rows)), key=lambda number: not rows[number].refer)
    good = [number for number in order if not rows[number].problem]
    counts = predicted.summary["counts"]
    sheet = folder / SHEET
    return render(
        "predicted.html",
        title=f"{predicted.summary['images']}: predictions",
        images=predicted.summary["images"],
        run=predicted.finished.folder.name,
        counts=counts,
        tiles=_tiles(counts),
        notes=_notes(predicted),
        warnings=predicted.summary["warnings"],
        shown=[_shown(predicted, folder, number) for number in good[:most]],
        hidden=len(good[most:]),
        unreadable=bad[:_UNREADABLE_SHOWN],
        more_unreadable=max(0, len(bad) - _UNREADABLE_SHOWN),
        sheet=png_uri(sheet.read_bytes()) if sheet.is_file() else "",
        facts=_facts(predicted),
    )


def _tiles(counts: dict[str, int]) -> list[tuple[str, str]]:
    named = [
        ("leukemic", "classified as leukemic"),
        ("healthy", "classified as healthy"),
        ("referred", "referred to an expert"),
        ("unfamiliar", "unlike the training images"),
        ("without_cell", "without a cell"),
        ("unknown_scale", "of unknown scale"),
        ("unreadable", "unreadable"),
    ]
    return [(str(counts[key]), text) for key, text in named]


def _notes(predicted: Predicted) -> list[str]:
    notes = [predicted.frozen.band.message, predicted.frozen.test.message]
    if predicted.limit is None:
        notes.append("The images were not compared with the training images (familiarity=false).")
    return notes


def _facts(predicted: Predicted) -> list[tuple[str, str]]:
    frozen, frame = predicted.frozen, predicted.view.frame
    limit = "not computed" if predicted.limit is None else f"{predicted.limit:.4f}"
    return [
        ("threshold", f"{frozen.name}, {frozen.threshold:.6f} of the uncalibrated score"),
        ("threshold of the calibrated score", f"{frozen.calibrated_threshold:.6f}"),
        ("temperature", f"{frozen.temperature:.4f}"),
        ("distance above which an image is unfamiliar", limit),
        ("images", f"{frame.resolution} px, {frame.framing}"),
        ("fingerprint of the settings", predicted.summary["fingerprint"]),
        ("hash of the weights", predicted.summary["weights"]),
    ]


def _shown(predicted: Predicted, folder: Path, number: int) -> Shown:
    row = predicted.rows[number]
    return Shown(
        number + 1,
        row.image,
        _picture(predicted, number),
        png_uri((folder / row.overlay).read_bytes()) if row.overlay else "",
        _DECISIONS[row.decision],
        _number(row.calibrated),
        row.why,
        _number(row.distance),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _picture(predicted: Predicted, number: int) -> str:
    try:
        seen = decode(predicted.images[number].path, predicted.view.frame)
    except UnusableError:  # black, or deleted since it was predicted
        return ""
    return picture_uri(seen.pixels)
