"""New cells and what a finished run says of them, as one page with their pictures.

Those that are left to an expert come first. Names of files reach the page as text alone.
"""

from dataclasses import dataclass
from pathlib import Path

from leuk.data.decode import UnusableError, decode
from leuk.data.labels import Label
from leuk.report.html import picture_uri, png_uri, render
from leuk.runs.overlays import SHEET
from leuk.runs.predicting import Predicted

_UNREADABLE_SHOWN = 50


@dataclass(frozen=True)
class Shown:
    """One cell on the page.

    Attributes:
        number: in the table, from 1.
        name: of its image.
        picture: the address of the cell as the model sees it; empty where it cannot be drawn.
        overlay: likewise with its Grad-CAM over it.
        decision: in a word.
        score: the calibrated score, or a dash where there is none.
        why: it is left to an expert; empty where it is not.
        distance: to training cells; likewise.
    """

    number: int
    name: str
    picture: str
    overlay: str
    decision: str
    score: str
    why: str
    distance: str


_SAID = {Label.ALL.name: "leukemic", Label.HEM.name: "healthy", "": "no decision"}


def predicted_page(predicted: Predicted, folder: Path, most: int) -> str:
    """The page of new cells.

    Args:
        predicted: the cells; their files are read once more for the pictures.
        folder: of the overlays.
        most: how many cells are shown.
    """
    lines = predicted.rows
    bad = [(line.image, line.problem) for line in lines if line.problem]
    # Stable: within each kind they stay in their order.
    order = sorted(range(len(lines)), key=lambda number: not lines[number].refer)
    good = [number for number in order if not lines[number].problem]
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
        cells=[_shown(predicted, folder, number) for number in good[:most]],
        hidden=len(good[most:]),
        unreadable=bad[:_UNREADABLE_SHOWN],
        more_unreadable=max(0, len(bad) - _UNREADABLE_SHOWN),
        sheet=png_uri(sheet.read_bytes()) if sheet.is_file() else "",
        facts=_facts(predicted),
    )


def _tiles(counts: dict[str, int]) -> list[tuple[str, str]]:
    named = [
        ("leukemic", "called leukemic"),
        ("healthy", "called healthy"),
        ("referred", "left to an expert"),
        ("unfamiliar", "unlike the training cells"),
        ("without_cell", "without a cell"),
        ("unknown_scale", "of unknown scale"),
        ("unreadable", "unreadable"),
    ]
    return [(str(counts[key]), text) for key, text in named]


def _notes(predicted: Predicted) -> list[str]:
    notes = [predicted.frozen.band.said, predicted.frozen.test.said]
    if predicted.limit is None:
        notes.append("Cells were not compared with the training cells (familiarity=false).")
    return notes


def _facts(predicted: Predicted) -> list[tuple[str, str]]:
    frozen, frame = predicted.frozen, predicted.view.frame
    limit = "not looked at" if predicted.limit is None else f"{predicted.limit:.4f}"
    return [
        ("threshold", f"{frozen.name}, {frozen.threshold:.6f} of the score as it is"),
        ("the same, calibrated", f"{frozen.calibrated_threshold:.6f}"),
        ("temperature", f"{frozen.temperature:.4f}"),
        ("unfamiliar above a distance of", limit),
        ("images", f"{frame.resolution} px, {frame.framing}"),
        ("fingerprint of the settings", predicted.summary["fingerprint"]),
        ("hash of the weights", predicted.summary["weights"]),
    ]


def _shown(predicted: Predicted, folder: Path, number: int) -> Shown:
    line = predicted.rows[number]
    return Shown(
        number + 1,
        line.image,
        _picture(predicted, number),
        png_uri((folder / line.overlay).read_bytes()) if line.overlay else "",
        _SAID[line.decision],
        _figure(line.calibrated),
        line.why,
        _figure(line.distance),
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _picture(predicted: Predicted, number: int) -> str:
    try:
        seen = decode(predicted.images[number].path, predicted.view.frame)
    except UnusableError:  # all black, or gone since it was judged
        return ""
    return picture_uri(seen.pixels)
