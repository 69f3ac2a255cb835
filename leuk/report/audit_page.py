"""The audit of a folder of images, as text and as a page with pictures."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.audit import Audit, Link, Pair, framing_warning
from leuk.data.decode import Frame, decode
from leuk.data.layouts import Problem, is_metadata
from leuk.data.links import turn_to_match
from leuk.report.html import Chapter, page, picture_uri, png_uri
from leuk.report.table import (
    Block,
    Column,
    Heading,
    Items,
    Paragraph,
    Picture,
    Pictures,
    Table,
    Text,
    code,
    number,
    strong,
    text,
)
from leuk.store import csv_text

FINDINGS = "findings.csv"
"""File of all problems and stray files, in the folder of the page."""

_EXAMPLES = 10
_SHOWN = 6
_SIDE = 140

_COUNTS = {
    "source fold": text("source_fold"),
    "class": text("label"),
    "images": number("images", "d"),
    "published images": number("published_images", ".0f", "-"),
    "subjects": Column(("subjects",), lambda count: str(count or "-")),
    "published subjects": number("published_subjects", ".0f", "-"),
}
_STAGES = {
    "stage": text("stage"),
    "all": number("all", "d"),
    "hem": number("hem", "d"),
    "subjects": number("subjects", "d"),
    "effective patients, all": Column(("effective_all",), str),
    "effective patients, hem": Column(("effective_hem",), str),
}


def by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Problems by kind, the most frequent kind first."""
    found: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.kind].append(problem)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _first(texts: Sequence[Text], where: str = FINDINGS) -> list[Text]:
    """Return the first ten texts, and the number of the others."""
    others = len(texts) - _EXAMPLES
    return [*texts[:_EXAMPLES], *([f"and {others} more in {where}"] if others > 0 else [])]


def findings(audit: Audit) -> str:
    """All problems and stray files as CSV text with columns ``kind``, ``path`` and ``text``."""
    rows = [(one.kind, one.path, one.text) for one in audit.problems]
    rows += [("system file" if is_metadata(one) else "stray", one, "") for one in audit.strays]
    return csv_text(pd.DataFrame(rows, columns=["kind", "path", "text"]))


def _strays(audit: Audit) -> tuple[list[str], str]:
    """Stray files, and a phrase on files of operating systems, which are not listed."""
    metadata = [path for path in audit.strays if is_metadata(path)]
    others = [path for path in audit.strays if not is_metadata(path)]
    if not metadata:
        return others, ""
    return others, f"{len(metadata)} operating system file(s) ignored, such as {metadata[0]}"


def audit_text(audit: Audit) -> str:
    """Return the audit as text for a terminal: verdict, examples of each problem, counts."""
    linked = []
    for link in audit.links:
        first, second = _subjects(link)
        identical = sum(pair.kind == "identical" for pair in link.pairs)
        best = link.pairs[0]
        linked.append(
            f"{first} and {second}: {identical} identical and {len(link.pairs) - identical} nearly "
            f"identical pairs, such as {Path(best.first).name} and {Path(best.second).name}"
        )
    strays, metadata = _strays(audit)
    lines = [verdict(audit), *audit.notes]
    for kind, problems in by_kind(audit.problems).items():
        lines += [f"{kind}: {text}" for text in _first([str(one) for one in problems])]
    lines += [_counts(audit).text, f"sizes: {_sizes(audit)}", *_framing(audit)]
    lines += [f"linked: {text}" for text in _first(linked, "audit.json")]
    if audit.within:
        count = sum(audit.within.values())
        lines.append(f"pairs of images of the same cell within a subject: {count}")
    lines += [f"stray: {text}" for text in _first(strays)]
    return "\n".join([*lines, metadata] if metadata else lines)


def _subjects(link: Link) -> list[str]:
    """Both subjects of a link, each with its source fold."""
    pairs = zip(link.subjects, link.source_folds, strict=True)
    return [f"{subject} ({fold})" for subject, fold in pairs]


def _sizes(audit: Audit) -> str:
    """Return the ten most frequent image sizes with counts, and the number of other sizes."""
    frequent = Counter(audit.sizes).most_common(_EXAMPLES)
    listed = [f"{size} ({number})" for size, number in frequent]
    others = len(audit.sizes) - len(frequent)
    return ", ".join([*listed, f"{others} other sizes"] if others else listed)


def _counts(audit: Audit) -> Table:
    rows = pd.DataFrame([asdict(count) for count in audit.counts])
    return Table(rows, _COUNTS, "By folder and class")


def _framing(audit: Audit) -> list[str]:
    """Lines on cells cut by the framing or the image border, and on padded images."""
    lines = []
    if warning := framing_warning(audit.framing, audit.cuts):
        lines.append(f"warning: {warning}")
    if any(one.at_border for one in audit.cuts):
        counted = ", ".join(f"{one.at_border} {one.label}" for one in audit.cuts)
        lines.append(f"cells that touch the image border: {counted}")
    if audit.filled:
        padded = "they are padded with black to squares, not rescaled"
        lines.append(f"{audit.filled} images are not square; {padded}")
    return lines


def verdict(audit: Audit) -> str:
    """One sentence: the problems by kind, or that the files have none."""
    images = sum(count.images for count in audit.counts)
    found = f"{images} images, {len(audit.linked_patients)} patient(s) with several subject numbers"
    if not audit.problems:
        return f"No problems found: {found}."
    kinds = ", ".join(f"{len(own)} {kind}" for kind, own in by_kind(audit.problems).items())
    return f"{len(audit.problems)} problem(s) to fix ({kinds}): {found}."


def audit_page(
    audit: Audit, root: Path, split: dict[str, Any], source: str, sheets: dict[str, Path]
) -> str:
    """Return the audit as one self-contained HTML page.

    Args:
        audit: result of the audit.
        root: folder of the images, for the pictures.
        split: ``name``, ``counts``, ``dropped`` and ``leaky`` of a split, or its ``error``.
        source: citation of the data set.
        sheets: contact sheets by recipe of conventional augmentation.
    """
    counts: list[Block] = [_counts(audit), Paragraph(f"Sizes: {_sizes(audit)}.")]
    counts += [Paragraph(f"{line}.") for line in _framing(audit)]
    problems: list[Block] = [] if audit.problems else [Paragraph("None.")]
    for kind, own in by_kind(audit.problems).items():
        texts = _first([(code(one.path), f": {one.text}") for one in own])
        problems += [Heading(f"{kind}: {len(own)}"), Items(tuple(texts))]
    strays, metadata = _strays(audit)
    stray: list[Block] = [Items(tuple(_first([(code(one),) for one in strays])))] * bool(strays)
    if metadata or not strays:
        stray.append(Paragraph(f"{metadata}." if metadata else "None."))
    augmented = [
        Pictures(
            name,
            "Six images, each followed by eight random augmentations.",
            (Picture(png_uri(path.read_bytes()), f"Images augmented with the recipe {name}"),),
        )
        for name, path in sheets.items()
    ]
    title = "Images and subjects, compared with the published numbers"
    return page(
        f"{audit.root}: audit",
        verdict(audit),
        eyebrow=source,
        question=f"Audit of {audit.root}",
        tone="harms" if audit.problems else "helps",
        lead=[Paragraph(note) for note in audit.notes],
        chapters=[
            Chapter("counts", title, counts),
            Chapter("split", f"The split {split['name']} of these images", _split(split)),
            Chapter("shared", "Subjects with images of the same cell", _links(audit, root)),
            Chapter("problems", "Problems", problems),
            Chapter("stray", "Stray files", stray),
            Chapter("augmentation", "Conventional augmentation", augmented),
        ],
    )


def _split(split: dict[str, Any]) -> list[Block]:
    if split["error"]:
        return [Paragraph(split["error"])]
    rows = pd.DataFrame([{"stage": stage, **count} for stage, count in split["counts"].items()])
    blocks: list[Block] = [Table(rows, _STAGES, "Images and subjects of each stage")]
    for why, count in split["dropped"].items():
        blocks.append(Paragraph(f"{count} images left out of {why}."))
    if split["leaky"]:
        blocks.append(Paragraph((strong(f"LEAKY: {split['leaky']}"),)))
    return blocks


def _links(audit: Audit, root: Path) -> list[Block]:
    blocks: list[Block] = [] if audit.links else [Paragraph("None found.")]
    if audit.linked_patients:
        patients = ", ".join(audit.linked_patients)
        blocks.append(Paragraph(f"Each of these is treated as one patient: {patients}."))
    for link in audit.links[:_EXAMPLES]:
        first, second = _subjects(link)
        count = f"{len(link.pairs)} pair{'s' if len(link.pairs) > 1 else ''}"
        blocks.append(Heading(f"{first} and {second}: {count}"))
        pictures = tuple(_picture(root, pair) for pair in link.pairs[:_SHOWN])
        blocks.append(Pictures("", "", pictures, "pair"))
    if (more := len(audit.links) - _EXAMPLES) > 0:
        blocks.append(Paragraph(f"{more} more pairs of subjects are in audit.json."))
    if audit.within:
        counted = ", ".join(f"{subject} {count}" for subject, count in audit.within.items())
        blocks.append(Paragraph(f"Pairs of images of the same cell within a subject: {counted}."))
    return blocks


def _picture(root: Path, pair: Pair) -> Picture:
    """Both images side by side, the second rotated and flipped to match the first."""
    first, second = (
        decode(root / path, Frame(_SIDE, "cell")) for path in (pair.first, pair.second)
    )
    turned = turn_to_match(first.thumb, second.thumb, second.pixels)
    return Picture(
        picture_uri(np.concatenate([first.pixels, turned], axis=1)),
        f"Two images of the same cell, {pair.kind}, side by side",
        (Path(pair.first).name, Path(pair.second).name, f"{pair.kind}, {pair.score:.2f}"),
    )
