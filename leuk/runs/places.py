"""Where predictions and exported models go, and what they are called by default."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def predictions_folder(cfg: DictConfig) -> Path:
    """``<outputs>/predictions/<name>/<run's folder>``."""
    return Path(str(cfg.outputs)) / "predictions" / str(cfg.name) / _resolved(cfg.run).name


def export_folder(cfg: DictConfig) -> Path:
    """``<outputs>/exports/<name>/<run's folder>/<format>``."""
    run = _resolved(cfg.run).name
    return Path(str(cfg.outputs)) / "exports" / str(cfg.name) / run / str(cfg.format)


def _resolved(place: str) -> Path:
    return Path(str(place)).expanduser().resolve()


def _stem(place: str) -> str:
    path = _resolved(place)
    return path.name if path.is_dir() else path.stem


def register_places() -> None:
    """Make ``${leuk.stem:PATH}`` and ``${leuk.sweep:RUN}`` known to configs.

    The first is the name of a folder, or of a file without its suffix; the second that of the
    folder above a run's.
    """
    OmegaConf.register_new_resolver("leuk.stem", _stem, replace=True)
    OmegaConf.register_new_resolver(
        "leuk.sweep", lambda run: _resolved(run).parent.name, replace=True
    )


def said_of(cfg: DictConfig, *keys: str) -> dict[str, str]:
    """Where the files and folders lie that a config names, by key, to tell results apart."""
    return {key: str(_resolved(cfg[key])) for key in keys}
