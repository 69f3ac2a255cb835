"""Names for content: the same values give the same name on every host."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Hash JSON-like values to 16 hex digits; dict order does not matter.

    Raises:
        TypeError: a value that JSON cannot hold, so that nothing is hashed by its address.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
