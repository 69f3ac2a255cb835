"""Drawn images of cells, for metrics of images."""

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]


def cells(n: int, seed: int, radius: float = 9, side: int = 32) -> Images:
    """Speckled purple ellipses on black, all different, like stained nuclei."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = generator.uniform(0, np.pi, (n, 1, 1))
    wide, high = radius * generator.uniform(0.8, 1.2, (2, n, 1, 1))
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = (along / wide) ** 2 + (across / high) ** 2 < 1
    grain = generator.normal(1, 0.15, (n, side // 4, side // 4)).repeat(4, 1).repeat(4, 2)
    stain = generator.normal(1, 0.1, (n, 1, 1, 1)) * np.array([150, 60, 160])
    return ((inside * grain)[..., None] * stain).clip(0, 255).astype(np.uint8)
