from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sweeps import RUN, predictions, varied, write_run, write_sweep

from leuk.metrics.classification import all_metrics
from leuk.report.comparisons import compare, comparisons_section, planned
from leuk.report.load import Configuration, read_results
from leuk.runs.record import RunId


def planned_pairs(*run_ids: RunId) -> set[tuple[str, str]]:
    """Family, and titles of both configurations, of all comparisons of complete configurations."""
    run = SimpleNamespace(test=SimpleNamespace(baselines={}))
    configurations = [Configuration(one, (), (run,)) for one in run_ids]  # type: ignore[arg-type]
    return {
        (family, f"{one.title} minus {two.title}") for family, one, two in planned(configurations)
    }


VIT, HYBRID = (replace(RUN, model=model) for model in ("vit", "hybrid"))
DCGAN = varied(RUN, augmentation="dcgan", settings={"gan.latent": 9, "gan_fit.epochs": 3, "lr": 1})


@pytest.mark.parametrize(
    ("run_ids", "expected"),
    [
        (
            [RUN, varied(RUN, augmentation="dcgan"), VIT],
            [
                "augmentation: cnn-dcgan-folds minus cnn-none-folds",
                "model: vit-none-folds minus cnn-none-folds",
            ],
        ),
        (  # settings of a GAN do not prevent a comparison
            [DCGAN, replace(DCGAN, model="hybrid"), RUN, replace(RUN, settings={"lr": 1})],
            [
                f"augmentation: {DCGAN.title} minus cnn-none-folds-lr_1",
                f"gan_hybrid: {replace(DCGAN, model='hybrid').title} minus cnn-none-folds-lr_1",
                f"model: {replace(DCGAN, model='hybrid').title} minus {DCGAN.title}",
            ],
        ),
        (  # splits and settings are not mixed
            [
                RUN,
                replace(VIT, split="random", leaky=True),
                replace(VIT, settings={"data.resolution": 96}),
            ],
            [],
        ),
        (
            [
                HYBRID,
                replace(HYBRID, settings={"model.fusion": "gated", "lr": 1}),
                replace(HYBRID, settings={"model.fusion": "attention"}),
                replace(HYBRID, settings={"lr": 1}),
                replace(RUN, model="ensemble"),
            ],
            [
                "fusion: hybrid-none-folds-fusion_attention minus hybrid-none-folds",
                "fusion: hybrid-none-folds-fusion_attention minus ensemble-none-folds",
                "fusion: hybrid-none-folds-fusion_gated-lr_1 minus hybrid-none-folds-lr_1",
                "ensemble: ensemble-none-folds minus hybrid-none-folds",
            ],
        ),
        (  # a named default is the one compared with
            [
                replace(HYBRID, settings={"model.fusion": "add"}),
                replace(HYBRID, settings={"model.fusion": "gated"}),
                HYBRID,
            ],
            ["fusion: hybrid-none-folds-fusion_gated minus hybrid-none-folds-fusion_add"],
        ),
        (
            [VIT, replace(VIT, settings={"model.head": "prototype"})],
            ["head: vit-none-folds-head_prototype minus vit-none-folds"],
        ),
        (
            [VIT, replace(VIT, settings={"model.attention_loss": 1e-5})],
            ["attention_loss: vit-none-folds-attention_loss_1e-05 minus vit-none-folds"],
        ),
        (
            [varied(HYBRID, augmentation="wgan"), RUN, VIT],
            [
                "gan_hybrid: hybrid-wgan-folds minus cnn-none-folds",
                "gan_hybrid: hybrid-wgan-folds minus vit-none-folds",
                "model: vit-none-folds minus cnn-none-folds",
            ],
        ),
    ],
)
def test_planned_comparisons(run_ids: list[RunId], expected: list[str]) -> None:
    assert {f"{family}: {pair}" for family, pair in planned_pairs(*run_ids)} == set(expected)


def test_a_family_holds_the_tests_of_one_question() -> None:
    run_ids = [
        varied(RUN, model=model, augmentation=augmentation)
        for model in ("cnn", "vit", "hybrid", "ensemble")
        for augmentation in ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
    ]
    assert Counter(family for family, _ in planned_pairs(*run_ids)) == {
        "augmentation": 9,  # three GANs, three models
        "control": 18,  # each minus either control
        "control_alone": 6,
        "model": 18,
        "ensemble": 18,
        "ensemble_augmentation": 3,
        "ensemble_control": 6,
        "ensemble_control_alone": 2,
        "gan_hybrid": 6,
    }


def test_the_difference_is_that_of_matching_runs(tmp_path: Path) -> None:
    better = varied(RUN, augmentation="dcgan")
    write_sweep(tmp_path, [RUN, replace(RUN, seed=1)])
    for seed in (1, 2):
        run_id = replace(better, seed=seed)
        write_run(tmp_path, run_id, predictions(run_id, strength=3.0))
    one = next(
        c for c in compare(read_results(tmp_path).configurations) if c.family == "augmentation"
    )
    assert one.result is not None
    aurocs = []
    for run_id, strength in ((replace(better, seed=1), 3.0), (replace(RUN, seed=1), 1.5)):
        stage = predictions(run_id, strength=strength).query("stage == 'test'")
        figures = all_metrics(stage["score"].to_numpy(), stage["label"].to_numpy(), {})
        aurocs.append(figures["auroc"])
    assert one.runs == 1
    assert one.result.difference == pytest.approx(aurocs[0] - aurocs[1], abs=1e-6)
    assert one.result.low > 0
    assert one.p == pytest.approx(one.result.p)
    assert one.patients is not None
    assert one.patients.metric == "auroc_patients"
    assert one.patients.low < one.patients.difference < one.patients.high


def test_p_is_corrected_within_the_family(tmp_path: Path) -> None:
    write_sweep(tmp_path, [varied(RUN, augmentation=name) for name in ("none", "dcgan", "wgan")])
    found = [
        c for c in compare(read_results(tmp_path).configurations) if c.family == "augmentation"
    ]
    ps = sorted(c.result.p for c in found if c.result)
    corrected = sorted(c.p for c in found if c.p is not None)
    np.testing.assert_allclose(corrected, np.minimum(1, [2 * ps[0], max(2 * ps[0], ps[1])]))
    assert [c.tests for c in found] == [2, 2]
    section = comparisons_section(found)
    assert "## Each GAN minus no augmentation (2 tests)" in section.markdown
    assert section.table["tests"].tolist() == [2, 2]


def test_configurations_without_a_common_fold_are_not_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RUN, varied(RUN, augmentation="dcgan", seed=1)])
    (one,) = (
        c for c in compare(read_results(tmp_path).configurations) if c.family == "augmentation"
    )
    assert (one.result, one.p) == (None, None)
    section = comparisons_section([one])
    assert "no seed and fold in common" in section.markdown
    assert section.table["note"].tolist() == ["no seed and fold in common"]


def test_configurations_are_compared_with_cell_area_alone(tmp_path: Path) -> None:
    table = predictions(RUN)
    write_run(tmp_path, RUN, table.assign(baseline_area=table["score"]))
    (one,) = compare(read_results(tmp_path).configurations)
    assert (one.family, one.title) == ("area", "cnn-none minus baseline: area")
    assert one.result is not None
    assert (one.result.difference, one.p) == (0, 1)


def test_nothing_to_compare() -> None:
    assert "No two configurations" in comparisons_section([]).markdown
