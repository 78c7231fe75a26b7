"""INFER_SCHEMA: the columns of Parquet files.

write_pandas(auto_create_table=True) asks for them; fakesnow does not know the function.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from standin.errors import SqlError, unsupported
from standin.results import Result, rows

COLUMNS = ["COLUMN_NAME", "TYPE", "NULLABLE", "EXPRESSION", "FILENAMES", "ORDER_ID"]


def infer_schema(files: list[tuple[str, Path]]) -> Result:
    """The columns of the first file: write_pandas writes all with the same ones.

    files: path in the stage, and where it is. Raises SqlError if there is none.
    """
    if not files:
        raise SqlError(
            "No file found. Please check if the file exists in the stage.", 100303, "22000"
        )
    path, file = files[0]
    values = []
    for order, field in enumerate(pq.read_schema(file)):
        kind = _sql_type(field)
        values.append((field.name, kind, True, f"$1:{field.name}::{kind}", path, order))
    return rows(COLUMNS, values)


def _sql_type(field: pa.Field) -> str:
    is_a = pa.types
    kind = field.type
    if is_a.is_timestamp(kind):
        return "TIMESTAMP_LTZ" if kind.tz else "TIMESTAMP_NTZ"
    if is_a.is_decimal(kind):
        return f"NUMBER({kind.precision}, {kind.scale})"
    checks = (
        (is_a.is_integer, "NUMBER(38, 0)"),
        (is_a.is_floating, "REAL"),
        (is_a.is_boolean, "BOOLEAN"),
        (is_a.is_date, "DATE"),
        (is_a.is_time, "TIME"),
        (is_a.is_string, "TEXT"),
        (is_a.is_large_string, "TEXT"),
        (is_a.is_null, "TEXT"),
        (is_a.is_binary, "BINARY"),
    )
    for check, sql in checks:
        if check(kind):
            return sql
    raise unsupported(f"INFER_SCHEMA of column {field.name} of type {kind}")
