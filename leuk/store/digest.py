"""Hashes of settings, equal on every machine."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Hash JSON-like values to 16 hexadecimal digits, independent of the order of dicts.

    Raises:
        TypeError: a value is not JSON-like; its ``repr`` could contain a memory address.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
