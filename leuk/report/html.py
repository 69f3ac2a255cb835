"""HTML pages: a file each, from templates that escape all texts, without scripts or requests."""

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

from leuk.report.table import Block, spans


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
    # Long names may break after an underscore.
    environment.filters["breakable"] = lambda text: Markup("_<wbr>").join(text.split("_"))
    environment.filters["spans"] = spans
    style = (resources.files("leuk.report") / "templates" / "page.css").read_text("utf-8")
    return environment.get_template("page.html"), style


@dataclass(frozen=True)
class Chapter:
    """A chapter of a page, or the warnings of a kind.

    Attributes:
        name: anchor of a chapter; kind of warnings, for the style sheet.
        title: its heading; may be empty for warnings.
        blocks: its content.
        intro: sentence that says how to read it.
        folded: True to show it when its heading is opened.
        printed: True to print it although it is folded.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""
    folded: bool = False
    printed: bool = False


def page(title: str, headline: str, **content: Any) -> str:
    """Return a page as HTML.

    Its content security policy allows only embedded pictures and its style sheet, by its hash, so
    that even an unescaped text would be inert.

    Args:
        title: title of the window.
        headline: the result in a sentence.
        content: further parts of ``templates/page.html``, each of which may be missing: ``eyebrow``
            (line above everything), ``question`` (that the headline answers), ``tone`` (class of
            the headline, such as ``helps``), ``lead`` (blocks below it), ``command`` (reason to run
            a command line, and the command line), ``tiles`` (key numbers with labels), ``first``
            (blocks above the warnings), ``warned`` (heading of the warnings), ``warnings``
            (chapters, the most serious first), ``chapters`` (empty ones are omitted), ``footer``.
    """
    template, style = _template()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    chapters = [chapter for chapter in content.pop("chapters", ()) if chapter.blocks]
    empty = dict.fromkeys(
        ("eyebrow", "question", "tone", "lead", "command", "tiles", "first", "warned", "warnings",
         "footer"), ""
    )  # fmt: skip
    return template.render(
        # The style sheet is part of this package, so it needs no escaping.
        empty | content, style=Markup(style), policy=policy, title=title, headline=headline,
        chapters=chapters,
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
