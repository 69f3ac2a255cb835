"""The audit of a folder of cells, in words and as a page with the evidence in pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from leuk.data.audit import Audit, Link, Pair, framing_warning
from leuk.data.decode import Frame, decode
from leuk.data.links import turned_to_match
from leuk.report.html import picture_uri, png_uri, render

_SHOWN = 6
_SIDE = 140
_ROW = "{:<8} {:<11}{:>7}{:>11}{:>10}{:>11}"


def audit_text(audit: Audit) -> str:
    """The audit in lines for a terminal."""
    lines = [_ROW.format("part", "class", "images", "published", "subjects", "published")]
    lines += [
        _ROW.format(
            count.part,
            count.label,
            count.images,
            _said(count.published_images),
            count.subjects or "-",
            _said(count.published_subjects),
        )
        for count in audit.counts
    ]
    lines.append("sizes: " + ", ".join(f"{where} ({n})" for where, n in audit.sizes.items()))
    lines += framing_lines(audit)
    for link in audit.links:
        identical = sum(pair.kind == "identical" for pair in link.pairs)
        best = link.pairs[0]
        lines.append(
            f"linked: {link.subjects[0]} ({link.parts[0]}) and {link.subjects[1]} "
            f"({link.parts[1]}): {identical} identical and {len(link.pairs) - identical} nearly "
            f"identical pairs, such as {Path(best.first).name} and {Path(best.second).name}"
        )
    if audit.within:
        lines.append(f"pairs of one cell within one subject: {sum(audit.within.values())}")
    lines += [f"stray: {stray}" for stray in audit.strays]
    lines += [f"{problem.kind}: {problem}" for problem in audit.problems]
    return "\n".join([*lines, verdict(audit)])


def _said(number: int | None) -> str:
    return "-" if number is None else str(number)


def framing_lines(audit: Audit) -> list[str]:
    """Cells that the framing or the border of their image cuts, and images that are filled up."""
    lines = []
    if warning := framing_warning(audit.framing, audit.cuts):
        lines.append(f"warning: {warning}")
    if any(one.at_border for one in audit.cuts):
        counted = ", ".join(f"{one.at_border} {one.label}" for one in audit.cuts)
        lines.append(f"cells that touch the border of their image: {counted}")
    if audit.filled:
        lines.append(
            f"{audit.filled} images are not square; they are filled up with black to a square of "
            "their longer side, not squashed"
        )
    return lines


def verdict(audit: Audit) -> str:
    """One sentence: whether anything is wrong."""
    images = sum(count.images for count in audit.counts)
    found = f"{images} images, {len(audit.groups)} group(s) of linked subjects"
    if audit.problems:
        return f"{len(audit.problems)} problem(s) to mend: {found}."
    return f"Nothing is wrong with the files: {found}."


def audit_page(
    audit: Audit, root: Path, split: dict[str, Any], source: str, sheets: dict[str, Path]
) -> str:
    """The audit as one self-contained HTML page.

    Args:
        audit: what was found.
        root: the folder of the images, for the pictures.
        split: ``name``, ``counts``, ``dropped`` and ``leaky`` of a split, or its ``error``.
        source: whose cells they are.
        sheets: recipe of conventional augmentation to its picture.
    """
    return render(
        "audit.html",
        title=f"{audit.root}: audit",
        audit=audit,
        verdict=verdict(audit),
        framing=framing_lines(audit),
        split=split,
        source=source,
        links=[(link, _pictures(root, link)) for link in audit.links],
        sheets={name: png_uri(path.read_bytes()) for name, path in sheets.items()},
    )


def _pictures(root: Path, link: Link) -> list[tuple[Pair, str]]:
    return [(pair, _picture(root, pair)) for pair in link.pairs[:_SHOWN]]


def _picture(root: Path, pair: Pair) -> str:
    """Both images side by side, the second turned as the first lies."""
    first, second = (
        decode(root / path, Frame(_SIDE, "cell")) for path in (pair.first, pair.second)
    )
    turned = turned_to_match(first.thumb, second.thumb, second.pixels)
    return picture_uri(np.concatenate([first.pixels, turned], axis=1))
