"""From the command line to checked configs and live objects; everything below Hydra is here."""

from pathlib import Path

import leuk


def conf_dir() -> Path:
    """Folder of the YAML configs: inside the installed package, or beside it in a checkout."""
    package = Path(leuk.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
