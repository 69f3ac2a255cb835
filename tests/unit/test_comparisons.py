from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweeps import RUN, predictions, varied, write_run, write_sweep

from leuk.metrics.classification import all_metrics
from leuk.report.comparisons import compare, comparisons_section, planned
from leuk.report.derived import ensembles
from leuk.report.load import Configuration, read_results
from leuk.runs.record import RunId


def configurations_of(sweep: Path) -> list[Configuration]:
    configurations = read_results(sweep).configurations
    return [*configurations, *ensembles(configurations)]


def pairs_of(configurations: list[Configuration]) -> set[tuple[str, str]]:
    return {
        (family, f"{one.title} minus {two.title}") for family, one, two in planned(configurations)
    }


def empty(*run_ids: RunId) -> list[Configuration]:
    """Groups for planning alone: their only run is never looked at."""

    class Test:
        baselines: dict[str, object] = {}  # noqa: RUF012

    class Run:
        test = Test()

    return [Configuration(run_id, (), (Run(),)) for run_id in run_ids]  # type: ignore[arg-type]


def test_augmentations_are_compared_with_none_of_the_same_model() -> None:
    found = pairs_of(empty(RUN, varied(RUN, augmentation="dcgan"), replace(RUN, model="vit")))
    assert found == {
        ("augmentation", "cnn-dcgan-folds minus cnn-none-folds"),
        ("model", "vit-none-folds minus cnn-none-folds"),
    }


def test_a_family_holds_the_tests_of_one_question() -> None:
    run_ids = [
        varied(RUN, model=model, augmentation=augmentation)
        for model in ("cnn", "vit", "hybrid", "ensemble")
        for augmentation in ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
    ]
    sizes = Counter(family for family, _, _ in planned(empty(*run_ids)))
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
    synthetic = varied(
        RUN, augmentation="dcgan", settings={"gan.latent": 9, "gan_fit.epochs": 3, "lr": 0.1}
    )
    hybrid = replace(synthetic, model="hybrid")
    plain = replace(RUN, settings={"lr": 0.1})
    found = pairs_of(empty(synthetic, hybrid, RUN, plain))
    assert {pair for pair in found if pair[0] != "model"} == {
        ("augmentation", f"{synthetic.title} minus {plain.title}"),
        ("gan_hybrid", f"{hybrid.title} minus {plain.title}"),
    }


def test_splits_and_variants_are_not_mixed() -> None:
    other = replace(RUN, model="vit", split="random", leaky=True)
    assert (
        pairs_of(empty(RUN, other, replace(RUN, model="vit", settings={"data.resolution": 96})))
        == set()
    )


def test_fusions_are_compared_with_addition_and_with_the_ensemble() -> None:
    hybrid = replace(RUN, model="hybrid")
    found = pairs_of(
        empty(
            hybrid,
            replace(hybrid, settings={"model.fusion": "gated", "lr": 1e-5}),
            replace(hybrid, settings={"model.fusion": "attention"}),
            replace(hybrid, settings={"lr": 1e-5}),
            replace(RUN, model="ensemble"),
        )
    )
    assert found == {
        ("fusion", "hybrid-none-folds-fusion_attention minus hybrid-none-folds"),
        ("fusion", "hybrid-none-folds-fusion_attention minus ensemble-none-folds"),
        ("fusion", "hybrid-none-folds-fusion_gated-lr_1e-05 minus hybrid-none-folds-lr_1e-05"),
        ("ensemble", "ensemble-none-folds minus hybrid-none-folds"),
    }


def test_a_default_that_is_named_is_the_one_compared_with() -> None:
    hybrid = replace(RUN, model="hybrid")
    found = pairs_of(
        empty(
            replace(hybrid, settings={"model.fusion": "add"}),
            replace(hybrid, settings={"model.fusion": "gated"}),
        )
    )
    assert found == {
        ("fusion", "hybrid-none-folds-fusion_gated minus hybrid-none-folds-fusion_add")
    }


@pytest.mark.parametrize(("family", "value"), [("head", "prototype"), ("attention_loss", 1e-5)])
def test_options_are_compared_with_the_model_without(family: str, value: object) -> None:
    vit = replace(RUN, model="vit")
    changed = replace(vit, settings={f"model.{family}": value})
    assert pairs_of(empty(vit, changed)) == {
        (family, f"vit-none-folds-{family}_{value} minus vit-none-folds")
    }


def test_the_hybrid_with_a_gan_is_compared_with_both_alone() -> None:
    hybrid = varied(RUN, model="hybrid", augmentation="wgan")
    found = pairs_of(empty(hybrid, RUN, replace(RUN, model="vit")))
    assert {pair for family, pair in found if family == "gan_hybrid"} == {
        "hybrid-wgan-folds minus cnn-none-folds",
        "hybrid-wgan-folds minus vit-none-folds",
    }


def test_ensembles_are_compared_with_members_and_hybrid(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(RUN, model=model) for model in ("cnn", "vit", "hybrid")])
    found = {pair for family, pair in pairs_of(configurations_of(tmp_path)) if family == "ensemble"}
    assert found == {f"ensemble-none minus {model}-none" for model in ("cnn", "vit", "hybrid")}


def test_the_difference_is_that_of_matching_runs(tmp_path: Path) -> None:
    better = varied(RUN, augmentation="dcgan")
    write_sweep(tmp_path, [RUN, replace(RUN, seed=1)])
    for seed in (1, 2):
        run_id = replace(better, seed=seed)
        write_run(tmp_path, run_id, predictions(run_id, strength=3.0))
    one = next(c for c in compare(configurations_of(tmp_path)) if c.family == "augmentation")
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
    found = [c for c in compare(configurations_of(tmp_path)) if c.family == "augmentation"]
    ps = sorted(c.result.p for c in found if c.result)
    corrected = sorted(c.p for c in found if c.p is not None)
    np.testing.assert_allclose(corrected, np.minimum(1, [2 * ps[0], max(2 * ps[0], ps[1])]))
    assert [c.tests for c in found] == [2, 2]
    section = comparisons_section(found)
    assert "## Each GAN minus no augmentation (2 tests)" in section.markdown
    assert section.table["tests"].tolist() == [2, 2]


def test_configurations_without_a_common_fold_are_not_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RUN, varied(RUN, augmentation="dcgan", seed=1)])
    (one,) = (c for c in compare(configurations_of(tmp_path)) if c.family == "augmentation")
    assert one.result is None
    assert one.p is None
    section = comparisons_section([one])
    assert "no seed and fold in common" in section.markdown
    assert section.table["note"].tolist() == ["no seed and fold in common"]


def test_configurations_are_compared_with_cell_area_alone(tmp_path: Path) -> None:
    table = predictions(RUN)
    write_run(tmp_path, RUN, table.assign(baseline_area=table["score"]))
    (one,) = compare(configurations_of(tmp_path))
    assert one.family == "area"
    assert one.title == "cnn-none minus baseline: area"
    assert one.result is not None
    assert one.result.difference == 0
    assert one.p == 1


def test_nothing_to_compare() -> None:
    assert "No two configurations" in comparisons_section([]).markdown
