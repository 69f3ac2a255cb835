"""How often intervals of several kinds hold the truth: what leuk.evaluate.intervals was chosen by.

Run: ``python tests/benchmarks/intervals.py [SETS]``; it prints one line per kind and design.
``python tests/benchmarks/intervals.py [SETS] unequal [SHARE]`` prints the coverage of the intervals
in use on test sets with the image counts of C-NMC's patients, times SHARE (0.1), and counts false
positives of the paired comparison of two equal models there.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    UNEQUAL_NOISE,
    judged,
    true_auroc,
    true_recall,
    unequal,
)

from leuk.evaluate.hierarchy import Bootstrap, Fold
from leuk.evaluate.intervals import fold_mean
from leuk.evaluate.resampling import PATIENTS, resamples
from leuk.evaluate.sample import Sample
from leuk.evaluate.significance import paired_difference

DESIGNS = [(12, 30, 1.6), (12, 30, 3.0), (6, 20, 1.6), (4, 10, 1.6), (3, 20, 1.6), (3, 20, 2.6)]
"""Healthy subjects, leukemic subjects, and the gap between the classes."""

FIGURES = ("auroc", "sensitivity", "specificity")
CELLS, DRAWS = 25, 1000
ENDS = [0.025, 0.975]

Interval = tuple[float, float]


def plain(strata: list[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """Weights of a bootstrap that draws n of n."""
    weights = np.ones((DRAWS, count))
    for members in strata:
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(len(members), share, size=DRAWS)
    return weights


def intervals(sample: Sample, name: str, generator: np.random.Generator) -> dict[str, Interval]:
    """One interval of each kind."""
    figures = sample.at_half
    fold = Fold([figures], sample.strata, figures.count)
    found = Bootstrap([fold], DRAWS, int(generator.integers(2**31))).estimate(
        lambda run, weights: run.figure(name, weights)
    )
    every = figures.figure(name, plain(sample.strata, figures.count, generator))
    fewer = figures.figure(name, resamples(sample.strata, figures.count, DRAWS, generator))
    below = (np.mean(fewer < found.value) + np.mean(fewer <= found.value)) / 2
    bias = stats.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    corrected = stats.norm.cdf(2 * bias + stats.norm.ppf(ENDS))
    return {
        "percentile, n of n": tuple(np.quantile(every, ENDS)),
        "percentile, n - 1 of n": tuple(np.quantile(fewer, ENDS)),
        "bias-corrected": tuple(np.quantile(fewer, corrected)),
        "t": found.interval(0.95),
        "t on log-odds (used)": found.interval_within(0.95, 0, 1, min(map(len, sample.strata))),
    }


def main(sets: int) -> None:
    """Print how often each holds the truth, and how wide it is."""
    for hem, leukemic, gap in DESIGNS:
        generator = np.random.default_rng(0)
        truths = dict.fromkeys(FIGURES, true_recall(gap)) | {"auroc": true_auroc(gap)}
        held, width = defaultdict(list), defaultdict(list)
        for _ in range(sets):
            sample = judged(generator, hem, leukemic, CELLS, gap)
            for name in FIGURES:
                for kind, (low, high) in intervals(sample, name, generator).items():
                    held[name, kind].append(low <= truths[name] <= high)
                    width[name, kind].append(high - low)
        for (name, kind), hits in sorted(held.items()):
            print(
                f"{hem:2} healthy {leukemic} leukemic gap {gap} {name:11} {kind:24}"
                f" held {np.mean(hits):.3f} width {np.mean(width[name, kind]):.3f}"
            )


UNEQUAL = {
    "pooled": [(HEM_IMAGES, ALL_IMAGES)],
    "folds": list(TEST_FOLDS),
    "fold 0": [TEST_FOLDS[0]],
    "fold 1": [TEST_FOLDS[1]],
}
COMPARED = ("auroc", "auroc_patients")
COVERED = [
    f"{metric}{end}"
    for metric in ("auroc", "balanced_accuracy", "sensitivity", "specificity")
    for end in ("", PATIENTS)
]


def unequal_patients(sets: int, share: float) -> None:
    """Print coverage and false positives with the image counts of C-NMC's patients."""
    generator = np.random.default_rng(3)
    for design, folds in UNEQUAL.items():
        for gap in (1.6, 3.0):
            held, width = defaultdict(list), defaultdict(list)
            recall = true_recall(gap, UNEQUAL_NOISE)
            for _ in range(sets):
                runs = [
                    (unequal(generator, images, [gap], share, f"{fold}-")[0], {"default": 0.5})
                    for fold, images in enumerate(folds)
                ]
                found = fold_mean(runs, draws=300)
                for name in COVERED:
                    _, low, high = found[name]
                    truth = true_auroc(gap, UNEQUAL_NOISE) if "auroc" in name else recall
                    held[name].append(low <= truth <= high)
                    width[name].append(high - low)
            for name, hits in held.items():
                print(
                    f"{design:7} gap {gap} {name:26} held {np.mean(hits):.3f}"
                    f" width {np.mean(width[name]):.3f}",
                    flush=True,
                )
        for name in COMPARED:
            p = []
            for _ in range(sets):
                pairs = [
                    unequal(generator, images, (1.6, 1.6), share, f"{fold}-")
                    for fold, images in enumerate(folds)
                ]
                one = paired_difference(
                    *zip(*pairs, strict=True), name, draws=200, permutations=200
                )
                p.append((one.p_swap, one.p_t, one.p))
            rates = (np.array(p) <= 0.05).mean(axis=0)
            print(
                f"{design:7} {name:15} false positives swap, t, larger {rates.round(3)}", flush=True
            )


if __name__ == "__main__":
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    if "unequal" in sys.argv:
        unequal_patients(sets, float(sys.argv[3]) if len(sys.argv) > 3 else 0.1)
    else:
        main(sets)
