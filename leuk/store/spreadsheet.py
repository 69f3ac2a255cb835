"""Tables for people, as CSV that a spreadsheet opens and runs nothing of (OWASP, CSV injection)."""

import csv
import re
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

_RUN = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""What a text begins with that a spreadsheet would take for a formula, wide letters too."""

_FORMULA = re.compile(rf"(^|[;\t\r\n])('*)(?={_RUN})")
"""Where a cell may begin: where the comma parts a number, columns are parted by semicolons."""

_INERT = re.compile(rf"(^|[;\t\r\n])'('*)(?={_RUN})")


def inert(text: str) -> str:
    """A text that no spreadsheet runs: an apostrophe goes before what could be a formula."""
    return _FORMULA.sub(r"\1'\2", text)


def restored(text: str) -> str:
    """The text that :func:`inert` was given."""
    # Hardly any text has one, and a report reads very many.
    return _INERT.sub(r"\1\2", text) if "'" in text else text


def csv_text(table: pd.DataFrame, index_label: str | None = None) -> str:
    """A table as CSV, its texts inert and its numbers as they are.

    Args:
        table: the columns.
        index_label: heading of the index; it is left out where there is none.
    """
    safe = table.rename(columns=_safe, index=_safe)
    values: list[Any] = [*safe.columns, *safe.index]
    for place, kind in enumerate(table.dtypes):
        if not (is_numeric_dtype(kind) or is_bool_dtype(kind)):
            column = [_safe(value) for value in table.iloc[:, place]]
            safe.isetitem(place, column)
            values += column
    return safe.to_csv(
        index=index_label is not None,
        index_label=index_label,
        # A lone carriage return would end the line.
        quoting=csv.QUOTE_NONNUMERIC if any("\r" in str(v) for v in values) else csv.QUOTE_MINIMAL,
    )


def _safe(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value
