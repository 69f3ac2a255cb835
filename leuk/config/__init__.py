"""Configuration: from the command line to validated configs and instantiated objects."""

from pathlib import Path

import leuk


def conf_dir() -> Path:
    """Folder of the YAML configs: inside the installed package, or beside it in a checkout."""
    package = Path(leuk.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
