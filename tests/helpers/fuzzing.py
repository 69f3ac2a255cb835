"""Shared parts of fuzzing tests: numbers of examples, plain values, and allowed errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SLOWLY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
many = settings(
    max_examples=int(os.environ.get("LEUK_FUZZ", "60")),
    deadline=None,
    derandomize="LEUK_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=SLOWLY,
)
"""The same examples in each run; LEUK_FUZZ=10000 tries as many others."""

few = settings(many, max_examples=many.max_examples // 6)


@contextmanager
def nothing_but(*errors: type[Exception], naming: Path | str = "") -> Iterator[None]:
    """Suppress errors of these types whose message names the file."""
    message = str(naming)
    try:
        yield
    except errors as error:
        message = str(error)
    assert str(naming) in message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
