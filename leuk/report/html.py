"""HTML pages: one file each, from templates that escape all texts, without scripts or requests."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from leuk.report.table import Block, Text, spans

STYLE = "page.css"
"""The style sheet, in the folder of the templates."""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leuk.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: Markup) -> Markup:
    """Allow line breaks after the underscores of a name.

    Args:
        text: escaped text.
    """
    return Markup("_<wbr>").join(text.split("_"))


@cache
def _style() -> str:
    return (resources.files("leuk.report") / "templates" / STYLE).read_text("utf-8")


def render(template: str, **values: Any) -> str:
    """Return a page from a template that extends ``base.html``.

    Its content security policy allows only embedded pictures and this style sheet, by its hash, so
    that even an unescaped text would be inert.

    Args:
        template: file name of the template.
        values: variables of the template; texts are escaped.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    page = _environment().get_template(template)
    # The style sheet is part of this package, so it needs no escaping.
    return page.render(style=Markup(style), policy=policy, **values)


@dataclass(frozen=True)
class Chapter:
    """A chapter of a page.

    Attributes:
        name: its anchor.
        title: its heading.
        blocks: its content.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Warnings:
    """Warnings of one kind at the top of a page.

    Attributes:
        kind: name of the kind, for the style sheet.
        title: heading of the kind; may be empty.
        blocks: the warnings.
    """

    kind: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Command:
    """Command line on a page, with the reason to run it."""

    why: str
    line: str


def page(
    title: str,
    eyebrow: Text,
    headline: str,
    *,
    question: str = "",
    tone: str = "",
    lead: Sequence[Block] = (),
    command: Command | None = None,
    tiles: Sequence[tuple[str, str]] = (),
    warned: str = "",
    warnings: Sequence[Warnings] = (),
    chapters: Sequence[Chapter] = (),
    contents: bool = False,
    footer: Text = "",
) -> str:
    """Return a page as HTML.

    Args:
        title: title of the window.
        eyebrow: line above everything.
        headline: the result in a sentence.
        question: the question that the headline answers.
        tone: ``helps``, ``harms`` or another class of the headline.
        lead: blocks below the headline.
        command: command line to run.
        tiles: key numbers, each with its label.
        warned: heading of the warnings.
        warnings: warnings, the most serious first.
        chapters: chapters in reading order; empty ones are omitted.
        contents: True for a table of contents.
        footer: text at the end.
    """
    shown = [chapter for chapter in chapters if chapter.blocks]
    return render(
        "page.html", title=title, eyebrow=spans(eyebrow), headline=headline, question=question,
        tone=tone, lead=lead, command=command, tiles=tiles, warned=warned, warnings=warnings,
        chapters=shown, contents=contents, footer=spans(footer) if footer else (),
    )  # fmt: skip


def png_of(picture: Image.Image, dpi: int | None = None) -> bytes:
    """Return a picture as PNG.

    Args:
        picture: picture in a mode that PNG supports.
        dpi: pixels per inch to record in the file; None to record nothing.
    """
    buffer = io.BytesIO()
    options = {} if dpi is None else {"dpi": (dpi, dpi)}
    # Half the time of the default level for 5 % more bytes.
    picture.save(buffer, "PNG", compress_level=3, **options)
    return buffer.getvalue()


def png_uri(data: bytes) -> str:
    """Return a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def picture_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels ``(H, W, 3)`` as a data URI of a PNG file."""
    return png_uri(png_of(Image.fromarray(pixels)))
