"""Coverage of several kinds of intervals, the basis for the choice in leuk.metrics.bootstrap.

Run: ``python tests/benchmarks/intervals.py [SETS]``; it prints a row per kind and design.
``python tests/benchmarks/intervals.py [SETS] unequal [SHARE]`` prints the coverage of the intervals
in use on test sets with the image counts of C-NMC's patients, times SHARE (0.1), and counts false
positives of the paired comparison of two equal models there.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    UNEQUAL_NOISE,
    simulate,
    true_auroc,
    true_recall,
    unequal,
)

from leuk.metrics.bootstrap import Bootstrap, Fold, Sample, fold_mean, resamples
from leuk.metrics.classification import PATIENTS
from leuk.metrics.comparison import paired_difference

DESIGNS = [(12, 30, 1.6), (12, 30, 3.0), (6, 20, 1.6), (4, 10, 1.6), (3, 20, 1.6), (3, 20, 2.6)]
"""Healthy subjects, leukemic subjects, and the gap between the classes."""

METRICS = ("auroc", "sensitivity", "specificity")
IMAGES, DRAWS = 25, 1000
ENDS = [0.025, 0.975]

Interval = tuple[float, float]


def plain(strata: list[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """Weights of a bootstrap that draws n of n members."""
    weights = np.ones((DRAWS, count))
    for members in strata:
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(len(members), share, size=DRAWS)
    return weights


def intervals(sample: Sample, name: str, generator: np.random.Generator) -> dict[str, Interval]:
    """Intervals of a metric, by kind."""
    metrics = sample.at_half
    fold = Fold([metrics], sample.strata, metrics.count)
    found = Bootstrap([fold], DRAWS, int(generator.integers(2**31))).estimate(
        lambda run, weights: run.metric(name, weights)
    )
    every = metrics.metric(name, plain(sample.strata, metrics.count, generator))
    fewer = metrics.metric(name, resamples(sample.strata, metrics.count, DRAWS, generator))
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
    """Print coverage and width of each kind."""
    for hem, leukemic, gap in DESIGNS:
        generator = np.random.default_rng(0)
        truths = dict.fromkeys(METRICS, true_recall(gap)) | {"auroc": true_auroc(gap)}
        covered, width = defaultdict(list), defaultdict(list)
        for _ in range(sets):
            sample = simulate(generator, hem, leukemic, IMAGES, gap)
            for name in METRICS:
                for kind, (low, high) in intervals(sample, name, generator).items():
                    covered[name, kind].append(low <= truths[name] <= high)
                    width[name, kind].append(high - low)
        for (name, kind), hits in sorted(covered.items()):
            print(
                f"{hem:2} healthy {leukemic} leukemic gap {gap} {name:11} {kind:24}"
                f" covered {np.mean(hits):.3f} width {np.mean(width[name, kind]):.3f}"
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
            covered, width = defaultdict(list), defaultdict(list)
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
                    covered[name].append(low <= truth <= high)
                    width[name].append(high - low)
            for name, hits in covered.items():
                print(
                    f"{design:7} gap {gap} {name:26} covered {np.mean(hits):.3f}"
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
                found = paired_difference(
                    *zip(*pairs, strict=True), name, draws=200, permutations=200
                )
                p.append((found.p_swap, found.p_t, found.p))
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
