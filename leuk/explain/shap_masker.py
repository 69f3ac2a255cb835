"""Owen values of an image's segments by shap, with a masker that handles no pixels.

shap's partition explainer chooses the segments to show and computes their values. Its "masked
input" is just the presence of segments; the images are assembled in batches on the classifier's
device. Used by the methods of :mod:`leuk.explain.shap`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shap
import torch
from torch import Tensor

Answer = Callable[[Tensor], Tensor]
"""Function from presence ``bool (S, K)`` of segments to log-odds of leukemia, ``float32 (S,)``."""

ROUND = 64
"""Number of perturbed images that shap requests at once. Values depend on it, because shap refines
its tree after each request; they do not depend on the batch size of the classifier.
"""


@dataclass(frozen=True)
class Owen:
    """Owen values of an image's segments.

    Attributes:
        values: ``float64 (K,)``, 0 for segments that are not players; the sum is the log-odds with
            all players minus those with none.
        spread: range of all log-odds computed.
    """

    values: Tensor
    spread: float


def owen_values(answer: Answer, players: Tensor, evaluations: int, seed: int) -> Owen:
    """Owen values of the segments of a grid (Lundberg & Lee 2017, shap's ``PartitionExplainer``).

    The value of a segment is its mean contribution over all orders that keep the segments of each
    half, quarter, and so on, of the grid together (Owen 1977). If the evaluations run out, the
    segments of an undivided block share its value evenly.

    Args:
        answer: predicts log-odds from the presence of segments.
        players: ``bool (h, w)`` on the CPU, segments whose hiding changes the image. The others get
            no share of a block's value.
        evaluations: total number of perturbed images.
        seed: seed of the order among equally important blocks.
    """
    playing = players.flatten()
    values = torch.zeros(len(playing), dtype=torch.float64)
    if not playing.any():
        return Owen(values, 0.0)
    model = _PlayerModel(answer, playing)
    explainer = shap.PartitionExplainer(model, PresenceMasker(halvings(players)))
    with numpy_seeded(seed):
        found = explainer(
            np.ones((1, int(playing.sum())), dtype=bool),
            max_evals=evaluations,
            batch_size=ROUND,
            silent=True,
        )
    values[playing] = torch.from_numpy(found.values[0])
    return Owen(values, model.high - model.low)


class PresenceMasker(shap.maskers.Masker):  # type: ignore[misc] # shap has no types
    """Masker whose masked input is the mask itself.

    Args:
        clustering: hierarchy of the players, see :func:`halvings`.
    """

    immutable_outputs = True  # shap need not copy what it is given

    def __init__(self, clustering: npt.NDArray[np.float64]) -> None:
        self.clustering = clustering
        self.shape = (1, len(clustering) + 1)

    def __call__(self, mask: npt.NDArray[np.bool_], x: object) -> npt.NDArray[np.bool_]:
        """Return the presence ``bool (1, M)`` of the players."""
        return mask[None]


def halvings(players: Tensor) -> npt.NDArray[np.float64]:
    """Hierarchy of the players of a grid: blocks are halved across their longer side.

    Args:
        players: ``bool (h, w)``, at least one True. Players are numbered row by row.

    Returns:
        ``(M - 1, 4)`` for M players, a linkage matrix as in ``scipy.cluster.hierarchy``: the two
        nodes that are joined (M + i is the node of row i), their distance, and the number of
        players below. The distance is that number too.
    """
    number = (players.flatten().cumsum(0) - 1).view(players.shape)
    count = int(players.sum())
    rows: list[list[int]] = []

    def join(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
        """Return the node of a block and its number of players; empty if it has none."""
        if not players[top:bottom, left:right].any():
            return []
        height, width = bottom - top, right - left
        if height == width == 1:
            return [(int(number[top, left]), 1)]
        if height >= width:
            middle = top + height // 2
            found = join(top, middle, left, right) + join(middle, bottom, left, right)
        else:
            middle = left + width // 2
            found = join(top, bottom, left, middle) + join(top, bottom, middle, right)
        if len(found) == 1:
            return found
        (first, held), (second, held_too) = found
        held += held_too
        rows.append([first, second, held, held])
        return [(count + len(rows) - 1, held)]

    join(0, players.shape[0], 0, players.shape[1])
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which shap draws from; restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


class _PlayerModel:
    """Log-odds as a function of the players' presence; records the smallest and the largest."""

    def __init__(self, answer: Answer, playing: Tensor) -> None:
        self.answer, self.playing = answer, playing
        self.low, self.high = np.inf, -np.inf

    def __call__(self, presence: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        parts = torch.zeros(len(presence), len(self.playing), dtype=torch.bool)
        parts[:, self.playing] = torch.from_numpy(presence)
        odds: npt.NDArray[np.float32] = self.answer(parts).cpu().numpy()
        self.low, self.high = min(self.low, float(odds.min())), max(self.high, float(odds.max()))
        return odds
