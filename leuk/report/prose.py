"""Parser for the Markdown of sections, so that a page can show it.

It supports what sections use: paragraphs, lists, headings, strong text, code and links to files of
the sweep. It creates no HTML; the template does and escapes every text.
"""

import re
from dataclasses import dataclass
from typing import Literal

_INLINE = re.compile(
    r"\*\*(?P<strong>.+?)\*\*|`(?P<code>[^`]+)`|\[(?P<link>[^\]]+)\]\((?P<to>[^)\s]+)\)"
)
_HEADING = "## "
_ITEM = "- "
_BESIDE = re.compile(r"\.\./[^:\\]*")
"""Link targets that are followed: files of the same sweep."""


@dataclass(frozen=True)
class Span:
    """Text in one style.

    Attributes:
        text: the text.
        style: ``code``, ``strong``, ``link`` or empty.
        to: target of a link.
    """

    text: str
    style: Literal["", "code", "strong", "link"] = ""
    to: str = ""


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: Literal["heading"] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    spans: Spans
    kind: Literal["paragraph"] = "paragraph"


@dataclass(frozen=True)
class Items:
    """A list."""

    entries: tuple[Spans, ...]
    kind: Literal["items"] = "items"


def spans(text: str) -> Spans:
    """Parse a line of Markdown."""
    found: list[Span] = []
    end = 0
    for match in _INLINE.finditer(text):
        if match.start() > end:
            found.append(Span(text[end : match.start()]))
        found.append(_styled(match))
        end = match.end()
    if end < len(text):
        found.append(Span(text[end:]))
    return tuple(found)


def _styled(match: re.Match[str]) -> Span:
    if match["strong"]:
        return Span(match["strong"], "strong")
    if match["code"]:
        return Span(match["code"], "code")
    beside = _BESIDE.fullmatch(match["to"])
    return Span(match["link"], "link", match["to"]) if beside else Span(match["link"])


def blocks(markdown: str) -> list[Heading | Paragraph | Items]:
    """Parse a Markdown text of paragraphs, lists and headings."""
    found: list[Heading | Paragraph | Items] = []
    for chunk in re.split(r"\n\s*\n", markdown.strip()):
        words: list[str] = []
        items: list[str] = []
        for line in chunk.splitlines():
            if line.startswith(_HEADING):
                found.append(Heading(line.removeprefix(_HEADING)))
            elif line.startswith(_ITEM):
                items.append(line.removeprefix(_ITEM))
            elif items:
                items[-1] += f" {line.strip()}"
            else:
                words.append(line.strip())
        if words:
            found.append(Paragraph(spans(" ".join(words))))
        if items:
            found.append(Items(tuple(map(spans, items))))
    return found
