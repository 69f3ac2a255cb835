"""Data set of row numbers, and the sampler that draws them for training."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler


class Rows(Dataset[Tensor]):
    """Data set of row numbers."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Tensor:
        return self.rows[position]


class Draws(DistributedSampler[int]):
    """Sampler with a fixed number of draws per epoch from concatenated random permutations.

    Permutation c has seed + c, and epoch e takes draws e * draws to (e + 1) * draws - 1 of the
    concatenation. Each image is therefore drawn once before any is drawn again, also across epochs;
    the expected class balance is that of ``dataset``; and the draws depend only on seed and epoch.
    With as many draws as images, an epoch is the permutation of :class:`DistributedSampler`.

    Args:
        dataset: row numbers to draw from.
        draws: draws per epoch, over all processes.
        processes: number of processes; the first draws are repeated if ``draws`` is not a multiple.
        rank: rank of this process.
        seed: seed of the first permutation.
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
