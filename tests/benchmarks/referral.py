"""Rate at which a referral band misses its aim, on validation sets with known true shares.

Run: ``python tests/benchmarks/referral.py [SETS]``. Validation sets have the image counts of
C-NMC's patients, all of them or those of a test fold. A row per design and aim shows how often a
side got a cut, and in what share of all sets the true share of correct decisions outside it misses
the aim, which should be at most 0.05 for each side.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import logit
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated import ALL_IMAGES, HEM_IMAGES, TEST_FOLDS, UNEQUAL_NOISE, unequal

from leuk.metrics.referral import Band, choose_band

DESIGNS = {
    "all": (HEM_IMAGES, ALL_IMAGES),
    "fold 1": TEST_FOLDS[1],
    "fold 2": TEST_FOLDS[2],
    "folds 1 and 2": tuple(
        one + other for one, other in zip(TEST_FOLDS[1], TEST_FOLDS[2], strict=True)
    ),
}
GAPS, AIMS = (1.6, 3.0, 4.5), (0.8, 0.9, 0.95)


def true_shares(band: Band, images: tuple[int, int], gap: float) -> dict[str, float]:
    """True share of correct decisions outside each side of a band that has a cut."""
    healthy, leukemic = images
    found = {}
    if band.high is not None:
        above = [norm.sf((logit(band.high) - end) / UNEQUAL_NOISE) for end in (gap / 2, -gap / 2)]
        right, wrong = leukemic * above[0], healthy * above[1]
        found["leukemic"] = float(right / (right + wrong))
    if band.low is not None:
        below = [norm.cdf((logit(band.low) - end) / UNEQUAL_NOISE) for end in (-gap / 2, gap / 2)]
        right, wrong = healthy * below[0], leukemic * below[1]
        found["healthy"] = float(right / (right + wrong))
    return found


def main(sets: int, share: float = 0.5) -> None:
    """Print how often a cut was chosen and how often it missed the aim."""
    for design, images in DESIGNS.items():
        for gap in GAPS:
            generator = np.random.default_rng(7)
            chosen, missed = defaultdict(int), defaultdict(int)
            for _ in range(sets):
                (sample,) = unequal(generator, images, [gap], share)
                calibrated = replace(sample, calibrated=sample.scores)
                for aim in AIMS:
                    band = choose_band(calibrated, 0.5, aim)
                    counts = (sum(images[0]), sum(images[1]))
                    for side, right in true_shares(band, counts, gap).items():
                        chosen[side, aim] += 1
                        missed[side, aim] += right < aim
            for key, count in sorted(chosen.items()):
                print(
                    f"{design:13} gap {gap} called {key[0]:8} aim {key[1]:.2f}"
                    f" chosen {count / sets:.3f} missed {missed[key] / sets:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
