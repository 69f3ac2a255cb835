"""Coverage of intervals, false positives of comparisons, and broken promises of referral bands.

Run: ``python tests/benchmarks/intervals.py [SETS] [--share 0.1] [--only coverage]``. Simulated sets
have the image counts of C-NMC's patients times the share. Nominal are a coverage of 0.95, false
positives of 0.05, and for each side of a band 0.05 of sets in which the true share of correct
decisions misses the aim.
"""

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import logit
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    UNEQUAL_NOISE,
    true_auroc,
    true_recall,
    unequal,
)

from leuk.metrics.bootstrap import fold_mean
from leuk.metrics.classification import PATIENTS
from leuk.metrics.comparison import paired_difference
from leuk.metrics.referral import Band, choose_band

DESIGNS = {
    "pooled": [(HEM_IMAGES, ALL_IMAGES)],
    "folds": list(TEST_FOLDS),
    "fold 0": [TEST_FOLDS[0]],
    "fold 1": [TEST_FOLDS[1]],
}
"""Test folds of each design: numbers of images per healthy and per leukemic patient."""

GAPS = (1.6, 3.0)
METRICS = [
    f"{metric}{end}"
    for metric in ("auroc", "balanced_accuracy", "sensitivity", "specificity")
    for end in ("", PATIENTS)
]
AIMS = (0.8, 0.9, 0.95)


def coverage(sets: int, share: float) -> None:
    """Print coverage and width of the intervals of a mean over folds."""
    generator = np.random.default_rng(3)
    for design, folds in DESIGNS.items():
        for gap in GAPS:
            covered, width = defaultdict(list), defaultdict(list)
            recall, auroc = true_recall(gap, UNEQUAL_NOISE), true_auroc(gap, UNEQUAL_NOISE)
            for _ in range(sets):
                runs = [
                    (unequal(generator, images, [gap], share, f"{fold}-")[0], {"default": 0.5})
                    for fold, images in enumerate(folds)
                ]
                found = fold_mean(runs, draws=300)
                for name in METRICS:
                    _, low, high = found[name]
                    covered[name].append(low <= (auroc if "auroc" in name else recall) <= high)
                    width[name].append(high - low)
            for name, hits in covered.items():
                text = f"covered {np.mean(hits):.3f} width {np.mean(width[name]):.3f}"
                print(f"{design:7} gap {gap} {name:26} {text}", flush=True)


def false_positives(sets: int, share: float) -> None:
    """Print how often the paired comparison finds a difference between two equal models."""
    generator = np.random.default_rng(3)
    for design, folds in DESIGNS.items():
        for name in ("auroc", f"auroc{PATIENTS}"):
            p = []
            for _ in range(sets):
                pairs = [
                    unequal(generator, images, (1.6, 1.6), share, f"{fold}-")
                    for fold, images in enumerate(folds)
                ]
                models = zip(*pairs, strict=True)
                found = paired_difference(*models, name, draws=200, permutations=200)
                p.append((found.p_swap, found.p_t, found.p))
            rates = (np.array(p) <= 0.05).mean(axis=0).round(3)
            print(f"{design:7} {name:15} false positives swap, t, larger {rates}", flush=True)


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


def referral(sets: int, share: float) -> None:
    """Print how often a side of a band got a cut, and how often it missed its aim."""
    for design, folds in DESIGNS.items():
        images = folds[-1]
        for gap in (*GAPS, 4.5):
            generator = np.random.default_rng(7)
            chosen, missed = defaultdict(int), defaultdict(int)
            for _ in range(sets):
                (sample,) = unequal(generator, images, [gap], share)
                for aim in AIMS:
                    band = choose_band(replace(sample, calibrated=sample.scores), 0.5, aim)
                    shares = true_shares(band, (sum(images[0]), sum(images[1])), gap)
                    for side, right in shares.items():
                        chosen[side, aim] += 1
                        missed[side, aim] += right < aim
            for (side, aim), count in sorted(chosen.items()):
                rates = f"chosen {count / sets:.3f} missed {missed[side, aim] / sets:.3f}"
                print(f"{design:7} gap {gap} {side:8} aim {aim:.2f} {rates}", flush=True)


def main() -> None:
    """Simulate and print all three, or one."""
    parts = {"coverage": coverage, "false_positives": false_positives, "referral": referral}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="?", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--only", choices=parts, default=None)
    args = parser.parse_args()
    for name, part in parts.items():
        if args.only in (None, name):
            part(args.sets, args.share)


if __name__ == "__main__":
    main()
