"""Owen values of an image's parts by shap, with a masker of our own that touches no pixel.

shap's partition explainer decides which parts to show and what follows from the answers. What it
takes for the masked input is only which parts are there: the images are put together where the
classifier is, many at a time. Sits between the methods of :mod:`leuk.explain.shap` and the library.
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
"""Log-odds of leukemia, ``float32 (S,)``, where parts are present as ``bool (S, K)`` says."""

ROUND = 64
"""Answers shap waits for at once. Within a budget the values depend on it, for the tree grows where
an answer says that it matters; on how many of them the classifier is asked in a pass they do not.
"""


@dataclass(frozen=True)
class Owen:
    """Values of one image's parts.

    Attributes:
        values: ``float64 (K,)``, 0 for parts that are no players; they sum to the log-odds with all
            players less those with none.
        spread: the largest of all log-odds asked for, less the smallest.
    """

    values: Tensor
    spread: float


def owen_values(answer: Answer, players: Tensor, evaluations: int, seed: int) -> Owen:
    """Owen values of the parts of a grid (Lundberg & Lee 2017, shap's ``PartitionExplainer``).

    A part's value is its mean contribution over all orders in which the parts of a half, of a
    quarter and so on come one after the other (Owen 1977). Where the evaluations run out, the parts
    of a block that was not cut further share its value evenly.

    Args:
        answer: what the classifier says.
        players: ``bool (h, w)`` on the CPU: parts that make a difference when hidden. The others
            take no share of a block's value.
        evaluations: how often to ask, in all.
        seed: of the order among blocks that matter equally.
    """
    there = players.flatten()
    values = torch.zeros(len(there), dtype=torch.float64)
    if not there.any():
        return Owen(values, 0.0)
    asked = _Asked(answer, there)
    explainer = shap.PartitionExplainer(asked, PresenceMasker(halvings(players)))
    with numpy_seeded(seed):
        found = explainer(
            np.ones((1, int(there.sum())), dtype=bool),
            max_evals=evaluations,
            batch_size=ROUND,
            silent=True,
        )
    values[there] = torch.from_numpy(found.values[0])
    return Owen(values, asked.high - asked.low)


class PresenceMasker(shap.maskers.Masker):  # type: ignore[misc] # shap has no types
    """A masker whose masked input is the mask.

    Args:
        clustering: which players belong together, see :func:`halvings`.
    """

    immutable_outputs = True  # shap need not copy what it is given

    def __init__(self, clustering: npt.NDArray[np.float64]) -> None:
        self.clustering = clustering
        self.shape = (1, len(clustering) + 1)

    def __call__(self, mask: npt.NDArray[np.bool_], x: object) -> npt.NDArray[np.bool_]:
        """Presence ``bool (1, M)`` of the players."""
        return mask[None]


def halvings(players: Tensor) -> npt.NDArray[np.float64]:
    """A hierarchy of the players of a grid: blocks cut in two across their longer side.

    Args:
        players: ``bool (h, w)``, at least one of them true. They are numbered row by row.

    Returns:
        ``(M - 1, 4)`` for M players, as ``scipy.cluster.hierarchy`` writes it: the two parts that
        are joined (M + i is what row i joined), their distance and how many players they hold. The
        distance is the number of players.
    """
    number = (players.flatten().cumsum(0) - 1).view(players.shape)
    count = int(players.sum())
    rows: list[list[int]] = []

    def join(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
        """The node of a block and how many players it holds; nothing where it holds none."""
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
    """The global generator of numpy, which shap draws from, seeded; afterwards as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


class _Asked:
    """An answer for players alone, which keeps the smallest and the largest it gave."""

    def __init__(self, answer: Answer, there: Tensor) -> None:
        self.answer, self.there = answer, there
        self.low, self.high = np.inf, -np.inf

    def __call__(self, presence: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        parts = torch.zeros(len(presence), len(self.there), dtype=torch.bool)
        parts[:, self.there] = torch.from_numpy(presence)
        said: npt.NDArray[np.float32] = self.answer(parts).cpu().numpy()
        self.low, self.high = min(self.low, float(said.min())), max(self.high, float(said.max()))
        return said
