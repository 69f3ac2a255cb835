"""Launchers, loggers and trainers chosen by override, and settings of the device."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from leuk import cli
from leuk.cli import main
from leuk.commands import train
from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.data.pixels import PixelBank
from leuk.errors import ConfigError
from leuk.runs import preconditions
from leuk.runs import trainer as trainers
from leuk.runs.preconditions import LAUNCHERS, check_components, check_launcher
from leuk.runs.run import initial_record, register_resolvers
from leuk.runs.trainer import TF32, assign_devices, build_trainer, jobs_at_once
from leuk.training import EndsProcessGroup

Patch = pytest.MonkeyPatch


def config(*overrides: str) -> DictConfig:
    register()
    register_resolvers()
    (cfg,) = compose_runs("train", CommandLine.read("train", overrides))
    return cfg


@pytest.mark.parametrize("name", ["joblib", *LAUNCHERS])
def test_launcher_has_the_keys_of_the_plugin_and_must_be_installed(
    name: str, monkeypatch: Patch
) -> None:
    cfg = config("-m", f"hydra/launcher={name}", "trainer=gpu")
    module, _, form = cfg.hydra.launcher._target_.rpartition(".")
    assert hasattr(pytest.importorskip(module), form)
    check = cfg.hydra.launcher.n_jobs if name == "joblib" else cfg.hydra.sweeper.max_batch_size
    assert check == (None if name == "submitit_slurm" else jobs_at_once("auto"))
    if name != "joblib":
        assert cfg.hydra.launcher.timeout_min == 1440
        assert cfg.hydra.launcher.submitit_folder == "outputs/runs/single/.submitit/%j"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if name == "submitit_slurm":
        check_components(cfg)  # the devices of a cluster are not checked on this host
        programs = {"sbatch": "/bin/sbatch", "srun": None}
        monkeypatch.setattr(preconditions.shutil, "which", programs.get)
        with pytest.raises(ConfigError, match=r"no SLURM on this host \(srun not found\)"):
            check_launcher(cfg)
    elif name == "joblib":
        with pytest.raises(ConfigError, match=r"^trainer=gpu: no CUDA device"):
            check_components(cfg)
    if name == "joblib":  # installed with leuk
        return
    monkeypatch.setattr(preconditions, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"{name}: not installed; pip install 'leuk\[slurm\]"):
        check_launcher(cfg)


@pytest.mark.parametrize(
    ("launcher", "devices", "number", "expected"),
    [
        ("joblib", 1, 5, [1]),
        ("submitit_local", 1, 4, [0]),
        ("joblib", [1], 4, [1]),
        ("basic", 1, 3, 1),
        ("submitit_slurm", 1, 3, 1),
        ("joblib", 1, None, 1),
    ],
)
def test_each_job_has_the_gpu_of_its_number(
    launcher: str, devices: Any, number: int | None, expected: Any, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(trainers, "uses_cuda", lambda _: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": devices}})
    job = {"num": number} if number is not None else {}
    hydra_cfg = OmegaConf.create(
        {"runtime": {"choices": {"hydra/launcher": launcher}}, "job": job, "sweeper": {}}
    )
    assign_devices(cfg, hydra_cfg)
    assert cfg.trainer.devices == expected


def test_loggers_must_be_installed_and_write_locally_to_their_run(monkeypatch: Patch) -> None:
    cfg = config("logger=[csv,tensorboard,mlflow,wandb]", "name=s", "outputs=/x")
    folder = "/x/runs/s/cnn-none-folds-s0"
    assert cfg.logger.csv.save_dir == cfg.logger.tensorboard.save_dir == folder
    assert cfg.logger.mlflow.tracking_uri == "sqlite:////x/mlflow.db"
    assert (cfg.logger.wandb.save_dir, cfg.logger.wandb.offline) == (folder, True)
    assert cfg.logger.mlflow.run_name == cfg.logger.wandb.name == "cnn-none-folds-s0"
    for lacking in ("tensorboard", "mlflow", "wandb"):
        monkeypatch.setattr(preconditions, "find_spec", lambda name, no=lacking: name != no or None)
        message = rf"logger\.{lacking}: {lacking} is not installed; pip install 'leuk\[loggers\]'"
        with pytest.raises(ConfigError, match=message):
            check_components(cfg)


def test_choice_of_trainer_does_not_change_the_run(tmp_path: Path) -> None:
    chosen = {name: config(f"trainer={name}") for name in ("auto", "cpu", "gpu", "ddp")}
    assert len({initial_record(cfg, cfg.hydra).fingerprint for cfg in chosen.values()}) == 1
    assert len({cfg.hydra.run.dir for cfg in chosen.values()}) == 1
    tf32 = {name: cfg.callbacks.tf32.enabled for name, cfg in chosen.items()}
    assert tf32 == {"auto": False, "cpu": False, "gpu": True, "ddp": True}
    assert {cfg.trainer.deterministic for cfg in chosen.values()} == {True}
    several = chosen["ddp"]
    several.trainer.accelerator, several.trainer.devices = "cpu", 2
    check_components(several)
    callbacks = build_trainer(several, tmp_path, []).callbacks
    assert any(isinstance(callback, EndsProcessGroup) for callback in callbacks)
    several.fit.compile = True
    with pytest.raises(ConfigError, match=r"fit\.compile=true: impossible on several devices"):
        check_components(several)


def test_mapped_pixels_go_to_a_process_by_their_name(tmp_path: Path) -> None:
    pixels = np.memmap(tmp_path / "raw", np.uint8, mode="w+", shape=(500, 16, 16, 3))
    pixels[:] = np.random.default_rng(0).integers(0, 255, pixels.shape)
    pixels.flush()
    mapped = np.memmap(tmp_path / "raw", np.uint8, mode="c", shape=pixels.shape)
    added = np.full((2, 16, 16, 3), 7, np.uint8)
    view = mapped[10:13]
    bank = PixelBank([mapped, added, view], np.arange(505) % 2)
    packed = pickle.dumps(bank)
    assert len(packed) < mapped.nbytes // 10
    again = pickle.loads(packed)
    rows, device = torch.tensor([0, 499, 501, 502, 504]), torch.device("cpu")
    assert torch.equal(bank.gather(rows, device)["images"], again.gather(rows, device)["images"])
    assert again.labels.tolist() == bank.labels.tolist()


def test_sweep_with_a_job_that_cannot_start_ends_with_its_summary(
    tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> None:
        (tmp_path / "runs/single").mkdir(parents=True)
        raise SystemExit(1)

    monkeypatch.setattr(cli, "_hydra", killed)
    with pytest.raises(SystemExit):
        main(["train", "-m", f"outputs={tmp_path}", "seed=0,1", "trainer=cpu"])
    printed = capsys.readouterr().out
    assert "incomplete: cnn-none-folds-s1: missing: not started" in printed
    assert f"0 of 2 runs complete; see {tmp_path}/runs/single" in printed


def test_error_in_a_process_of_a_launcher_is_passed_to_hydra(monkeypatch: Patch) -> None:
    caught: list[BaseException] = []

    def launcher(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        def run() -> None:
            monkeypatch.setattr(os, "getpid", lambda: -1)
            try:
                task(OmegaConf.create())
            except ConfigError as error:
                caught.append(error)

        return run

    def refuse(_: DictConfig) -> None:
        raise ConfigError("no")

    monkeypatch.setattr(cli.hydra, "main", lambda **_: launcher)
    cli._hydra("train", "leuk train", [], refuse)
    assert [str(error) for error in caught] == ["no"]


def test_task_can_be_imported_by_other_processes() -> None:
    assert pickle.loads(pickle.dumps(train.run)) is train.run


@pytest.fixture
def _restored() -> Iterator[None]:
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(("enabled", "products"), [(True, "high"), (False, "highest")])
def test_tf32_applies_to_products_and_convolutions(enabled: bool, products: str) -> None:
    TF32(enabled).setup(None, None, "fit")
    assert torch.get_float32_matmul_precision() == products
    assert torch.backends.cudnn.allow_tf32 is enabled
