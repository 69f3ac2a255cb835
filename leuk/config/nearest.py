"""Suggestions for misspelled names."""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 20


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known key most similar to ``word``, or None.

    Dotted keys are compared as a whole first, then by their last component, so that ``rezolution``
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
    """Suggest the nearest known key, or list the known keys if none is similar."""
    keys = sorted(set(known))
    if (match := nearest(word, keys)) is not None:
        return f"did you mean {match}?"
    if len(keys) > _LISTED:
        return "the command's --help lists all keys"
    return f"known: {', '.join(keys)}" if keys else "no key can be set here"
