import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from leuk.cli import COMMANDS, main
from leuk.config import augmentations, conf_dir
from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.config.targets import check_targets, instantiate
from leuk.data.augment import Transforms
from leuk.errors import ConfigError
from leuk.runs.run import register_resolvers

LIVE = {"split", "transforms"}
"""Arguments that the code passes as objects, not through a config."""


@pytest.fixture(autouse=True)
def schemas() -> None:
    register()
    register_resolvers()
    for command in COMMANDS:
        __import__(f"leuk.commands.{command}")


def cells(*overrides: str, command: str = "train") -> list[DictConfig]:
    return compose_runs(command, CommandLine.read(command, overrides))


def options(group: str) -> list[str]:
    files = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return list(augmentations()) if group == "augmentation" else files


WRONG = [
    ("modle=cnn", "no key modle; did you mean model?"),
    ("model=cnnn", "no model cnnn; did you mean cnn?"),
    ("model=resnet", "no model resnet; known: cnn"),
    ("+modle=cnn", "no key modle; did you mean model?"),
    ("data.rezolution=64", "did you mean data.resolution?"),
    ("rezolution=64", "did you mean data.resolution?"),
    ("+data.rezolution=64", "takes no rezolution; did you mean resolution?"),
    ("++fit.epoch=3", "no key fit.epoch; did you mean fit.epochs?"),
    ("+seeed=1", "no key seeed; did you mean seed?"),
    ("+hydra.swep=1", "no key hydra.swep; did you mean hydra.sweep?"),
    ("model.droput=0.1", "did you mean model.dropout?"),
    ("+model.droput=0.1", "takes no droput; did you mean dropout?"),
    ("model.optim.learning_rat=1", "did you mean model.optim.learning_rate?"),
    ("+model.optim.lerning_rate=1", "takes no lerning_rate; did you mean learning_rate?"),
    ("trainer.max_epocs=3", "did you mean trainer.max_epochs?"),
    ("+trainer.max_epocs=3", "takes no max_epocs; did you mean max_epochs?"),
    ("gan.latnet=3", "did you mean gan.latent?"),
    ("explain=[gradcam,lme]", "no explain lme"),
    ("experiment=null", "a config group cannot be removed; known: demo"),
    ("+fitt.epochs=3", "no key fitt; did you mean fit?"),
    ("+augmentation.foo.bar=1", "no key augmentation.foo; did you mean augmentation"),
    ("data.root=/tmp", "data.root belongs to data=cnmc; add that"),
    ("augmentation.name=oversample", "set augmentation=NAME"),
    ("~model._target_", "model._target_ cannot be removed"),
    ("~trainer", "trainer cannot be removed"),
    ("model._target_=leuk.classifiers.cnn", "not a class of that module"),
    ("model.widths=[]", "model.widths=[]: "),
    ("model.resolution=32", "set only data.resolution"),
    ("data.batch_size=1", "data.batch_size=1: it must be 2 or more"),
    ("fit.monitor=val/acc", "fit.monitor=val/acc: did you mean val/auroc?"),
    ("fit.monitor=val/auroc", "this would keep the worst epoch; set fit.mode=max"),
    ("trainer.accelerator=foo", "trainer: "),
    ("trainer.devices=foo", "trainer"),
    ("trainer=cpu trainer.devices=2", "trainer.devices=2: to train one run on all devices"),
    ("grid.on_mismatch=overwrite", "it must be refuse or rerun"),
    ("split.val=2", "split.val=2"),
    ("split.val=nan", "split.val=nan: not a finite number"),
    ("-cn=report", "-cn and -cp are not supported"),
    ("-m seed=interval(0,1)", "name the values to run"),
    ("experiment=dmo", "did you mean demo?"),
    ("model/cnn=smal", "did you mean small?"),
    ("seed=abc", "seed=abc; Value 'abc' of type 'str' could not be converted to Integer"),
    ("fit.epochs=1.5", "could not be converted to Integer"),
    ("fit.standardize=maybe", "is not a valid bool"),
    ("model.dropout=abc", "model.dropout=abc: input should be a valid number"),
    ("model.widths=x", "model.widths=x: input should be a valid"),
    ("model.hidden='3'", "model.hidden=3: input should be a valid integer"),
    (
        "data.framing=circle",
        "data.framing=circle: input should be 'full', 'centered', 'crop300' or 'cell'",
    ),
    ("split.val=true", "split.val=True: input should be"),
    ("trainer.precision=17", "trainer.precision=17"),
    ("model.dropout=1", "input should be less than 1"),
    ("data.batch_size=0", "input should be greater than or equal to 1"),
    ("data.workers=-1", "greater than or equal to 0"),
    ("gan.widths=[8,8] augmentation=dcgan", "gan.widths=[8, 8]: "),
    ("seed=-1", "seed=-1: it must be 0 or more"),
    ("seed=99999999999", "it must be 4294967295 or less"),
    ("fit.epochs=0", "fit.epochs=0: it must be 1 or more"),
    ("explain_images=0", "explain_images=0: it must be 1 or more"),
    ("name=a/b", "name=a/b: it must name a single folder"),
    ("name=..", "it must name a single folder"),
    ("fit.mode=best", "fit.mode=best: it must be min or max"),
    ("model._target_=os.system", "only names from leuk"),
    ("model._target_=leuk.classifiers.cnn.CMM", "cannot be imported"),
    ("+callbacks.x=1", "an object needs a _target_"),
    ("data=cnmc", "data.root has no value; set it: data.root=VALUE"),
    ("model=cnn,cnn", "add -m to run them all"),
    ("--mutlirun", "--mutlirun: no such flag"),
    ("seed", "cannot be read; write KEY=VALUE"),
]


@pytest.mark.parametrize(("override", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_wrong_override_stops_before_any_work(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", f"outputs={tmp_path}/out", *override.split(" ", 1)])
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


def test_wrong_value_in_the_last_run_of_a_sweep_stops_the_first(tmp_path: Path) -> None:
    assert main(["train", "-m", f"outputs={tmp_path}/out", "seed=0,1,x"]) == 2
    assert not list(tmp_path.iterdir())


def test_two_jobs_with_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", f"outputs={tmp_path}/out", "seed=0,0"]) == 2
    assert "two jobs of this sweep" in capsys.readouterr().err


@pytest.mark.parametrize("resolution", [60, 48])
def test_networks_are_built_before_any_work(resolution: int, tmp_path: Path) -> None:
    code = main(
        ["train", "augmentation=dcgan", f"outputs={tmp_path}/out", f"data.resolution={resolution}"]
    )
    assert code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gradcam explain.gradcam.layer=blocks.9", "no such layer; choose from blocks.0.0"),
        ("lime explain.lime_patches.when_possible=false", "lime_patches: CNN has no patches"),
    ],
)
def test_explainers_are_checked_before_any_work(
    method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"outputs={tmp_path}/out", *f"explain={method}".split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sweep_is_the_product_of_its_axes() -> None:
    swept = cells("-m", "augmentation=none,dcgan", "seed=0,1")
    assert [(c.augmentation.name, c.seed) for c in swept] == [
        ("none", 0),
        ("none", 1),
        ("dcgan", 0),
        ("dcgan", 1),
    ]


def test_axis_of_an_experiment_can_be_overridden() -> None:
    assert len(cells("-m", "experiment=demo")) == 12
    assert len(cells("-m", "experiment=demo", "model=cnn,vit")) == 8
    none = cells("-m", "experiment=demo", "augmentation=none", "model=vit")
    assert [c.augmentation.name for c in none] == ["none"]


def test_gan_settings_are_accepted_in_sweeps_with_runs_without_a_gan() -> None:
    for cfg in cells("-m", "augmentation=none,dcgan", "gan.latent=7", "gan_fit.epochs=3"):
        assert (cfg.gan.latent, cfg.gan_fit.epochs) == (7, 3)


@pytest.mark.parametrize("group", [p.name for p in conf_dir().iterdir() if p.is_dir()])
def test_every_option_composes(group: str) -> None:
    if group == "hydra":
        return
    for option in options(group):
        extra = {"cnmc": ["data.root=."], "classifier": ["extractor.run=."]}.get(option, [])
        command = "synthesize" if group == "extractor" else "train"
        (cfg,) = cells(f"{group}={option}", *extra, command=command)
        assert cfg


@pytest.mark.parametrize("recipe", options("recipe"))
@pytest.mark.parametrize("model", options("model"))
def test_every_argument_of_leuk_can_be_set_without_a_plus(model: str, recipe: str) -> None:
    for data in options("data"):
        extra = ["data.root=."] if data == "cnmc" else []
        (cfg,) = cells(f"model={model}", f"recipe={recipe}", f"data={data}", *extra)
        for path, node in targets(OmegaConf.to_container(cfg, resolve=False), ""):
            if not node["_target_"].startswith("leuk."):
                continue
            takes = set(inspect.signature(get_object(node["_target_"])).parameters) - LIVE
            assert takes <= set(node), f"{path} lacks {takes - set(node)}"


def targets(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "_target_" in value and not path.startswith(".hydra"):
            yield path, value
        for key, child in value.items():
            yield from targets(child, f"{path}.{key}")


def test_thesis_recipe_equals_the_defaults_of_the_classes() -> None:
    (cfg,) = cells("recipe=thesis", "augmentation=dcgan")
    for node in (cfg.model, cfg.gan):
        for name, parameter in inspect.signature(get_object(node._target_)).parameters.items():
            value = node[name]
            if isinstance(value, DictConfig):
                value = instantiate(value)
            elif OmegaConf.is_list(value):
                value = tuple(value)
            assert value == parameter.default, name


def test_defaults_of_the_design() -> None:
    (cfg,) = cells()
    assert (cfg.outputs, cfg.seed, cfg.hydra.runtime.choices["data"]) == ("outputs", 0, "phantom")


def test_variant_is_in_the_folder_name_only_if_settings_differ() -> None:
    def folder(*overrides: str) -> str:
        return Path(cells(*overrides)[0].hydra.run.dir).as_posix()

    assert folder() == "outputs/runs/single/cnn-none-folds-s0"
    assert folder("recipe=small", "fit.epochs=26") == folder()
    assert folder("data.resolution=96").endswith("cnn-none-folds-s0-resolution_96")
    assert folder("experiment=demo") == "outputs/runs/demo/cnn-none-folds-s0"
    assert folder("name=mine", "outputs=x") == "x/runs/mine/cnn-none-folds-s0"
    assert folder("data=cnmc", "data.root=/x").endswith("cnn-none-folds-s0-data_cnmc")
    assert folder("gan.latent=9") == folder()
    assert folder("gan.latent=9", "augmentation=dcgan").endswith("-gan.latent_9")
    assert folder("explain=none", "logger=none", "data.workers=2", "trainer=cpu") == folder()


def test_instantiate_checks_and_converts() -> None:
    node = OmegaConf.create({"_target_": "leuk.data.augment.Transforms", "zoom": 0.5})
    assert instantiate(node, rotation=3.0) == Transforms(rotation=3.0, zoom=0.5)
    with pytest.raises(ConfigError, match="takes no zom; did you mean zoom"):
        instantiate(OmegaConf.create({"_target_": "leuk.data.augment.Transforms", "zom": 1}))


def test_nested_targets_are_checked() -> None:
    bad = {"a": [{"_target_": "leuk.data.augment.Transforms", "zoom": "big"}]}
    with pytest.raises(ConfigError, match=r"a\[0\]\.zoom=big"):
        check_targets(bad)


def test_single_function_instantiates() -> None:
    package = Path(conf_dir().parent / "leuk")
    found = [
        path.name
        for path in package.rglob("*.py")
        if "hydra.utils.instantiate(" in path.read_text()
    ]
    assert found == ["targets.py"]
