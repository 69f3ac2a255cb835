"""leuk: do GAN-generated images help a leukemia classifier, and what drives its decisions?

For notebooks, :mod:`leuk.api` is re-exported here: ``load_run``, ``report_table``, ``data_module``
and ``gan``. Importing leuk imports no torch; using these does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leuk.api import data_module, gan, load_run, report_table

__version__ = "0.1.0"
__all__ = ["data_module", "gan", "load_run", "report_table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'leuk' has no attribute {name!r}")
    return getattr(import_module("leuk.api"), name)
