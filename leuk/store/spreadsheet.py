"""Texts for a CSV file that somebody opens in a spreadsheet."""

_RUN = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text may begin with that a spreadsheet would take for a formula (OWASP, CSV injection)."""


def inert(text: str) -> str:
    """A text that no spreadsheet runs: an apostrophe goes before what could be a formula."""
    return f"'{text}" if text.startswith(_RUN) else text
