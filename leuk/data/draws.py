"""Row numbers as a data set, and the order in which training draws them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler


class Rows(Dataset[Tensor]):
    """Row numbers as a data set."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Tensor:
        return self.rows[position]


class Draws(DistributedSampler[int]):
    """A fixed number of draws per epoch from seeded permutations, one after the other.

    Permutation c is of seed + c, and epoch e takes the positions from e * draws on of all
    permutations in a row. So each image is drawn once before any is drawn again, across epochs, the
    expected class balance of an epoch is that of ``dataset``, and the draws depend on seed and
    epoch alone. With as many draws as images an epoch is one permutation, as
    :class:`DistributedSampler` shuffles.

    Args:
        dataset: what is drawn from.
        draws: per epoch, by all processes together.
        processes: that share them; the first draws are repeated where they do not divide evenly.
        rank: of this process.
        seed: of the first permutation.
    """

    def __init__(
        self, dataset: Rows, draws: int, processes: int = 1, rank: int = 0, seed: int = 0
    ) -> None:
        super().__init__(dataset, processes, rank, seed=seed)
        self.draws = draws
        self.num_samples = -(-draws // processes)
        self.total_size = self.num_samples * processes

    def __iter__(self) -> Iterator[int]:
        images, first = len(self.dataset), self.epoch * self.draws  # type: ignore[arg-type]
        cycles = range(first // images, -(-(first + self.draws) // images))
        permutations = [
            torch.randperm(images, generator=torch.Generator().manual_seed(self.seed + cycle))
            for cycle in cycles
        ]
        drawn = torch.cat(permutations)[first - cycles[0] * images :][: self.draws]
        padded = torch.cat([drawn, drawn[: self.total_size - self.draws]])
        return iter(padded[self.rank :: self.num_replicas].tolist())
