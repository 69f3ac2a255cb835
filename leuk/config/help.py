"""Help of a command that fits a screen: its config groups, and the keys of a group."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from leuk.config import conf_dir
from leuk.config.targets import hint, walk
from leuk.errors import ConfigError


def help_text(command: str, summary: str, overrides: Sequence[str], topic: str) -> str:
    """Describe the groups and keys of a command, or the options and keys of a group.

    Args:
        command: name of the command.
        summary: its description.
        overrides: overrides, such as ``model=vit``, whose options have other keys.
        topic: group or node whose keys are listed; empty for all groups.

    Raises:
        ConfigError: no such group, or an override cannot be composed.
    """
    with initialize_config_dir(str(conf_dir()), job_name=command, version_base="1.3"):
        try:
            cfg = compose(command, overrides=list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(str(error).splitlines()[0]) from error
        chosen = dict(cfg.hydra.runtime.choices)
        loader = GlobalHydra.instance().config_loader()

        def options(group: str) -> list[str]:
            return sorted(loader.get_group_options(group, ObjectType.CONFIG))

        # leuk chooses transforms such as cnn_small itself, by model and recipe.
        recipes = tuple(f"_{recipe}" for recipe in options("recipe"))
        groups = {
            group: ", ".join(
                f"{name}*" if name == chosen[group] else name
                for name in options(group)
                if group != "transforms" or not name.endswith(recipes)
            )
            for group in sorted(map(str, chosen))
            if group != "hydra" and not set("/@") & set(group)
        }
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    del values["hydra"]
    nodes = {key for key, value in values.items() if isinstance(value, dict)} - groups.keys()
    if topic:
        if topic not in {*groups, *nodes}:
            raise ConfigError(f"--help {topic}: no group {topic}; {hint(topic, {*groups, *nodes})}")
        heading = f"{topic}: {groups[topic]}" if topic in groups else f"{topic}:"
        keys = [
            f"  {key}={text(value)}"
            for key, value in walk(values.get(topic), topic)
            if leaf(key, value)
        ]
        return "\n".join([heading, *keys])
    plain = [f"{k}={text(v)}" for k, v in values.items() if k not in groups and k not in nodes]
    listed = " ".join([*plain, *(f"{node}.*" for node in sorted(nodes))])
    lines = [f"leuk {command} [overrides]: {summary}", ""]
    if groups:
        lines.append("Groups: GROUP=OPTION, or -m GROUP=OPTION,OPTION to run several; * is chosen")
        lines += [f"  {group}: {names}" for group, names in groups.items()]
    lines.append("Keys: KEY=VALUE, or -m KEY=VALUE,VALUE to run several")
    lines += textwrap.wrap(
        listed,
        98,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines.append("")
    if groups:
        lines.append(
            f"leuk {command} --help GROUP lists the keys of a group, such as {max(groups)}."
        )
    lines.append(f"Flags of Hydra: leuk {command} --hydra-help")
    return "\n".join(lines)


def leaf(key: str, value: Any) -> bool:
    """Return True for a key that a user sets: no node, element of a list or ``_target_``."""
    return not isinstance(value, dict) and "[" not in key and not key.endswith("_target_")


def text(value: Any) -> str:
    """Value as it is written in an override."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "").replace(" ", "")
