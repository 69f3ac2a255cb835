"""Types with value ranges; configs are validated against them before any work."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Len
from pydantic import Field

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Counts = Annotated[Sequence[Count], Len(1)]
"""A non-empty sequence of whole numbers, each 1 or more."""

CountOrZero = Annotated[int, Field(ge=0)]
"""A whole number, 0 or more."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share, 0 or more and below 1."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number, 0 or more."""
