"""OmegaConf resolvers for configs, such as ``${leuk.folder:}``: values of the run and the host."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf

from leuk.runs.run import (
    choice_of,
    folder_of,
    resolved,
    run_id_of,
    stem,
    synthesis_folder,
    synthesis_name,
    with_hydra,
)


def register_resolvers() -> None:
    """Register the resolvers with OmegaConf; torch is imported only when a config needs it."""
    resolvers: dict[str, Callable[..., Any]] = {
        "leuk.run": lambda *, _root_: run_id_of(*with_hydra(_root_)).folder,
        "leuk.folder": lambda *, _root_: str(folder_of(*with_hydra(_root_))),
        "leuk.synthesis": lambda *, _root_: str(synthesis_folder(*with_hydra(_root_))),
        "leuk.synthesis_name": lambda *, _root_: synthesis_name(*with_hydra(_root_)),
        "leuk.choice": lambda group, *, _root_: choice_of(group, _root_),
        "leuk.stem": stem,
        "leuk.sweep": lambda run: resolved(run).parent.name,
        "leuk.precision": _later("leuk.runs.trainer", "precision_for"),
        "leuk.device": _later("leuk.runs.trainer", "device_for"),
        "leuk.channels_last": _later("leuk.runs.trainer", "gains_from_channels_last"),
        "leuk.jobs": _later("leuk.runs.launching", "jobs_at_once"),
        "leuk.batch": lambda *, _root_: _batch_of(*with_hydra(_root_)),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports its module when called, because torch takes seconds."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return call


_batch_of = _later("leuk.runs.launching", "batch_of")
