"""CSV tables whose texts a spreadsheet does not run as formulas (OWASP, CSV injection)."""

import csv
import re
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

_RUN = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""First characters of a formula, full-width ones included."""

_FORMULA = re.compile(rf"(^|[;\t\r\n])('*)(?={_RUN})")
"""Formula at the start of a field; with a decimal comma, semicolons separate the fields."""

_INERT = re.compile(rf"(^|[;\t\r\n])'('*)(?={_RUN})")


def inert(text: str) -> str:
    """Text with an apostrophe before everything that a spreadsheet could run as a formula."""
    return _FORMULA.sub(r"\1'\2", text)


def restored(text: str) -> str:
    """Original text, before :func:`inert`."""
    # Checked first for speed, as very few of the many texts have an apostrophe.
    return _INERT.sub(r"\1\2", text) if "'" in text else text


def csv_text(table: pd.DataFrame, index_label: str | None = None) -> str:
    """Format a table as CSV with inert texts and unchanged numbers.

    Args:
        table: table to format.
        index_label: heading of the index column; None to leave out the index.
    """
    safe = table.rename(columns=_safe, index=_safe)
    values: list[Any] = [*safe.columns, *safe.index]
    for position, kind in enumerate(table.dtypes):
        if not (is_numeric_dtype(kind) or is_bool_dtype(kind)):
            column = [_safe(value) for value in table.iloc[:, position]]
            safe.isetitem(position, column)
            values += column
    return safe.to_csv(
        index=index_label is not None,
        index_label=index_label,
        # Unquoted, a carriage return in a text would end the row.
        quoting=csv.QUOTE_NONNUMERIC if any("\r" in str(v) for v in values) else csv.QUOTE_MINIMAL,
    )


def _safe(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value
