"""Warnings about synthetic images: mode collapse, black images, copies of training images."""

from leuk.evaluate.distances import Metrics

_SAME = 1.0
"""Smallest standard deviation of pixels between images, in gray levels; real images have 11."""

_DISTINCT = 0.99
_EMPTY = 0.05
"""Least share of distinct images and largest share of black images in a synthetic set."""

_COPIES = 0.05
"""Largest excess of the share of synthetic images that are close to a training image, over the
share of training images that are."""


def collapse(synthetic: Metrics, real: Metrics) -> list[str]:
    """Warn of mode collapse and black images in a synthetic set.

    Args:
        synthetic: row ``synthetic`` of :attr:`leuk.evaluate.image_quality.Quality.rows`.
        real: row ``real``, of as many training images.

    Returns:
        One warning each for black images, identical images, repeated images, and coverage or
        diversity below half of the value for real images; empty for a sound set.
    """
    found = []
    if (empty := synthetic["empty"] or 0) > _EMPTY:
        found.append(f"{empty:.0%} of the synthetic images are black")
    if (spread := synthetic["spread"] or 0) < _SAME:
        found.append(f"the synthetic images are all alike: pixels differ by {spread:.2f} of 255")
    elif (distinct := synthetic["distinct"] or 0) < _DISTINCT:
        found.append(
            f"only {distinct:.0%} of the synthetic images are distinct, the rest repeat them"
        )
    for name, meaning in _VARIETY.items():
        ours, theirs = synthetic[name] or 0, real[name] or 0
        if ours < theirs / 2:
            found.append(f"{meaning}: {name} {ours:.2f}, for real images {theirs:.2f}")
    return found


_VARIETY = {
    "coverage": "most kinds of real images have no similar synthetic image",
    "diversity": "synthetic images resemble each other far more than real images do",
}


def copying(memorized: dict[str, Metrics]) -> list[str]:
    """Warn of near-exact copies, and of each space in which too many images are close to training.

    Args:
        memorized: :attr:`leuk.evaluate.image_quality.Quality.memorization`.
    """
    found = near_exact(int(memorized["pixels"]["copies"] or 0))
    for space, metrics in memorized.items():
        ours, usual = metrics["closer_share"] or 0, metrics["train_closer_share"] or 0
        if ours > usual + _COPIES:
            found.append(
                f"{ours:.0%} of the synthetic images may be copies: in {space} they are closer to a"
                " training image than 99% of new real images are; of the training images"
                f" {usual:.0%} are that close to another training image"
            )
    return found


def near_exact(count: int) -> list[str]:
    """Warn of ``count`` near-exact copies; empty for none."""
    if not count:
        return []
    if count == 1:
        copies = "1 synthetic image is a copy of a training image"
    else:
        copies = f"{count} synthetic images are copies of training images"
    return [f"{copies}, exact to about one gray level"]
