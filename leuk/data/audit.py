"""What lies in a folder of cells, what is wrong with it, and who is linked to whom."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.data.background import REMEDY, has_background
from leuk.data.decode import FINAL_SIZE, Frame
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import FINAL, PRELIM, Index, Problem, read_folder
from leuk.data.links import find_pairs, group_subjects
from leuk.data.pixels import CUT, PixelStore
from leuk.data.scale import mixed_sizes
from leuk.data.unread import unread_message
from leuk.errors import DataError

Size = tuple[int, int]
Sized = tuple[str, str, Size]
"""Part, path, and width and height."""

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
"""Images and subjects of each part and class (Gupta & Gupta 2019, TCIA, and the file list)."""


@dataclass(frozen=True)
class Count:
    """Images and subjects of a part and class, as found and as published (None: never)."""

    part: str
    label: str
    images: int
    published_images: int | None
    subjects: int
    published_subjects: int | None


@dataclass(frozen=True)
class Pair:
    """Two images of one cell; ``kind`` is ``identical`` or ``near``, ``score`` its correlation."""

    first: str
    second: str
    kind: str
    score: float


@dataclass(frozen=True)
class Link:
    """Two subjects that share cells, and the pairs that show it, the surest first."""

    subjects: tuple[str, str]
    parts: tuple[str, str]
    pairs: list[Pair]


@dataclass(frozen=True)
class Cut:
    """Images of a class that the frame cuts, and that may have been cut before.

    Attributes:
        label: folder name of the class, or ``unlabeled``.
        images: of the class.
        cut: images in which more than 0.5 % of the cell's area lies outside the frame.
        at_border: images whose cell touches the border of the image itself.
    """

    label: str
    images: int
    cut: int
    at_border: int


@dataclass(frozen=True)
class Audit:
    """Everything found.

    Attributes:
        root: the folder.
        counts: per part and class.
        sizes: ``part: width x height`` to the number of images.
        problems: files and rows to mend: corrupt, odd-sized, contradicting, not read, or with a
            background that is not black.
        strays: files that are no part of C-NMC.
        links: between subjects.
        groups: linked subjects, joined by ``+``.
        within: subject to the pairs of images of one cell among its own.
        framing: of the audit.
        cuts: cells that the framing or the image cuts, of each class.
        notes: sentences on what needs no mending, such as another split that fits the data.
        filled: images that are not square, which are filled up with black.
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
        """Plain values, for JSON."""
        return asdict(self)


def audit(root: Path, frame: Frame, cache: Path, mixed: bool = False) -> Audit:
    """Look at every file under ``root``.

    Args:
        root: a folder at or above the images.
        frame: of the pixel store, so that training with the same frame finds it.
        cache: folder of artifacts.
        mixed: true where the scale of images of several sizes is known.

    Raises:
        DataError: no such folder, or nothing in it that can be read.
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
    for cells in _stores_of(index):
        store = PixelStore.open(cells, root, frame, cache, "skip")
        problems += [Problem("corrupt", *error.split(": ", 1)) for error in store.errors]
        kept = cells.iloc[store.kept].reset_index(drop=True)
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
            found = group_subjects(kept["subject"], pairs).unique()
            groups = sorted(group for group in found if "+" in group)
            number_of = Counter(map(tuple, store.sizes.tolist()))
            if not mixed and (text := mixed_sizes(root, number_of, frame.framing)):
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


def count_cuts(cells: pd.DataFrame, store: PixelStore) -> list[Cut]:
    """Count the cells that the frame or the image cuts, of each class.

    Args:
        cells: the table of the images of the store, with ``label``.
        store: the decoded images.
    """
    labels = cells["label"].to_numpy()
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


def framing_warning(framing: str, cuts: Sequence[Cut]) -> str:
    """One sentence on the cells that a framing cuts; empty if it cuts none."""
    if not any(one.cut for one in cuts):
        return ""
    counted = ", ".join(
        f"{one.cut} of {one.images} {one.label} images ({one.cut / one.images:.1%})" for one in cuts
    )
    return (
        f"data.framing={framing}: more than {CUT:.1%} of the cell lies outside the frame in "
        f"{counted}, a straight edge that a classifier can learn; choose data.framing=centered"
    )


def _stores_of(index: Index) -> list[pd.DataFrame]:
    """The labeled cells, which training decodes too, and the others."""
    labeled = index.table["label"] != UNLABELED
    tables = [index.table[labeled], index.table[~labeled]]
    return [table.reset_index(drop=True) for table in tables if len(table)]


def _counts(cells: pd.DataFrame) -> list[Count]:
    keys = list(zip(cells["source_fold"].tolist(), cells["label"].tolist(), strict=True))
    images = Counter(keys)
    subjects = Counter(key for key, _ in {*zip(keys, cells["subject"].tolist(), strict=True)})
    counts = []
    for key in sorted({*images, *PUBLISHED}, key=lambda key: (key[0], -key[1])):
        part, label = key
        known = label != UNLABELED
        published = PUBLISHED.get(key, (None, None))
        name = Label(label).folder if known else "unlabeled"
        who = subjects[key] if known else 0
        counts.append(Count(part, name, images[key], published[0], who, published[1]))
    return counts


def _conflicts(cells: pd.DataFrame, pairs: pd.DataFrame) -> list[Problem]:
    """Identical images with different labels."""
    paths, labels = cells["path"].to_numpy(), cells["label"].to_numpy()
    copies = pairs.loc[pairs["kind"] == "identical", ["first", "second"]].to_numpy()
    return [
        Problem("label conflict", paths[b], f"identical to {paths[a]}, which has another label")
        for a, b in copies
        if labels[a] != labels[b]
    ]


def _odd_sizes(sizes: list[Sized], number: Mapping[tuple[str, Size], int]) -> list[Problem]:
    """Images of another size than most of their part; the final set's are larger."""
    usual: dict[str, Size] = {}
    for (part, size), count in number.items():
        if count > number.get((part, usual.get(part, (0, 0))), 0):
            usual[part] = size
    return [
        Problem(
            "odd size",
            path,
            f"{size[0]} x {size[1]} pixels; most here have {usual[part][0]} x {usual[part][1]}",
        )
        for part, path, size in sizes
        if size not in (usual[part], FINAL_SIZE)
    ]


def _links(cells: pd.DataFrame, pairs: pd.DataFrame) -> tuple[list[Link], dict[str, int]]:
    """Pairs between two subjects, by the two; and the number of pairs within each subject."""
    paths, subjects = cells["path"].to_numpy(), cells["subject"].to_numpy()
    parts = cells["source_fold"].to_numpy()
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
            who,
            (str(parts[found[0][0]]), str(parts[found[0][1]])),
            [Pair(paths[a], paths[b], kind, float(score)) for a, b, kind, score in found],
        )
        for who, found in between.items()
    ]
    return sorted(links, key=lambda link: link.subjects), dict(sorted(within.items()))
