"""Fuzzing of records, configs and overrides: each is accepted or refused with an error of leuk."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzzing import PLAIN, few, many, nothing_but
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sweeps import RUN, predictions, record_of

from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import SMALLEST, TrainConfig, check_schema, register
from leuk.config.stored import read_stored
from leuk.config.targets import check_hydra, check_targets
from leuk.errors import ConfigError, LeukError, StoreError
from leuk.runs.record import FILE, SCHEMA, Record
from leuk.runs.run import register_resolvers

RECORD = {"schema": SCHEMA, **asdict(record_of(RUN, predictions(RUN, images=5)))}


@many
@given(st.sampled_from([*RECORD, "other"]), PLAIN, st.sampled_from(["whole", "run", "alone"]))
def test_records(tmp_path: Path, key: str, value: object, where: str) -> None:
    changed: Any = {**RECORD, key: value}
    if where == "run":
        changed = {
            **RECORD,
            "run": {**RECORD["run"], key if key in RECORD["run"] else "seed": value},
        }
    elif where == "alone":
        changed = value
    (tmp_path / FILE).write_text(json.dumps(changed))
    with nothing_but(StoreError, naming=tmp_path / FILE):
        record = Record.read(tmp_path)
        assert record.run.folder == Path(record.run.folder).name
        assert isinstance(record.run.fold, int)


TARGETS = st.sampled_from(
    [
        "leuk.classifiers.cnn.CNN",
        "leuk.data.augment.Transforms",
        "leuk.classifiers",
        "leuk..x",
        "os.x",
    ]
)
KEYS = st.sampled_from(["_target_", "_args_", "_partial_", "resolution", "zoom", "optim", "()"])
NODES = st.recursive(
    PLAIN | TARGETS,
    lambda inner: st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4) | st.lists(inner),
    max_leaves=8,
)


@many
@given(NODES)
def test_nodes_that_describe_objects(node: object) -> None:
    for check in (check_targets, check_hydra):
        with nothing_but(ConfigError):
            check({"a": node})


@many
@given(st.text(max_size=60) | NODES.map(lambda node: json.dumps({"model": node})))
def test_configs_of_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with nothing_but(LeukError, naming=tmp_path / "config.yaml"):
        read_stored(tmp_path / "config.yaml")


@many
@given(
    st.dictionaries(
        st.sampled_from([*SMALLEST, "name", "outputs", "fit.monitor", "fit.mode", "recipe"]), PLAIN
    )
)
def test_values_of_the_schema(values: dict[str, object]) -> None:
    cfg = OmegaConf.structured(TrainConfig)
    for key, value in values.items():
        # OmegaConf refuses other types itself; preflight converts that to an error of leuk.
        with suppress(OmegaConfBaseException, ValueError):
            OmegaConf.update(cfg, key, value)
    with nothing_but(ConfigError):
        check_schema(cfg)


OVERRIDES = st.sampled_from(
    ["seed", "name", "model", "fit.epochs", "+x", "~model", "hydra.x", "data.size"]
)


@few
@example([("transforms", "[1,2]")])
@example([("transforms", "[{_target_: os.system}]")])
@given(st.lists(st.tuples(OVERRIDES | st.text(max_size=6), st.text(max_size=10)), max_size=2))
def test_overrides(overrides: list[tuple[str, str]]) -> None:
    register()
    register_resolvers()
    texts = [f"{key}={value}" for key, value in overrides if not key.startswith("-")]
    with nothing_but(LeukError):
        compose_runs("train", CommandLine(texts, False, True))
