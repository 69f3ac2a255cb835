"""What all figures of a report share: colors, small multiples, and files that appear whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from leuk.grid.run_id import RunId
from leuk.report.html import png_of
from leuk.report.naming import AUGMENTATIONS
from leuk.report.results import Configuration
from leuk.store.atomic import whole_file

COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
"""Told apart by color-blind readers too (Okabe & Ito 2008)."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""Of lines, so that no figure depends on color alone."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"

DPI = 120
PANEL = 2.8
"""Inches of a side of small axes with what belongs to them."""

_COLUMNS = 4
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.5, 0.08, 0.42, 0.36
"""Inches around each of several small axes."""

_ROOM, _LETTER, _BESIDE = 0.2, 0.066, 0.07
"""Inches beside the names of rows, of a letter of theirs, and from there to the axes."""

_WORDS = 0.28
"""Inches from axes with rows to the words below them, which their numbers are above."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure, and what it says to somebody who does not see it.

    Attributes:
        name: of its files, without suffix.
        title: its heading.
        caption: how to read it.
        draw: makes it; it is drawn where it is written, which may be another process.
        alt: a sentence for each of its panels, in order; one alone where it is not cut into them.
        panel: inches of a panel, width and height, by which a page may cut it into panels that fit
            a narrow screen; None where it is one picture.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    alt: tuple[str, ...]
    panel: tuple[float, float] | None = None

    def write(self, folder: Path) -> bytes:
        """Write ``<name>.pdf`` and ``<name>.png``, and return what is in the second."""
        return save_figure(self.draw(), folder, self.name)


def save_figure(figure: Figure, folder: Path, name: str) -> bytes:
    """Write ``<name>.pdf`` and ``<name>.png``: the old file or the new one, never a part.

    Returns:
        What is in the second.
    """
    with whole_file(folder / f"{name}.pdf") as temporary:
        # Without the time: the same figure is the same file.
        figure.savefig(temporary, dpi=DPI, metadata={"CreationDate": None})
    png = png_of(_picture(figure), DPI)
    with whole_file(folder / f"{name}.png") as temporary:
        temporary.write_bytes(png)
    return png


def _picture(figure: Figure) -> Image.Image:
    """A figure in pixels; not by savefig, as no place is transparent and a channel takes time."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    # Letters keep their shape, as in print; to fit them to pixels takes a tenth of the drawing.
    with rc_context({"text.hinting": "none"}):
        canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def panels(
    count: int, width: float = PANEL, height: float = PANEL, columns: int = _COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` small axes, as many a row as fit.

    Args:
        count: of axes, at least one.
        width: inches of each.
        height: inches of each.
        columns: at most this many a row.
    """
    across = min(columns, count)
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down))
    axes = [figure.add_subplot(down, across, place + 1) for place in range(count)]
    # Margins in inches: a layout engine would take most of the time of the whole report.
    figure.subplots_adjust(
        left=_LEFT / (width * across),
        right=1 - _RIGHT / (width * across),
        bottom=_BELOW / (height * down),
        top=1 - _ABOVE / (height * down),
        wspace=(_LEFT + _RIGHT) / (width - _LEFT - _RIGHT),
        hspace=(_BELOW + _ABOVE) / (height - _BELOW - _ABOVE),
    )
    return figure, axes


def labeled_rows(
    names: Sequence[str], width: float, row: float, margins: tuple[float, float], columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure of named rows, the first at the top, with axes side by side.

    The names are the first texts of the figure.

    Args:
        names: of the rows.
        width: inches of the axes together; room for the names comes to it.
        row: inches of each row.
        margins: inches above and below the axes.
        columns: how many axes.
    """
    above, below = margins
    room = _ROOM + _LETTER * max(map(len, names))
    wide, high = room + width + _RIGHT, row * len(names) + above + below
    figure = Figure(figsize=(wide, high))
    axes = list(figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])
    # In inches: a layout engine would draw hundreds of names several times over.
    figure.subplots_adjust(
        left=room / wide,
        right=1 - _RIGHT / wide,
        bottom=below / high,
        top=1 - above / high,
        wspace=0.06,
    )
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    axes[0].set_yticks([])
    for one in axes:
        one.xaxis.set_label_coords(0.5, -_WORDS / (row * len(names)))
    # No ticks of the axes: those take several times as long to make, measure and draw.
    looks: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8, "parse_math": False}
    for place, name in enumerate(names):
        height = high - above - row * (place + 0.5)
        figure.text((room - _BESIDE) / wide, height / high, name, **looks)
    return figure, axes


def titled(axes: Axes, text: str) -> None:
    """Put a heading over small axes, broken where it would be too wide."""
    words, lines = text.replace("-", "- ").split(" "), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 30:
            lines.append("")
        lines[-1] += word
    # Told how high, or what stands there is measured again in each file.
    axes.set_title("\n".join(lines), y=1, fontsize=8, parse_math=False)


def style_of(augmentation: str) -> dict[str, Any]:
    """Color and dashes of an augmentation, the same in every figure."""
    known = augmentation in AUGMENTATIONS
    place = AUGMENTATIONS.index(augmentation) if known else len(COLORS) - 1
    return {"color": COLORS[place], "linestyle": STYLES[place], "linewidth": 1.4}


def by_model(groups: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Groups that differ in the augmentation alone, under a name without it."""
    found: dict[RunId, list[Configuration]] = {}
    for group in groups:
        found.setdefault(group.run.plain, []).append(group)
    return {_without_augmentation(members[0]): members for members in found.values()}


def _without_augmentation(group: Configuration) -> str:
    name = group.title
    for text in (group.run.augmentation, *group.run.augmentation_settings):
        name = name.replace(f"-{text}", "", 1)
    return name


def figure_of(axes: Sequence[Axes]) -> Figure:
    """The figure that small axes are part of."""
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    return figure
