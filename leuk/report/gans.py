"""Numbers and quality of synthetic images; table 2 and figure 8 of the thesis."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.labels import Label
from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.errors import StoreError
from leuk.metrics.arrays import Images, check_images
from leuk.report.figures import Drawn
from leuk.report.html import picture_uri
from leuk.report.table import (
    Column,
    Heading,
    Items,
    Paragraph,
    Picture,
    Section,
    Shown,
    Table,
    Text,
    Written,
    code,
    number,
    strong,
    text,
)
from leuk.report.thesis import published_gans
from leuk.runs.record import Record
from leuk.store import file_in, read_arrays

log = logging.getLogger(__name__)

QUALITY = "quality.json"
"""File with the quality of synthetic images, written by ``leuk synthesize``."""

_UNREADABLE = (
    OSError, ValueError, AttributeError, KeyError, TypeError, ArithmeticError, RecursionError
)  # fmt: skip

_ROWS = {
    "synthetic": "{gan}",
    "real": "real, training images (best achievable)",
    "other_class": "real, held out, other class",
    "mean_image": "mean image, repeated",
    "black": "black images",
}
_COLUMNS = {
    "FID": "fid",
    "KID": "kid",
    "Inception Score": "inception_score",
    "Frechet distance": "frechet_distance",
    "kernel distance": "kernel_distance",
    "class score": "class_score",
    "SSIM nearest": "ssim",
    "SSIM in cell": "ssim_mask",
    "MS-SSIM diversity": "diversity",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "morphology": "morphology",
    "two-sample AUROC": "two_sample_auroc",
}

_LARGE = 1000

_NOTES = """\
Every row compares n images with as many images of held-out patients (stage {held_out}) of the class
(hem: healthy, all: leukemic). The best a GAN can achieve is the value of the real training images.
Distances: smaller is better; features: {extractor}{naming}. Precision and density: realism of the
images. Recall, coverage and diversity: variety of the images. SSIM: structural similarity of each
image to the nearest real image, over the whole image, most of which is black, and inside the cell.
Morphology: mean Wasserstein distance over size, shape, color, texture and specks, in standard
deviations of real cells. Two-sample AUROC: AUROC of a linear classifier that separates the images
of the row from held-out images, evaluated on patients it was not fitted on; 0.5 means
indistinguishable. Spreads (±) are over halves of the patients; they are omitted if the patients are
too few."""

DEEPER = Paragraph(
    (
        "These values were computed from measurements of the cells, without a neural network. ",
        code("leuk synthesize -m name=NAME gan=GAN,..."),
        " with otherwise the same settings evaluates the images with the features of a network "
        "against test images, and by FID with ",
        code("extractor=inception"),
        "; this report then includes the result.",
    )
)


def write_gan_report(sweep: Path) -> str:
    """Write ``table_2.csv``, ``table_2.md`` and ``figure_8.png``; return the Markdown table.

    Args:
        sweep: folder of a sweep of ``leuk synthesize``.

    Raises:
        StoreError: no GAN of the sweep has been evaluated.
    """
    from leuk.metrics.synthetic.quality import save_rows

    paths = sorted(sweep.glob(f"*/{QUALITY}"))
    reports = {path.parent: json.loads(path.read_text()) for path in paths}
    if not reports:
        raise StoreError(f"{sweep}: no {QUALITY} below it; run leuk synthesize first")
    blocks, table = quality_tables({folder.name: report for folder, report in reports.items()})
    section = Section("table_2", sweep.name, (*blocks, *published_gans()), table)
    section.write(sweep)
    save_rows(sweep / "figure_8.png", synthesis_examples(list(reports)))
    return section.markdown


def quality_tables(reports: Mapping[str, Any]) -> tuple[list[Written | str], pd.DataFrame]:
    """Quality of synthetic images and their references, as a table with notes and as numbers.

    Args:
        reports: quality reports by name of the GAN, not empty. With several folds or seeds,
            ``where`` names the one of the report.
    """
    rows = []
    for gan, report in reports.items():
        where = f" ({report['where']})" if report.get("where") else ""
        for cls, quality in report["quality"].items():
            copies = {
                f"{space}_{name}": value
                for space, found in quality["memorization"].items()
                for name, value in found.items()
            }
            for row, title in _ROWS.items():
                own = row == "synthetic"
                named = {"set": title.format(gan=gan) + ("" if own else where), "row": row}
                facts = {"class": cls, "extractor": quality["extractor"], "n": quality["n"]}
                rows.append(named | facts | quality["rows"][row] | (copies if own else {}))
    table = pd.DataFrame(rows)
    columns = {
        title: key for title, key in _COLUMNS.items() if key in table and table[key].notna().any()
    }
    # GANs evaluated on the same images have the same references.
    shown = table.drop_duplicates(["set", "class", "n", *columns.values(), "extractor"])
    # Synthetic images first, then the references in the order of _ROWS.
    order = shown["row"].map(list(_ROWS).index)
    shown = shown.assign(row=order).sort_values(["class", "row"], kind="stable")
    formats = {
        "images": text("set"),
        "class": text("class"),
        "n": number("n", "d"),
        **{title: Column((key, f"{key}_spread"), _with_spread) for title, key in columns.items()},
    }
    notes = _NOTES.format(
        held_out=next(iter(reports.values()))["held_out"],
        extractor=", ".join(dict.fromkeys(table["extractor"])),
        naming="" if "fid" in table else ", so the distances are not FID and KID",
    )
    return [Table(shown, formats), notes, Items(tuple(_remarks(reports)))], table


def _with_spread(value: float | None, spread: float | None) -> Shown:
    if value is None:
        return Shown()
    if abs(value) >= _LARGE:
        # Exact distances of useless images carry no information.
        return Shown(f"{value:,.0f}")
    return Shown(f"{value:.3f}", "" if spread is None else f"± {spread:.3f}")


def _remarks(reports: Mapping[str, Any]) -> Iterable[Text]:
    """Describe usefulness and copies of each GAN, with its warnings."""
    for gan, report in reports.items():
        for cls, quality in report["quality"].items():
            use, copies = quality["usefulness"], quality["memorization"]
            yield (
                f"{gan}, {cls}: a linear classifier trained on synthetic images reaches AUROC "
                f"{use['synthetic']:.3f} on real images, trained on real images {use['real']:.3f}. "
                "Share of synthetic images closer to a training image than 99 % of held-out images "
                f"are: {copies['features']['closer_share']:.1%} by features, "
                f"{copies['pixels']['closer_share']:.1%} by pixels (1 % expected without copying)."
            )
            for warning in quality["warnings"]:
                yield (strong(f"{gan}, {cls}: {warning}"),)
            # Older records do not count patients.
            patients = quality.get("patients", {}).items()
            few = ", ".join(f"{name} {n:.1f}" for name, n in patients if n < FEWEST_PATIENTS)
            if few:
                yield (
                    f"{gan}, {cls}: fewer than {FEWEST_PATIENTS:.0f} effective patients in {few}: "
                    "the distances have no spread."
                )


def synthesis_examples(folders: Iterable[Path]) -> dict[str, Images]:
    """Images kept by synthesis: rows of real images, then a row for each GAN and class."""
    rows: dict[str, Images] = {}
    for folder in folders:
        for cls, (real, synthetic) in _kept(folder).items():
            rows.setdefault(f"real {cls}", real)
            rows[f"{folder.name.split('-')[0]} {cls}"] = synthetic
    return rows


def _kept(folder: Path) -> dict[str, tuple[Images, Images]]:
    """Real and synthetic images by class, kept when the quality was computed."""
    found = {}
    for file in sorted(folder.glob("images_*.npz")):
        kept = read_arrays(file_in(folder, file.name))
        for images in (kept["real"], kept["synthetic"]):
            check_images(images)
        found[file.stem.removeprefix("images_")] = kept["real"], kept["synthetic"]
    return found


# --- Synthetic images of a sweep of classifiers


def quality_records(records: Iterable[Record]) -> list[Record]:
    """One record for each set of synthetic images: the first with their quality, else the first."""
    found: dict[str, Record] = {}
    for record in records:
        if synthetic := record.data.get("synthetic"):
            first = found.setdefault(str(synthetic.get("artifact")), record)
            if synthetic.get("quality") and not first.data["synthetic"].get("quality"):
                found[str(synthetic.get("artifact"))] = record
    return list(found.values())


def synthetic_section(records: Sequence[Record]) -> Section:
    """Numbers of synthetic images in the records of a sweep, by GAN and class."""
    sets = [(record.run, record.data["synthetic"]) for record in quality_records(records)]
    table = pd.DataFrame(
        [
            {
                "augmentation": run.augmentation,
                "split": run.split_name,
                "fold": run.fold,
                "seed": run.seed,
                "class": cls,
                "images": count,
                "gan": ", ".join(synthetic.get("gans", [])),
            }
            for run, synthetic in sets
            for cls, count in synthetic.get("counts", {}).items()
        ]
    )
    columns = {
        "GAN": text("augmentation"),
        "split": text("split"),
        **{key: number(key, "d") for key in ("fold", "seed")},
        "class": text("class"),
        "images": number("images", "d"),
        "artifact of the GAN": text("gan"),
    }
    nothing = "No run of the sweep was trained with synthetic images."
    shown = (Table(table, columns) if sets else nothing,)
    return Section("synthetic_images", "Synthetic images added to the training data", shown, table)


def quality_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Quality of each set of synthetic images, and the values published in the thesis.

    Results of ``leuk synthesize`` take precedence over those in the records.

    Args:
        sweep: folder of the sweep; ``leuk synthesize`` writes to ``<outputs>/synthetic``.
        records: records of the sweep.
    """
    sets = quality_records(records)
    network, problems = _by_network(sweep, sets)
    covered = {
        (gan, cls)
        for report in network.values()
        for gan in report["artifacts"]
        for cls in report["quality"]
    }
    names = [folder.name for folder in network]
    named = {
        f"{folder.parent.name}/{folder.name}" if names.count(folder.name) > 1 else folder.name: one
        for folder, one in network.items()
    }
    own: dict[str, Any] = {}
    skipped = []
    several = len({_fold(record) for record in sets}) > 1
    for record in sets:
        synthetic = record.data["synthetic"]
        gans, quality = synthetic.get("gans", []), synthetic.get("quality", {})
        name = f"{record.run.augmentation} ({_fold(record)})"
        if name in own:
            name = f"{name} {', '.join(gans)}"
        wanted = [
            cls
            for cls in synthetic.get("counts", {})
            if not any((gan, cls) in covered for gan in gans)
        ]
        if wanted and not quality:
            skipped.append(name)
        report = {
            "held_out": synthetic.get("held_out"),
            "quality": {cls: quality[cls] for cls in wanted if cls in quality},
            "where": _fold(record) if several else "",
        }
        if report["quality"]:
            try:
                _check(name, report)
                own[name] = report
            except _UNREADABLE as error:
                problems.append(
                    f"{record.run.folder}: unreadable quality of its synthetic images: {error!r}"
                )
    blocks: list[Written | str] = [Items(tuple(problems))]
    tables = []
    for found in filter(None, (named, own)):
        shown, table = quality_tables(found)
        blocks += shown
        tables.append(table)
    blocks += [DEEPER] if own else []
    if skipped:
        older = "Not evaluated (too few images, or run by an older leuk)"
        blocks.append(f"{older}: {', '.join(skipped)}.")
    blocks += [Heading("Table 2 of the thesis"), *published_gans()]
    table = pd.concat(tables) if tables else pd.DataFrame()
    title = "Quality of synthetic images, and table 2 of the thesis"
    return Section("synthetic_quality", title, blocks, table)


def _check(name: str, report: Any) -> None:
    """Print a report, which raises one of ``_UNREADABLE`` if it is incomplete."""
    blocks, _ = quality_tables({name: report})
    for block in blocks:
        if isinstance(block, Table):
            _ = block.rows


def _fold(record: Record) -> str:
    return f"{record.run.split_name} fold {record.run.fold} seed {record.run.seed}"


def _by_network(sweep: Path, records: Iterable[Record]) -> tuple[dict[Path, Any], list[str]]:
    """Return reports of ``leuk synthesize`` on the GANs of these records, and problems."""
    names = {name for record in records for name in record.data["synthetic"].get("gans", [])}
    found: dict[Path, Any] = {}
    problems = []
    for path in sorted((sweep.parent.parent / "synthetic").glob(f"*/*/{QUALITY}")):
        try:
            report = json.loads(path.read_text())
            if names.intersection(report.get("artifacts", [])):
                _check(path.parent.name, report)
                found[path.parent] = report
        except _UNREADABLE as error:
            problems.append(f"{path}: cannot be read ({error}); run leuk synthesize again")
    return found, problems


# --- Examples

_EXAMPLES = 12
"""Images of each set in the figure."""

_FIRST, _GANS = 4, 3
"""Images of each set on the first screen of a page, and the number of GANs there."""

_CLASSES = {Label.HEM.folder: "healthy", Label.ALL.folder: "leukemic"}


def contact_sheet(sweep: Path, records: Sequence[Record]) -> Drawn | None:
    """Return example images by augmentation and class, below real images if kept.

    None if the records of the sweep name no synthetic images, or none are readable.
    """
    sets = quality_records(records)
    folders = [*_by_network(sweep, sets)[0], *filter(None, (_artifact(sweep, r) for r in sets))]
    kept = _readable(lambda: synthesis_examples(folders))
    rows = {name: images[:_EXAMPLES] for name, images in kept.items() if name.startswith("real")}
    real = len(rows)
    for record in sets:
        for cls, images in _readable(partial(_images, sweep, record)).items():
            rows.setdefault(f"{record.run.augmentation} {cls}", images)
    if len(rows) == real:
        return None
    # Imports torch, which takes longer than the rest of a report.
    from leuk.metrics.synthetic.quality import rows_figure

    return Drawn(
        "synthetic_images",
        "Synthetic images",
        "The first images of each set, not selected, from the first split, fold and seed that has "
        "it. hem: healthy, all: leukemic.",
        partial(rows_figure, rows),
        f"Rows of up to {_EXAMPLES} images each: {', '.join(rows)}.",
    )


def samples(sweep: Path, records: Sequence[Record]) -> tuple[Picture, ...]:
    """Return strips of four real images and of four of each GAN; empty if none are readable."""
    strips: dict[str, Images] = {}
    for record in quality_records(records):
        folder = _artifact(sweep, record)
        kept = _readable(partial(_kept, folder)) if folder else {}
        for cls, (real, synthetic) in list(kept.items())[:1]:
            word = _CLASSES.get(cls, cls)
            strips.setdefault(f"real, {word}", real)
            strips.setdefault(f"{record.run.augmentation}, {word}", synthetic)
    pictures = []
    for name, images in list(strips.items())[: 1 + _GANS]:
        gap = max(1, images.shape[1] // 32)
        spaced = np.pad(images[:_FIRST], ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        uri = picture_uri(np.concatenate(list(spaced), axis=1)[:, :-gap])
        pictures.append(Picture(uri, f"Four images of single cells, {name}", (name,)))
    return tuple(pictures)


def _artifact(sweep: Path, record: Record) -> Path | None:
    """Folder of the images kept with the quality of a record's synthetic images."""
    # Only the name is used: the recorded path may be of another host.
    name = Path(str(record.data["synthetic"].get("quality_artifact", ""))).name
    return sweep.parent.parent / "artifacts" / "quality" / name if name else None


def _readable(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``read`` returns; empty if its files are missing or damaged."""
    try:
        return read()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, IndexError) as error:
        log.warning("examples of synthetic images cannot be shown (%s)", error)
        return {}


def _images(sweep: Path, record: Record) -> dict[str, Images]:
    """Return the first synthetic images of each class."""
    recorded = Path(str(record.data["synthetic"].get("artifact")))
    folder = sweep.parent.parent / "artifacts" / "synthetic" / recorded.name
    pixels = np.load(file_in(folder, "images.npy"), mmap_mode="r")
    labels = pd.read_csv(file_in(folder, "origin.csv"))["label"].to_numpy()
    found = {label.folder: np.flatnonzero(labels == label)[:_EXAMPLES] for label in Label}
    return {name: np.asarray(pixels[rows]) for name, rows in found.items() if len(rows)}
