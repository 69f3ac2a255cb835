"""HTML pages: one file each, from templates that escape all texts, without scripts or requests."""

import base64
import hashlib
import io
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

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
