from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweeps import CELL, predictions, write_run, write_sweep

from leuk.evaluate.metrics import ranking_metrics
from leuk.grid.run_id import RunId
from leuk.report.comparisons import compare, comparisons_section, planned, setting
from leuk.report.ensemble import ensembles
from leuk.report.results import Configuration, read_results


def lines(sweep: Path) -> list[Configuration]:
    groups = read_results(sweep).groups
    return [*groups, *ensembles(groups)]


def asked(groups: list[Configuration]) -> set[tuple[str, str]]:
    return {(family, f"{one.title} - {two.title}") for family, one, two in planned(groups)}


def empty(*cells: RunId) -> list[Configuration]:
    """Groups for planning alone: their only run is never looked at."""

    class Test:
        baselines: dict[str, object] = {}  # noqa: RUF012

    class Run:
        test = Test()

    return [Configuration(cell, (), (Run(),)) for cell in cells]  # type: ignore[arg-type]


def test_augmentations_are_compared_with_none_of_the_same_model() -> None:
    found = asked(empty(CELL, replace(CELL, augmentation="dcgan"), replace(CELL, model="vit")))
    assert found == {
        ("augmentation", "cnn-dcgan-folds - cnn-none-folds"),
        ("model", "vit-none-folds - cnn-none-folds"),
    }


def test_a_family_holds_the_tests_of_one_question() -> None:
    cells = [
        replace(CELL, model=model, augmentation=augmentation)
        for model in ("cnn", "vit", "hybrid", "ensemble")
        for augmentation in ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
    ]
    sizes = Counter(family for family, _, _ in planned(empty(*cells)))
    assert sizes == {
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


def test_settings_of_a_gan_do_not_keep_it_from_being_compared() -> None:
    made = replace(CELL, augmentation="dcgan", variant="gan.latent_9-gan_fit.epochs_3-lr_0.1")
    hybrid = replace(made, model="hybrid")
    plain = replace(CELL, variant="lr_0.1")
    found = asked(empty(made, hybrid, CELL, plain))
    assert {pair for pair in found if pair[0] != "model"} == {
        ("augmentation", f"{made.title} - {plain.title}"),
        ("gan_hybrid", f"{hybrid.title} - {plain.title}"),
    }


def test_splits_and_variants_are_not_mixed() -> None:
    other = replace(CELL, model="vit", split="random_LEAKY")
    assert asked(empty(CELL, other, replace(CELL, model="vit", variant="resolution_96"))) == set()


def test_fusions_are_compared_with_addition_and_with_the_ensemble() -> None:
    hybrid = replace(CELL, model="hybrid")
    found = asked(
        empty(
            hybrid,
            replace(hybrid, variant="fusion_gated-lr_1e-05"),
            replace(hybrid, variant="fusion_attention"),
            replace(hybrid, variant="lr_1e-05"),
            replace(CELL, model="ensemble"),
        )
    )
    assert found == {
        ("fusion", "hybrid-none-folds-fusion_attention - hybrid-none-folds"),
        ("fusion", "hybrid-none-folds-fusion_attention - ensemble-none-folds"),
        ("fusion", "hybrid-none-folds-fusion_gated-lr_1e-05 - hybrid-none-folds-lr_1e-05"),
        ("ensemble", "ensemble-none-folds - hybrid-none-folds"),
    }


def test_a_default_that_is_named_is_the_one_compared_with() -> None:
    hybrid = replace(CELL, model="hybrid")
    found = asked(
        empty(replace(hybrid, variant="fusion_add"), replace(hybrid, variant="fusion_gated"))
    )
    assert found == {("fusion", "hybrid-none-folds-fusion_gated - hybrid-none-folds-fusion_add")}


@pytest.mark.parametrize("name", ["head_prototype", "attention_loss_1e-05"])
def test_options_are_compared_with_the_model_without(name: str) -> None:
    vit = replace(CELL, model="vit")
    family = name.rpartition("_")[0]
    assert asked(empty(vit, replace(vit, variant=name))) == {
        (family, f"vit-none-folds-{name} - vit-none-folds")
    }


def test_the_hybrid_with_a_gan_is_compared_with_both_alone() -> None:
    hybrid = replace(CELL, model="hybrid", augmentation="wgan")
    found = asked(empty(hybrid, CELL, replace(CELL, model="vit")))
    assert {pair for family, pair in found if family == "gan_hybrid"} == {
        "hybrid-wgan-folds - cnn-none-folds",
        "hybrid-wgan-folds - vit-none-folds",
    }


def test_ensembles_are_compared_with_members_and_hybrid(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(CELL, model=model) for model in ("cnn", "vit", "hybrid")])
    found = {pair for family, pair in asked(lines(tmp_path)) if family == "ensemble"}
    assert found == {f"ensemble-none - {model}-none" for model in ("cnn", "vit", "hybrid")}


def test_settings_of_a_variant() -> None:
    cell = replace(CELL, variant="attention_loss_1e-05-model.head_prototype-n_folds_3")
    assert setting(cell, "attention_loss") == "1e-05"
    assert setting(cell, "head") == "prototype"
    assert setting(cell, "fusion") is None


def test_the_difference_is_that_of_matching_runs(tmp_path: Path) -> None:
    better = replace(CELL, augmentation="dcgan")
    write_sweep(tmp_path, [CELL, replace(CELL, seed=1)])
    for seed in (1, 2):
        cell = replace(better, seed=seed)
        write_run(tmp_path, cell, predictions(cell, strength=3.0))
    one = next(c for c in compare(lines(tmp_path)) if c.family == "augmentation")
    assert one.result is not None
    aurocs = []
    for cell, strength in ((replace(better, seed=1), 3.0), (replace(CELL, seed=1), 1.5)):
        part = predictions(cell, strength=strength).query("stage == 'test'")
        figures = ranking_metrics(part["score"].to_numpy(), part["label"].to_numpy())
        aurocs.append(figures["auroc"])
    assert one.runs == 1
    assert one.result.difference == pytest.approx(aurocs[0] - aurocs[1], abs=1e-6)
    assert one.result.low > 0
    assert one.p == pytest.approx(one.result.p)
    assert one.patients is not None
    assert one.patients.metric == "auroc_patients"
    assert one.patients.low < one.patients.difference < one.patients.high


def test_p_is_corrected_within_the_family(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(CELL, augmentation=name) for name in ("none", "dcgan", "wgan")])
    found = [c for c in compare(lines(tmp_path)) if c.family == "augmentation"]
    ps = sorted(c.result.p for c in found if c.result)
    corrected = sorted(c.p for c in found if c.p is not None)
    np.testing.assert_allclose(corrected, np.minimum(1, [2 * ps[0], max(2 * ps[0], ps[1])]))
    assert [c.tests for c in found] == [2, 2]
    section = comparisons_section(found)
    assert "## Each GAN's images minus no augmentation (2 tests)" in section.markdown
    assert section.table["tests"].tolist() == [2, 2]


def test_p_is_corrected_within_the_split(tmp_path: Path) -> None:
    splits = [replace(CELL, split=split) for split in ("folds", "subject_kfold")]
    both = [replace(cell, augmentation=name) for cell in splits for name in ("none", "dcgan")]
    write_sweep(tmp_path, both)
    found = [c for c in compare(lines(tmp_path)) if c.family == "augmentation"]
    assert [(c.tests, c.p) for c in found] == [(1, c.result.p) for c in found if c.result]
    assert len({c.one.run.split for c in found}) == 2


def test_lines_without_a_common_fold_are_said_to_be_incomparable(tmp_path: Path) -> None:
    write_sweep(tmp_path, [CELL, replace(CELL, augmentation="dcgan", seed=1)])
    (one,) = (c for c in compare(lines(tmp_path)) if c.family == "augmentation")
    assert one.result is None
    assert one.p is None
    section = comparisons_section([one])
    assert "no seed and fold in common" in section.markdown
    assert section.table["note"].tolist() == ["no seed and fold in common"]


def test_a_line_is_compared_with_the_area_of_the_cell_alone(tmp_path: Path) -> None:
    table = predictions(CELL)
    write_run(tmp_path, CELL, table.assign(baseline_area=table["score"]))
    (one,) = compare(lines(tmp_path))
    assert one.family == "area"
    assert one.title == "cnn-none - baseline: area"
    assert one.result is not None
    assert one.result.difference == 0
    assert one.p == 1


def test_nothing_to_compare() -> None:
    assert "No two lines" in comparisons_section([]).markdown
