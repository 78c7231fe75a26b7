"""INFER_SCHEMA: the columns of Parquet files.

write_pandas(auto_create_table=True) asks for them; fakesnow does not know the function.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from standin.errors import SqlError
from standin.results import Result, rows, snowflake_type

COLUMNS = ["COLUMN_NAME", "TYPE", "NULLABLE", "EXPRESSION", "FILENAMES", "ORDER_ID"]
SQL_TYPES = {"fixed": "NUMBER(38, 0)", "timestamp_tz": "TIMESTAMP_LTZ"}


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
    kind = field.type
    if pa.types.is_decimal(kind):
        return f"NUMBER({kind.precision}, {kind.scale})"
    name = snowflake_type(field.name, kind)
    return SQL_TYPES.get(name, name.upper())
