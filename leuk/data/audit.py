"""Audit of an image folder: content, problems, linked subjects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import FINAL_SIZE, Frame
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import FINAL, PRELIM, Index, Problem, read_folder, unread_message
from leuk.data.links import find_pairs, merge_subjects
from leuk.data.pixels import CUT, PixelStore
from leuk.data.scale import REMEDY, check_background, has_background, mixed_sizes
from leuk.data.splits import STAGES
from leuk.errors import DataError

Size = tuple[int, int]
Sized = tuple[str, str, Size]
"""Source fold, path, and (width, height) in pixels."""

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

    part: str
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
    parts: tuple[str, str]
    pairs: list[Pair]


@dataclass(frozen=True)
class Cut:
    """Images of a class whose cells are cut by the frame or touch the image border.

    Attributes:
        label: folder name of the class, or ``unlabeled``.
        images: number of images of the class.
        cut: number of images with more than 0.5 % of the cell's area outside the frame.
        at_border: number of images whose cell touches the image border, which may have cut it.
    """

    label: str
    images: int
    cut: int
    at_border: int


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        root: the image folder.
        counts: counts per source fold and class.
        sizes: number of images by ``source fold: width x height``.
        problems: files and table rows to fix: corrupt, of an unusual size, contradictory, not
            read, or with a background that is not black.
        strays: files that do not belong to C-NMC.
        links: pairs of linked subjects.
        groups: patients with several subject numbers, which are joined by ``+``.
        within: number of pairs of images of the same cell within a subject, by subject.
        framing: framing that the audit used.
        cuts: images with cut cells, per class.
        notes: remarks that need no action, such as another split that fits the data.
        filled: number of images that are not square, which are padded with black.
    """

    root: str
    counts: list[Count]
    sizes: dict[str, int]
    problems: list[Problem]
    strays: list[str]
    links: list[Link]
    groups: list[str]
    within: dict[str, int] = field(default_factory=dict)
    framing: str = "full"
    cuts: list[Cut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filled: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)


def audit(root: Path, frame: Frame, cache: Path, mixed: bool = False) -> Audit:
    """Inspect every file below ``root``.

    Args:
        root: a folder at or above the images.
        frame: frame of the pixel store; training with the same frame reuses the store.
        cache: folder of artifacts.
        mixed: accept images of several sizes, because their scale is known.

    Raises:
        DataError: the folder is missing or contains no readable image.
    """
    index = read_folder(root)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    problems = [*index.problems, *index.unread]
    sizes: list[Sized] = []
    links: list[Link] = []
    groups: list[str] = []
    within: dict[str, int] = {}
    cuts: list[Cut] = []
    for table in _tables(index):
        store = PixelStore.open(table, root, frame, cache, "skip")
        problems += [Problem("corrupt", *error.split(": ", 1)) for error in store.errors]
        kept = table.iloc[store.kept].reset_index(drop=True)
        problems += [
            Problem("background", path, f"its background is not black; {REMEDY}")
            for path in kept.loc[has_background(store.thumbs), "path"]
        ]
        width_height = map(tuple, store.sizes.tolist())
        cuts += count_cuts(kept, store)
        sizes += zip(kept["source_fold"].tolist(), kept["path"].tolist(), width_height, strict=True)
        if (kept["label"] != UNLABELED).all():
            pairs = find_pairs(store)
            links, within = _links(kept, pairs)
            problems += _conflicts(kept, pairs)
            found = merge_subjects(kept["subject"], pairs).unique()
            groups = sorted(patient for patient in found if "+" in patient)
            counts = Counter(map(tuple, store.sizes.tolist()))
            if not mixed and (text := mixed_sizes(root, counts, frame.framing)):
                problems.append(Problem("mixed sizes", ".", text))
    number = Counter((part, size) for part, _, size in sizes)
    return Audit(
        str(root),
        _counts(index.table),
        {f"{part}: {size[0]} x {size[1]}": count for (part, size), count in number.items()},
        problems if mixed else problems + _odd_sizes(sizes, number),
        sorted({*index.strays} - {problem.path for problem in index.unread}),
        links,
        groups,
        within,
        frame.framing,
        cuts,
        filled=sum(width != height for _, _, (width, height) in sizes),
    )


def count_cuts(table: pd.DataFrame, store: PixelStore) -> list[Cut]:
    """Count the images with cut cells per class.

    Args:
        table: table of the images of the store, with ``label``.
        store: the decoded images.
    """
    labels = table["label"].to_numpy()
    cut, at_border = store.outside > CUT, store.at_border
    return [
        Cut(
            "unlabeled" if label == UNLABELED else Label(label).folder,
            int((labels == label).sum()),
            int(cut[labels == label].sum()),
            int(at_border[labels == label].sum()),
        )
        for label in sorted(set(labels.tolist()), reverse=True)
    ]


def image_warnings(data: CNMCDataModule) -> list[str]:
    """Return warnings about the backgrounds and the framing of a data module's images.

    Args:
        data: data module after ``setup``.

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


def _tables(index: Index) -> list[pd.DataFrame]:
    """Split a table into labeled images, whose store training reuses, and unlabeled images."""
    labeled = index.table["label"] != UNLABELED
    tables = [index.table[labeled], index.table[~labeled]]
    return [table.reset_index(drop=True) for table in tables if len(table)]


def _counts(table: pd.DataFrame) -> list[Count]:
    keys = list(zip(table["source_fold"].tolist(), table["label"].tolist(), strict=True))
    images = Counter(keys)
    subjects = Counter(key for key, _ in {*zip(keys, table["subject"].tolist(), strict=True)})
    counts = []
    for key in sorted({*images, *PUBLISHED}, key=lambda key: (key[0], -key[1])):
        part, label = key
        labeled = label != UNLABELED
        published = PUBLISHED.get(key, (None, None))
        name = Label(label).folder if labeled else "unlabeled"
        found = subjects[key] if labeled else 0
        counts.append(Count(part, name, images[key], published[0], found, published[1]))
    return counts


def _conflicts(table: pd.DataFrame, pairs: pd.DataFrame) -> list[Problem]:
    """List identical images with different labels."""
    paths, labels = table["path"].to_numpy(), table["label"].to_numpy()
    copies = pairs.loc[pairs["kind"] == "identical", ["first", "second"]].to_numpy()
    return [
        Problem("label conflict", paths[b], f"identical to {paths[a]}, which has another label")
        for a, b in copies
        if labels[a] != labels[b]
    ]


def _odd_sizes(sizes: list[Sized], number: Mapping[tuple[str, Size], int]) -> list[Problem]:
    """List images whose size differs from most of their source fold, except the final set's."""
    usual: dict[str, Size] = {}
    for (part, size), count in number.items():
        if count > number.get((part, usual.get(part, (0, 0))), 0):
            usual[part] = size
    return [
        Problem(
            "odd size",
            path,
            f"{size[0]} x {size[1]} pixels; usual size: {usual[part][0]} x {usual[part][1]}",
        )
        for part, path, size in sizes
        if size not in (usual[part], FINAL_SIZE)
    ]


def _links(table: pd.DataFrame, pairs: pd.DataFrame) -> tuple[list[Link], dict[str, int]]:
    """Collect the pairs between two subjects, and count those within a subject."""
    paths, subjects = table["path"].to_numpy(), table["subject"].to_numpy()
    parts = table["source_fold"].to_numpy()
    between: dict[tuple[str, str], list[Any]] = {}
    within: dict[str, int] = {}
    ordered = pairs.sort_values("score", ascending=False)
    for first, second, kind, score in ordered[["first", "second", "kind", "score"]].itertuples(
        index=False, name=None
    ):
        ends = sorted([first, second], key=lambda row: str(subjects[row]))
        one, other = (str(subjects[row]) for row in ends)
        if one == other:
            within[one] = within.get(one, 0) + 1
        else:
            between.setdefault((one, other), []).append((*ends, kind, score))
    links = [
        Link(
            pair,
            (str(parts[found[0][0]]), str(parts[found[0][1]])),
            [Pair(paths[a], paths[b], kind, float(score)) for a, b, kind, score in found],
        )
        for pair, found in between.items()
    ]
    return sorted(links, key=lambda link: link.subjects), dict(sorted(within.items()))
