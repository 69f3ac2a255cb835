"""What is plainly wrong with made cells, in words: collapse, emptiness, copies."""

from leuk.evaluate.distances import Metrics

_SAME = 1.0
"""Gray levels that pixels must differ by from image to image; those of real cells do by 11."""

_DISTINCT = 0.99
_EMPTY = 0.05
"""Shares of a made set: distinct images it must have, black ones it may have."""

_COPIES = 0.05
"""How much more often made cells may lie close to training cells than those to one another."""


def collapse(made: Metrics, real: Metrics) -> list[str]:
    """What is plainly wrong with a set of made cells, in words.

    Args:
        made: the row of the made cells in :attr:`leuk.evaluate.image_quality.Quality.rows`.
        real: the row of training cells, of the same size.

    Returns:
        A warning each for black images, images that are all the same, repeated images, and coverage
        or diversity below half of that of real cells; nothing for a sound set.
    """
    found = []
    if (empty := made["empty"] or 0) > _EMPTY:
        found.append(f"{empty:.0%} of the made images are black")
    if (spread := made["spread"] or 0) < _SAME:
        found.append(f"the made images are all the same: pixels differ by {spread:.2f} of 255")
    elif (distinct := made["distinct"] or 0) < _DISTINCT:
        found.append(f"only {distinct:.0%} of the made images are distinct, the rest repeat them")
    for name, meaning in _VARIETY.items():
        ours, theirs = made[name] or 0, real[name] or 0
        if ours < theirs / 2:
            found.append(f"{meaning}: {name} {ours:.2f}, that of real cells {theirs:.2f}")
    return found


_VARIETY = {
    "coverage": "most kinds of real cells have no made cell like them",
    "diversity": "made cells resemble each other far more than real ones do",
}


def copying(memorized: dict[str, Metrics]) -> list[str]:
    """Warnings of copies: any near-exact one, and each space in which too many are close.

    Args:
        memorized: :attr:`leuk.evaluate.image_quality.Quality.memorization`.
    """
    found = near_exact(int(memorized["pixels"]["copies"] or 0))
    for space, figures in memorized.items():
        ours, usual = figures["closer_share"] or 0, figures["train_closer_share"] or 0
        if ours > usual + _COPIES:
            found.append(
                f"{ours:.0%} of the made cells may be copies: in {space} they are closer to a"
                " training cell than 99% of new real cells are; of the training cells themselves"
                f" {usual:.0%} are that close to another"
            )
    return found


def near_exact(count: int) -> list[str]:
    """A warning where ``count`` images are near-exact copies; nothing where none is."""
    if not count:
        return []
    if count == 1:
        copies = "1 synthetic image is a copy of a training image"
    else:
        copies = f"{count} synthetic images are copies of training images"
    return [f"{copies}, exact to about one gray level"]
