"""What the user may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 20


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known key most like ``word``, or None when nothing is.

    A dotted key is compared whole first, then by its last part, so that ``rezolution`` still
    finds ``data.resolution``.
    """
    keys = sorted(set(known))
    if whole := get_close_matches(word, keys, n=1, cutoff=0.6):
        return whole[0]
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    if part := get_close_matches(word.rpartition(".")[2], last, n=1, cutoff=0.7):
        return last[part[0]]
    return None


def hint(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known key, or lists them all when none is near."""
    keys = sorted(set(known))
    if (match := nearest(word, keys)) is not None:
        return f"did you mean {match}?"
    if len(keys) > _LISTED:
        return "the command's --help lists all keys"
    return f"known: {', '.join(keys)}" if keys else "nothing can be set there"
