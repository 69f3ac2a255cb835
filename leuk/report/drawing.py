"""Common parts of the figures: colors, small multiples, and atomic files."""

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

from leuk.report.html import png_of
from leuk.report.naming import AUGMENTATIONS
from leuk.report.load import Configuration
from leuk.runs.record import RunId
from leuk.store import whole_file

COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
"""Colors that color-blind readers can distinguish (Okabe & Ito 2008)."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""Line styles, so that no figure depends on color alone."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"

DPI = 120
PANEL = 2.8
"""Side in inches of a panel with its labels."""

_COLUMNS = 4
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.5, 0.08, 0.42, 0.36
"""Margins in inches of a panel."""

_ROOM, _LETTER, _BESIDE = 0.2, 0.066, 0.07
"""Inches left of the row names, per letter of them, and between them and the axes."""

_WORDS = 0.28
"""Inches between axes with rows and the label below their tick labels."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that is drawn when it is written, with caption and alternative text.

    Attributes:
        name: stem of its files.
        title: its heading.
        caption: explanation of the figure.
        draw: function that draws it, possibly in another process.
        alt: alternative text of each panel, or of the whole figure.
        panel: width and height in inches of a panel, by which a page cuts the figure for narrow
            screens; None to keep it whole.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    alt: tuple[str, ...]
    panel: tuple[float, float] | None = None

    def write(self, folder: Path) -> bytes:
        """Write ``<name>.pdf`` and ``<name>.png`` to a folder and return the PNG data."""
        return save_figure(self.draw(), folder, self.name)


def save_figure(figure: Figure, folder: Path, name: str) -> bytes:
    """Write ``<name>.pdf`` and ``<name>.png`` atomically.

    Args:
        figure: the figure.
        folder: folder to write to.
        name: stem of the files.

    Returns:
        The PNG data.
    """
    with whole_file(folder / f"{name}.pdf") as temporary:
        # Without the date, the same figure gives the same file.
        figure.savefig(temporary, dpi=DPI, metadata={"CreationDate": None})
    png = png_of(_picture(figure), DPI)
    with whole_file(folder / f"{name}.png") as temporary:
        temporary.write_bytes(png)
    return png


def _picture(figure: Figure) -> Image.Image:
    """Return a figure as RGB pixels; savefig would spend time on an alpha channel."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    # Hinting text to pixels would take 10 % of the drawing time.
    with rc_context({"text.hinting": "none"}):
        canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def panels(
    count: int, width: float = PANEL, height: float = PANEL, columns: int = _COLUMNS
) -> tuple[Figure, list[Axes]]:
    """Create a figure of panels, row by row.

    Args:
        count: number of panels, at least one.
        width: width of a panel in inches.
        height: height of a panel in inches.
        columns: maximum number of panels per row.
    """
    across = min(columns, count)
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down))
    axes = [figure.add_subplot(down, across, index + 1) for index in range(count)]
    # A layout engine would take most of the time of the whole report.
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
    """Create a figure of named rows, the first at the top, with axes side by side.

    The names are the first texts of the figure.

    Args:
        names: names of the rows.
        width: width in inches of all axes, without the names.
        row: height in inches of a row.
        margins: inches above and below the axes.
        columns: number of axes.
    """
    above, below = margins
    room = _ROOM + _LETTER * max(map(len, names))
    wide, high = room + width + _RIGHT, row * len(names) + above + below
    figure = Figure(figsize=(wide, high))
    axes = list(figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])
    # A layout engine would draw hundreds of names several times.
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
    # Tick labels would take several times as long to create, measure and draw.
    looks: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8, "parse_math": False}
    for index, name in enumerate(names):
        height = high - above - row * (index + 0.5)
        figure.text((room - _BESIDE) / wide, height / high, name, **looks)
    return figure, axes


def titled(axes: Axes, text: str) -> None:
    """Set the title of a panel, wrapped to its width."""
    words, lines = text.replace("-", "- ").split(" "), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 30:
            lines.append("")
        lines[-1] += word
    # With a fixed height, matplotlib need not measure the axes again for each file.
    axes.set_title("\n".join(lines), y=1, fontsize=8, parse_math=False)


def style_of(augmentation: str) -> dict[str, Any]:
    """Color and line style of an augmentation, the same in every figure."""
    known = augmentation in AUGMENTATIONS
    index = AUGMENTATIONS.index(augmentation) if known else len(COLORS) - 1
    return {"color": COLORS[index], "linestyle": STYLES[index], "linewidth": 1.4}


def by_model(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Return configurations that differ only in the augmentation, by their name without it."""
    found: dict[RunId, list[Configuration]] = {}
    for configuration in configurations:
        found.setdefault(configuration.run.plain, []).append(configuration)
    return {_without_augmentation(members[0]): members for members in found.values()}


def _without_augmentation(configuration: Configuration) -> str:
    name = configuration.title
    for text in (configuration.run.augmentation, *configuration.run.augmentation_settings):
        name = name.replace(f"-{text}", "", 1)
    return name


def figure_of(axes: Sequence[Axes]) -> Figure:
    """Return the figure of these axes."""
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    return figure
