"""HTML pages: one file each, from templates that escape all texts, without scripts or requests."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from leuk.report.table import Block, Text, spans


@cache
def _template() -> tuple[jinja2.Template, str]:
    """Template of a page, and its style sheet."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leuk.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = breakable
    environment.filters["spans"] = spans
    style = (resources.files("leuk.report") / "templates" / "page.css").read_text("utf-8")
    return environment.get_template("page.html"), style


def breakable(text: Markup) -> Markup:
    """Allow line breaks after the underscores of a name.

    Args:
        text: escaped text.
    """
    return Markup("_<wbr>").join(text.split("_"))


@dataclass(frozen=True)
class Chapter:
    """A chapter of a page, or the warnings of one kind.

    Attributes:
        name: anchor of a chapter; kind of warnings, for the style sheet.
        title: its heading; may be empty for warnings.
        blocks: its content.
    """

    name: str
    title: str
    blocks: Sequence[Block]


def page(
    title: str,
    eyebrow: Text,
    headline: str,
    *,
    question: str = "",
    tone: str = "",
    lead: Sequence[Block] = (),
    command: tuple[str, str] | None = None,
    tiles: Sequence[tuple[str, str]] = (),
    warned: str = "",
    warnings: Sequence[Chapter] = (),
    chapters: Sequence[Chapter] = (),
    contents: bool = False,
    footer: Text = "",
) -> str:
    """Return a page as HTML.

    Its content security policy allows only embedded pictures and its style sheet, by its hash, so
    that even an unescaped text would be inert.

    Args:
        title: title of the window.
        eyebrow: line above everything.
        headline: the result in a sentence.
        question: the question that the headline answers.
        tone: ``helps``, ``harms`` or another class of the headline.
        lead: blocks below the headline.
        command: command line to run, after the reason to run it.
        tiles: key numbers, each with its label.
        warned: heading of the warnings.
        warnings: warnings, the most serious first.
        chapters: chapters in reading order; empty ones are omitted.
        contents: True for a table of contents.
        footer: text at the end.
    """
    template, style = _template()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return template.render(
        # The style sheet is part of this package, so it needs no escaping.
        style=Markup(style), policy=policy, title=title, eyebrow=eyebrow, headline=headline,
        question=question, tone=tone, lead=lead, command=command, tiles=tiles, warned=warned,
        warnings=warnings, chapters=[chapter for chapter in chapters if chapter.blocks],
        contents=contents, footer=footer,
    )  # fmt: skip


def png_of(picture: Image.Image) -> bytes:
    """Return a picture as PNG; its mode must be one that PNG supports."""
    buffer = io.BytesIO()
    # Half the time of the default level for 5 % more bytes.
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def png_uri(data: bytes) -> str:
    """Return a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def picture_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels ``(H, W, 3)`` as a data URI of a PNG file."""
    return png_uri(png_of(Image.fromarray(pixels)))
