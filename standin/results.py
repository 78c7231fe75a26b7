"""Results in the form in which the connector reads them: column types, and rows as Arrow."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from standin.errors import unsupported

# Numbers by which the connector tells what kind of statement it has run.
UNKNOWN = 0x0000
SELECT = 0x1000
INSERT = 0x3100
UPDATE = 0x3200
DELETE = 0x3300
MERGE = 0x3400
COPY = 0x3600
DDL = 0x6000
TRANSACTION = 0x5000
CHANGING_ROWS = frozenset({INSERT, UPDATE, DELETE, MERGE})
NO_UTC_OFFSET = 1440  # minutes; the connector subtracts 1440
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Result:
    """What one statement answers."""

    table: pa.Table
    statement_type: int = SELECT
    query_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def affected(self) -> int | None:
        """Rows changed, for statements that change rows; else None."""
        if self.statement_type not in CHANGING_ROWS:
            return None
        return sum(int(column[0].as_py() or 0) for column in self.table.columns if len(column))


def rows(
    columns: Sequence[str], values: Sequence[Sequence[Any]], statement_type: int = SELECT
) -> Result:
    """A result of strings, whole numbers and timestamps."""
    by_column = [[row[position] for row in values] for position, _ in enumerate(columns)]
    arrays = [pa.array(column, _type_of(column)) for column in by_column]
    return Result(pa.Table.from_arrays(arrays, names=list(columns)), statement_type)


def status(text: str, statement_type: int = DDL) -> Result:
    """A result of one row, with a sentence in it."""
    return rows(["status"], [(text,)], statement_type)


def _type_of(column: list[Any]) -> pa.DataType:
    known = [value for value in column if value is not None]
    if known and isinstance(known[0], bool):
        return pa.bool_()
    if known and isinstance(known[0], int):
        return pa.int64()
    if known and isinstance(known[0], dt.datetime):
        return pa.timestamp("us", tz="UTC")
    return pa.string()


def column_info(name: str, kind: pa.DataType) -> dict[str, Any]:
    """A column's description, as the service sends it."""
    info: dict[str, Any] = dict.fromkeys(
        ("byteLength", "length", "scale", "precision", "collation")
    )
    info |= {"name": name, "database": "", "schema": "", "table": "", "nullable": True}
    info["type"] = snowflake_type(name, kind)
    if info["type"] == "fixed":
        decimal = pa.types.is_decimal(kind)
        info["precision"] = kind.precision if decimal else 38
        info["scale"] = kind.scale if decimal else 0
    elif info["type"] == "text":
        info |= {"byteLength": 16_777_216, "length": 16_777_216}
    elif info["type"].startswith("time"):
        info |= {"precision": 0, "scale": 9}
    elif info["type"] == "binary":
        info |= {"byteLength": 8_388_608, "length": 8_388_608}
    return info


def snowflake_type(name: str, kind: pa.DataType) -> str:
    """What the service calls a column's type. name: of the column, for the error."""
    is_a = pa.types
    checks = (
        (is_a.is_boolean, "boolean"),
        (is_a.is_integer, "fixed"),
        (is_a.is_decimal, "fixed"),
        (is_a.is_floating, "real"),
        (is_a.is_date, "date"),
        (is_a.is_time, "time"),
        (is_a.is_null, "text"),
        (is_a.is_string, "text"),
        (is_a.is_large_string, "text"),
        (is_a.is_binary, "binary"),
        (is_a.is_large_binary, "binary"),
    )
    if is_a.is_timestamp(kind):
        return "timestamp_tz" if kind.tz else "timestamp_ntz"
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return "array"
    for check, snowflake_type in checks:
        if check(kind):
            return snowflake_type
    raise unsupported(f"column {name} of type {kind}")


def to_wire(table: pa.Table) -> tuple[list[dict[str, Any]], pa.Table]:
    """Descriptions of the columns, and the same rows in the connector's encoding.

    fakesnow's own encoding fails on NULL in a column of timestamps.
    """
    infos = [column_info(field.name, field.type) for field in table.schema]
    columns = [_encode(table.column(i)) for i in range(table.num_columns)]
    fields = [
        pa.field(info["name"], column.type, metadata=_metadata(info))
        for info, column in zip(infos, columns)
    ]
    return infos, pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _metadata(info: dict[str, Any]) -> dict[str, str]:
    """The description once more: the connector's reader of Arrow sees nothing but the fields."""
    return {
        "logicalType": info["type"].upper(),
        "precision": str(info["precision"] or 38),
        "scale": str(info["scale"] or 0),
        "charLength": str(info["length"] or 0),
    }


def _encode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return pa.chunked_array(
            [_timestamp_structs(chunk) for chunk in column.chunks], _struct_type(kind.tz)
        )
    if pa.types.is_time(kind):
        return column.cast(pa.time64("ns")).cast(pa.int64())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_unsigned_integer(kind):
        return column.cast(pa.int64())
    if snowflake_type("", kind) == "array":
        return _json_text(column)
    return column.cast(pa.float64()) if pa.types.is_floating(kind) else column


def _json_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import json

    texts = [
        None if value is None else json.dumps(value, default=str) for value in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _struct_type(zone: str | None) -> pa.DataType:
    fields = [("epoch", pa.int64()), ("fraction", pa.int32())]
    return pa.struct(fields + ([("timezone", pa.int32())] if zone else []))


def _timestamp_structs(stamps: pa.Array) -> pa.Array:
    """Whole seconds since 1970 UTC, and nanoseconds after them; nulls stay nulls."""
    zone = stamps.type.tz
    # Not nanoseconds for all: counted in them, int64 ends in the year 2262.
    unit = "ns" if stamps.type.unit == "ns" else "us"
    per_second = NANOSECONDS if unit == "ns" else 1_000_000
    in_unit = stamps.cast(pa.timestamp(unit, tz=zone)).cast(pa.int64())
    ticks = in_unit.fill_null(0).to_numpy()
    # Both round down: half a second before 1970 is second -1 and 500,000,000 ns.
    seconds = ticks // per_second
    fraction = (ticks % per_second) * (NANOSECONDS // per_second)
    children = [pa.array(seconds), pa.array(fraction.astype(np.int32))]
    if zone:
        children.append(pa.array(np.full(len(stamps), NO_UTC_OFFSET, dtype=np.int32)))
    fields = list(_struct_type(zone))
    return pa.StructArray.from_arrays(children, fields=fields, mask=stamps.is_null())
