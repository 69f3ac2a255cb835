"""Options of config groups that leuk derives from files: recipes, and an augmentation per GAN."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


class _RegisteredFirst(SearchPathPlugin):
    """Plugin of Hydra by which a registered option replaces the file that it is derived from."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        # Under the name of Hydra's own source of registered options, which is searched last.
        search_path.prepend("schema", "structured://", anchor="main")


def register_options(folder: Path) -> None:
    """Register the options that follow from the files of a config folder.

    A file ``recipe/NAME.yaml`` has sections such as ``model/cnn``, which apply only with
    ``model=cnn``: each becomes the option ``NAME`` of the group ``model/cnn``. A file
    ``gan/NAME.yaml`` gives ``augmentation=NAME``, images of this GAN.

    Args:
        folder: leuk's config folder, or one of the user's.
    """
    plugins = Plugins.instance()
    if _RegisteredFirst not in plugins.discover(SearchPathPlugin):
        plugins.register(_RegisteredFirst)
    for path in sorted((folder / "recipe").glob("*.yaml")):
        _register_recipe(path)
    for path in sorted((folder / "gan").glob("*.yaml")):
        node = {
            "defaults": [{"override /gan": path.stem}],
            "augmentation": {"name": path.stem, "kind": "gan"},
        }
        _store("augmentation", path.stem, node)


def _register_recipe(path: Path) -> None:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return  # Hydra reports the file if it is chosen
    if isinstance(values, dict):
        sections = {key: values.pop(key) for key in list(values) if "/" in str(key)}
        for group, node in sections.items():
            _store(group, path.stem, node)
        _store("recipe", path.stem, values)


def _store(group: str, name: str, node: dict[str, Any]) -> None:
    ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
