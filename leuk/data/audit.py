"""Audit of an image folder: content, problems, linked subjects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import FINAL_SIZE, Frame
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import FINAL, PRELIM, Problem, read_cnmc, unread_message
from leuk.data.links import find_pairs, link_images
from leuk.data.pixels import PixelStore
from leuk.data.scale import REMEDY, check_background, has_background, mixed_sizes
from leuk.data.splits import STAGES
from leuk.errors import DataError

CUT = 0.005
"""Share of a cell's area outside the frame above which the cell counts as cut."""

PUBLISHED: dict[tuple[str, int], tuple[int, int]] = {
    ("fold_0", Label.ALL): (2397, 19),
    ("fold_0", Label.HEM): (1130, 9),
    ("fold_1", Label.ALL): (2418, 11),
    ("fold_1", Label.HEM): (1163, 3),
    ("fold_2", Label.ALL): (2457, 17),
    ("fold_2", Label.HEM): (1096, 14),
    (PRELIM, Label.ALL): (1219, 13),
    (PRELIM, Label.HEM): (648, 15),
    (FINAL, UNLABELED): (2586, 17),
}
"""Images and subjects per source fold and class (Gupta & Gupta 2019, TCIA, and the file list)."""


@dataclass(frozen=True)
class Count:
    """Images and subjects of a source fold and class, found and published (None: unpublished)."""

    source_fold: str
    label: str
    images: int
    published_images: int | None
    subjects: int
    published_subjects: int | None


@dataclass(frozen=True)
class Pair:
    """Two images of a cell; ``kind`` is ``identical`` or ``near``, ``score`` the correlation."""

    first: str
    second: str
    kind: str
    score: float


@dataclass(frozen=True)
class Link:
    """Two subjects with images of the same cells; the pairs are in descending order of score."""

    subjects: tuple[str, str]
    source_folds: tuple[str, str]
    pairs: list[Pair]


@dataclass(frozen=True)
class Cut:
    """Numbers of images of a class (or ``unlabeled``): all, those cut by the frame, at the border.

    A cell at the border of its image may have been cut there.
    """

    label: str
    images: int
    cut: int
    at_border: int


@dataclass(frozen=True)
class Audit:
    """Result of an audit."""

    root: str
    counts: list[Count]
    sizes: dict[str, int]  # images by "source fold: width x height"
    problems: list[Problem]  # files and table rows to fix
    strays: list[str]  # files that do not belong to C-NMC
    links: list[Link]
    linked_patients: list[str]  # with several subject numbers, joined by +
    within: dict[str, int] = field(default_factory=dict)  # pairs of images of a cell, by subject
    framing: str = "full"
    cuts: list[Cut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # remarks that need no action
    filled: int = 0  # images that are not square, which are padded with black

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)


def audit(root: Path, frame: Frame, cache: Path, mixed: bool = False) -> Audit:
    """Inspect every file below a folder.

    Args:
        root: a folder at or above the images.
        frame: frame of the pixel store; training with the same frame reuses the store.
        cache: folder of artifacts.
        mixed: accept images of several sizes, because their scale is known.

    Raises:
        DataError: the folder is missing or contains no readable image.
    """
    index = read_cnmc(root)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    problems = [*index.problems, *index.unread]
    links: list[Link] = []
    linked_patients: list[str] = []
    within: dict[str, int] = {}
    cuts: list[Cut] = []
    inspected = []
    # Separate stores, because training reuses that of the labeled images.
    is_labeled = index.table["label"] != UNLABELED
    for table in (index.table[is_labeled], index.table[~is_labeled]):
        if table.empty:
            continue
        store = PixelStore.open(table, root, frame, cache, "skip")
        kept = table.iloc[store.kept].reset_index(drop=True)
        kept["size"] = [(width, height) for width, height in store.sizes.tolist()]
        inspected.append(kept)
        problems += [Problem("corrupt", *error.split(": ", 1)) for error in store.errors]
        problems += [
            Problem("background", path, f"its background is not black; {REMEDY}")
            for path in kept.loc[has_background(store.thumbs), "path"]
        ]
        cuts += count_cuts(kept, store)
        if kept["label"].iloc[0] == UNLABELED:
            continue
        links, within = _links(kept, find_pairs(store))
        linked = link_images(kept, store)
        linked_patients = sorted(one for one in linked["patient"].unique() if "+" in one)
        first = linked.iloc[linked["original"]].reset_index(drop=True)
        conflicts = linked.assign(first=first["path"])[linked["label"] != first["label"]]
        problems += [
            Problem("label conflict", path, f"identical to {other}, which has another label")
            for path, other in conflicts[["path", "first"]].to_numpy().tolist()
        ]
        if not mixed and (text := mixed_sizes(root, Counter(kept["size"]), frame.framing)):
            problems.append(Problem("mixed sizes", ".", text))
    images = pd.concat(inspected)
    number = Counter(zip(images["source_fold"], images["size"], strict=True))
    # The most frequent size of each source fold; the final test set has a second size.
    usual = {fold: size for (fold, size), _ in reversed(number.most_common())}
    for fold, (width, height), path in images[["source_fold", "size", "path"]].to_numpy().tolist():
        if not mixed and (width, height) not in (usual[fold], FINAL_SIZE):
            text = "{} x {} pixels; usual size: {} x {}".format(width, height, *usual[fold])
            problems.append(Problem("odd size", path, text))
    return Audit(
        root=str(root),
        counts=_counts(index.table),
        sizes={f"{fold}: {size[0]} x {size[1]}": count for (fold, size), count in number.items()},
        problems=problems,
        strays=sorted({*index.strays} - {problem.path for problem in index.unread}),
        links=links,
        linked_patients=linked_patients,
        within=within,
        framing=frame.framing,
        cuts=cuts,
        filled=sum(width != height for width, height in images["size"]),
    )


def _counts(table: pd.DataFrame) -> list[Count]:
    found: dict[tuple[str, int], list[str]] = {key: [] for key in PUBLISHED}
    for fold, label, subject in table[["source_fold", "label", "subject"]].to_numpy().tolist():
        found.setdefault((fold, label), []).append(subject)
    counts = []
    for (fold, label), subjects in sorted(found.items(), key=lambda of: (of[0][0], -of[0][1])):
        images, published = PUBLISHED.get((fold, label), (None, None))
        known = len(set(subjects)) if label != UNLABELED else 0
        counts.append(Count(fold, _class_name(label), len(subjects), images, known, published))
    return counts


def _class_name(label: int) -> str:
    return "unlabeled" if label == UNLABELED else Label(label).folder


def _links(table: pd.DataFrame, pairs: pd.DataFrame) -> tuple[list[Link], dict[str, int]]:
    """Collect the pairs between two subjects, and count those within a subject."""
    between: dict[tuple[str, str], Link] = {}
    within: Counter[str] = Counter()
    images = table[["subject", "source_fold", "path"]].to_numpy(str).tolist()
    for pair in pairs.sort_values("score", ascending=False).to_dict("records"):
        ends = images[pair["first"]], images[pair["second"]]
        one, other = sorted(ends, key=lambda image: image[0])
        if one[0] == other[0]:
            within[one[0]] += 1
            continue
        subjects = one[0], other[0]
        link = between.setdefault(subjects, Link(subjects, (one[1], other[1]), []))
        link.pairs.append(Pair(one[2], other[2], pair["kind"], float(pair["score"])))
    return sorted(between.values(), key=lambda link: link.subjects), dict(sorted(within.items()))


def count_cuts(table: pd.DataFrame, store: PixelStore) -> list[Cut]:
    """Count the images with cut cells per class, in a table of the images of the store."""
    found = table.assign(cut=store.outside > CUT, at_border=store.at_border)
    return [
        Cut(_class_name(int(label)), len(own), int(own["cut"].sum()), int(own["at_border"].sum()))
        for label, own in reversed([*found.groupby("label")])
    ]


def image_warnings(data: CNMCDataModule) -> list[str]:
    """Return warnings about the backgrounds and the framing of a data module's images.

    Raises:
        DataError: see :func:`leuk.data.scale.check_background`.
    """
    store = data.dataset.store
    background = check_background({stage: data.stage(stage) for stage in STAGES}, store.thumbs)
    framing = framing_warning(data.framing, count_cuts(data.dataset.index, store))
    return [text for text in (background, framing) if text]


def framing_warning(framing: str, cuts: Sequence[Cut]) -> str:
    """Warn of a framing that cuts cells; empty if it cuts none."""
    if not any(cut.cut for cut in cuts):
        return ""
    counts = ", ".join(
        f"{cut.cut} of {cut.images} {cut.label} images ({cut.cut / cut.images:.1%})" for cut in cuts
    )
    return (
        f"data.framing={framing}: more than {CUT:.1%} of the cell is outside the frame in "
        f"{counts}; classifiers can learn the straight edges; choose data.framing=centered"
    )
