"""Configs: wrong overrides, sweeps, options, defaults of classes and names of folders."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from leuk.cli import main
from leuk.config import augmentations, conf_dir
from leuk.config.options import signature
from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.config.targets import check_targets, instantiate
from leuk.data.augment import Transforms
from leuk.errors import ConfigError
from leuk.runs.run import register_resolvers

LIVE = {"split", "transforms"}
"""Arguments that the code passes as objects, not through a config."""


@pytest.fixture(autouse=True, scope="module")
def schemas() -> None:
    register()
    register_resolvers()


def jobs(*overrides: str, command: str = "train") -> list[DictConfig]:
    return compose_runs(command, CommandLine.read(command, overrides))


def options(group: str) -> list[str]:
    files = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return list(augmentations()) if group == "augmentation" else files


WRONG = [
    # Misspelled keys, groups and options.
    ("+modle=cnn", "no key modle; did you mean model?"),
    ("model=cnnn", "no model cnnn; did you mean cnn?"),
    ("model=resnet", "no model resnet; known: cnn"),
    ("rezolution=64", "did you mean data.resolution?"),
    ("++fit.epoch=3", "no key fit.epoch; did you mean fit.epochs?"),
    ("+hydra.swep=1", "no key hydra.swep; did you mean hydra.sweep?"),
    ("model.droput=0.1", "did you mean model.dropout?"),
    ("+model.optim.lerning_rate=1", "takes no lerning_rate; did you mean learning_rate?"),
    ("explain=[gradcam,lme]", "no explain lme"),
    ("+augmentation.foo.bar=1", "no key augmentation.foo; did you mean augmentation"),
    ("data.root=/tmp", "data.root belongs to data=cnmc; add that"),
    ("model/cnn=smal", "did you mean small?"),
    ("--mutlirun", "--mutlirun: no such flag"),
    ("-cn=report", "-cn and -cp are not supported"),
    # Needed by every run.
    ("experiment=null", "a config group cannot be removed; known: demo"),
    ("~model._target_", "model._target_ cannot be removed"),
    ("~trainer", "trainer cannot be removed"),
    ("callbacks.checkpoint=null", "the weights would be lost"),
    ("data=cnmc", "data.root has no value; set it: data.root=VALUE"),
    # Targets.
    ("model._target_=leuk.classifiers.cnn", "not a class of that module"),
    ("model._target_=os.system", "only names from leuk"),
    ("model._target_=leuk.classifiers.cnn.CMM", "cannot be imported"),
    ("+callbacks.x=1", "an object needs a _target_"),
    # Types and ranges.
    ("seed=abc", "seed=abc; Value 'abc' of type 'str' could not be converted to Integer"),
    ("fit.standardize=maybe", "is not a valid bool"),
    ("model.dropout=abc", "model.dropout=abc: input should be a valid number"),
    ("model.dropout=1", "input should be less than 1"),
    ("model.widths=[]", "model.widths=[]: "),
    ("model.hidden='3'", "model.hidden=3: input should be a valid integer"),
    (
        "data.framing=circle",
        "data.framing=circle: input should be 'full', 'centered', 'crop300' or 'cell'",
    ),
    ("data.workers=-1", "greater than or equal to 0"),
    ("split.val=true", "split.val=True: input should be"),
    ("split.val=nan", "split.val=nan: not a finite number"),
    ("gan.widths=[8,8] augmentation=dcgan", "gan.widths=[8, 8]: "),
    ("seed=99999999999", "it must be 4294967295 or less"),
    ("data.batch_size=1", "data.batch_size=1: it must be 2 or more"),
    ("fit.mode=best", "fit.mode=best: it must be min or max"),
    ("fit.monitor=val/acc", "fit.monitor=val/acc: did you mean val/auroc?"),
    ("fit.monitor=val/auroc", "this would keep the worst epoch; set fit.mode=max"),
    ("name=a/b", "name=a/b: it must name a single folder"),
    ("name=..", "it must name a single folder"),
    ("model.resolution=32", "set only data.resolution"),
    ("augmentation.name=oversample", "set augmentation=NAME"),
    ("augmentation.count=50", "augmentation=none adds no images"),
    # Trainer.
    ("trainer.accelerator=foo", "trainer: "),
    ("trainer.devices=foo", "trainer"),
    ("trainer=cpu trainer.devices=2", "trainer.devices=2: to train one run on all devices"),
    ("trainer.precision=16-true", "choose 32-true, bf16-mixed, 16-mixed"),
    ("+trainer.fast_dev_run=true", "for a short run set fit.epochs=1"),
    ("+trainer.check_val_every_n_epoch=10 fit.epochs=2", "no validation in 2 epochs"),
    ("+trainer.limit_val_batches=0", "without validation there is no checkpoint"),
    # Words of other tools, and former keys.
    ("model.lr=1e-3", "no key model.lr; did you mean model.optim.learning_rate?"),
    ("data=cnmc data_dir=/tmp", "did you mean data.root?"),
    ("data_dir=/tmp", "did you mean data=cnmc data.root?"),
    ("gan.batch_size=8", "did you mean gan_fit.batch_size?"),
    ("gan.n_critic=2", "did you mean gan.fitting.adversary_steps?"),
    ("gan.opponent_widths=[8]", "it is called gan.adversary_widths now"),
    ("ckpt_path=x", "resumes when the same command is started again"),
    ("overwrite=true", "did you mean grid.on_mismatch=rerun?"),
    # Syntax and sweeps.
    ("seed", "cannot be read; write KEY=VALUE"),
    ("model=cnn,cnn", "add -m to run them all"),
    ("split.train=fold_0,fold_1", "write split.train=[VALUE,VALUE] for a single list"),
    ("-m seed=interval(0,1)", "name the values to run"),
    ("-m seed=0,1,x", "could not be converted to Integer"),
    ("-m seed=0,0", "two jobs of this sweep"),
    ("-m experiment=demo,grid", "run one leuk command per experiment"),
    ("hydra.run.dir=/x", "leuk chooses the folder names; set outputs=DIR and name=NAME"),
    # Networks and methods are built.
    ("data.resolution=60", "this CNN needs a multiple of 8"),
    ("augmentation=dcgan data.resolution=48", "multiple of 32"),
    ("explain=gradcam explain.gradcam.layer=blocks.9", "no such layer; choose from blocks.0.0"),
    ("explain=lime explain.lime_patches.when_possible=false", "lime_patches: CNN has no patches"),
]


@pytest.mark.parametrize(("override", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_wrong_override_stops_before_any_work(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", f"outputs={tmp_path}/out", *override.split(" ")])
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


def test_axes_of_a_sweep_and_of_an_experiment() -> None:
    swept = jobs("-m", "augmentation=none,dcgan", "seed=0,1", "gan.latent=7")
    assert [(c.augmentation.name, c.seed, c.gan.latent) for c in swept] == [
        ("none", 0, 7),
        ("none", 1, 7),
        ("dcgan", 0, 7),
        ("dcgan", 1, 7),
    ]
    demo = jobs("-m", "experiment=demo", "augmentation=none", "model=cnn,vit")
    assert [c.hydra.runtime.choices["model"] for c in demo] == ["cnn", "vit"]
    assert {c.augmentation.name for c in demo} == {"none"}


def test_every_option_composes() -> None:
    groups = {p.name for p in conf_dir().iterdir() if p.is_dir()} - {
        "hydra",
        "extractor",
        "experiment",
    }
    for number in range(max(len(options(group)) for group in groups)):
        chosen = [f"{group}={options(group)[number % len(options(group))]}" for group in groups]
        extra = ["data.root=."] if "data=cnmc" in chosen else []
        assert len(jobs(*chosen, *extra)) == 1
    for option in options("extractor"):
        extra = ["extractor.run=."] if option == "classifier" else []
        assert jobs(f"extractor={option}", *extra, command="synthesize")


@pytest.mark.parametrize("recipe", options("recipe"))
@pytest.mark.parametrize("model", options("model"))
def test_every_argument_of_leuk_can_be_set_without_a_plus(model: str, recipe: str) -> None:
    data = ["data=cnmc", "data.root=."] if recipe == "thesis" else ["data=phantom"]
    (cfg,) = jobs(f"model={model}", f"recipe={recipe}", *data)
    for path, node in targets(OmegaConf.to_container(cfg, resolve=False), ""):
        if node["_target_"].startswith("leuk."):
            takes = set(inspect.signature(get_object(node["_target_"])).parameters) - LIVE
            assert takes <= set(node), f"{path} lacks {takes - set(node)}"


def targets(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "_target_" in value and not path.startswith(".hydra"):
            yield path, value
        for key, child in value.items():
            yield from targets(child, f"{path}.{key}")


@pytest.mark.parametrize(
    "target",
    [
        *(f"leuk.classifiers.{name}" for name in ("cnn.CNN", "vit.ViT", "pretrained.Pretrained")),
        *(f"leuk.gans.{name}" for name in ("dcgan.DCGAN", "wgan.WGANGP", "cgan.CGAN")),
        "leuk.data.augment.Transforms",
        "leuk.data.rules.Folds",
    ],
)
def test_defaults_read_from_the_source_are_those_of_the_class(target: str) -> None:
    node = OmegaConf.create({"_target_": target, **signature(target)})
    parameters = inspect.signature(get_object(target)).parameters
    assert node.keys() - {"_target_"} == parameters.keys()
    for name, parameter in parameters.items():
        value: Any = node[name]
        if isinstance(value, DictConfig):
            value = instantiate(value)
        elif OmegaConf.is_list(value):
            value = tuple(value)
        assert value == parameter.default, name


def test_variant_is_in_the_folder_name_only_if_settings_differ() -> None:
    def folder(*overrides: str) -> str:
        return Path(jobs(*overrides)[0].hydra.run.dir).as_posix()

    assert folder() == "outputs/runs/single/cnn-none-folds-s0"
    assert folder("recipe=small", "fit.epochs=26", "gan.latent=9", "explain=none") == folder()
    assert folder("logger=none", "data.workers=2", "trainer=cpu") == folder()
    assert folder("experiment=demo") == "outputs/runs/demo/cnn-none-folds-s0"
    assert folder("name=mine", "outputs=x", "data.resolution=96") == (
        "x/runs/mine/cnn-none-folds-s0-resolution_96"
    )
    assert folder("data=cnmc", "data.root=/x").endswith("cnn-none-folds-s0-data_cnmc")
    assert folder("gan.latent=9", "augmentation=dcgan").endswith("-gan.latent_9")


def test_instantiate_checks_and_converts() -> None:
    node = OmegaConf.create({"_target_": "leuk.data.augment.Transforms", "zoom": 0.5})
    assert instantiate(node, rotation=3.0) == Transforms(rotation=3.0, zoom=0.5)
    with pytest.raises(ConfigError, match="takes no zom; did you mean zoom"):
        instantiate(OmegaConf.create({"_target_": "leuk.data.augment.Transforms", "zom": 1}))
    bad = {"a": [{"_target_": "leuk.data.augment.Transforms", "zoom": "big"}]}
    with pytest.raises(ConfigError, match=r"a\[0\]\.zoom=big"):
        check_targets(bad)
    package = conf_dir().parent / "leuk"
    found = [p.name for p in package.rglob("*.py") if "utils.instantiate(" in p.read_text()]
    assert found == ["targets.py"]
