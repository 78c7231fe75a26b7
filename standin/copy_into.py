"""COPY INTO a table from Parquet files on a stage."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from sqlglot import exp

from standin import keys, text
from standin.compat import quoted
from standin.errors import SqlError, compilation_error, unsupported
from standin.results import COPY, Result, rows, status
from standin.stages import Stage, StagedFile, StageStore

FILE_NOT_FOUND = 91016
OPTIONS = {"FILE_FORMAT", "FILES", "PATTERN", "ON_ERROR", "PURGE", "FORCE", "MATCH_BY_COLUMN_NAME"}
FORMAT_OPTIONS = {
    "TYPE",
    "COMPRESSION",
    "USE_LOGICAL_TYPE",
    "USE_VECTORIZED_SCANNER",
    "BINARY_AS_TEXT",
}
COLUMNS = (
    "file",
    "status",
    "rows_parsed",
    "rows_loaded",
    "error_limit",
    "errors_seen",
    "first_error",
    "first_error_line",
    "first_error_character",
    "first_error_column_name",
)


@dataclass(frozen=True)
class Table:
    """The target, as DuckDB knows it.

    history_sql: the table in which its loads are noted. history_names: under which schema and
    table.
    """

    sql: str
    columns: list[str]
    history_sql: str
    history_names: tuple[str, str]


@dataclass(frozen=True)
class Copy:
    """One COPY statement, taken apart."""

    stage: Stage
    prefix: str
    columns: list[str]
    select: exp.Select | None
    options: dict[str, Any]


def take_apart(tree: exp.Copy, find: Callable[[str], tuple[Stage, str]]) -> Copy:
    """find: the stage and path of '@stage/path'. What is not supported is an SQL error."""
    target = tree.this
    source = tree.args["files"][0]
    if isinstance(target.this, exp.Var):
        raise unsupported(f"COPY INTO the stage {target.this.name}")
    listed = target.expressions if isinstance(target, exp.Schema) else []
    columns = [_name(column) for column in listed]
    select = source.this if isinstance(source.this, exp.Select) else None
    located = select.args["from_"].this if select else source
    stage, prefix = find(_reference(located))
    return Copy(stage, prefix, columns, select, _options(tree))


def _reference(located: exp.Expr) -> str:
    this = located.this if isinstance(located, exp.Table) else located
    is_plain = isinstance(this, (exp.Var, exp.Literal, exp.Identifier))
    written = this.name if is_plain else this.sql("snowflake")
    return text.unquote_string(written.strip())


def _name(column: exp.Expr) -> str:
    identifier = column if isinstance(column, exp.Identifier) else column.find(exp.Identifier)
    assert identifier is not None  # a column has a name
    return identifier.name if identifier.quoted else identifier.name.upper()


def _options(tree: exp.Copy) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for parameter in tree.args.get("params") or []:
        name = parameter.name.upper()
        if name == "FILE_FORMAT":
            written = " ".join(item.sql("snowflake") for item in parameter.expressions)
            options[name] = text.parse_options(written)
        elif name == "FILES":
            options[name] = [item.name for item in parameter.find_all(exp.Literal)]
        else:
            options[name] = parameter.expression.name if parameter.expression else ""
            if isinstance(parameter.expression, exp.Boolean):
                options[name] = str(parameter.expression.this)
    text.only(options, OPTIONS, "COPY INTO")
    file_format = options.get("FILE_FORMAT", {})
    if str(file_format.get("TYPE", "CSV")).upper() != "PARQUET":
        raise unsupported(
            "COPY INTO from anything but Parquet: give FILE_FORMAT = (TYPE = PARQUET)"
        )
    text.only(file_format, FORMAT_OPTIONS, "FILE_FORMAT")
    if str(options.get("ON_ERROR", "ABORT_STATEMENT")).upper() != "ABORT_STATEMENT":
        raise unsupported(f"ON_ERROR = {options['ON_ERROR']}")
    return options


def files_of(copy: Copy, store: StageStore) -> list[StagedFile]:
    """The files that it names; one that is not there is an SQL error."""
    pattern = copy.options.get("PATTERN")
    named = copy.options.get("FILES")
    if named is not None:
        folder = keys.as_folder(copy.prefix)
        present = {file.path: file for file in store.files(copy.stage, folder)}
        missing = [folder + name for name in named if folder + name not in present]
        if missing:
            raise SqlError(
                f"Remote file '{missing[0]}' was not found on stage {copy.stage.name}.",
                FILE_NOT_FOUND,
                "22000",
            )
        return [present[folder + name] for name in named]
    found = store.files(copy.stage, copy.prefix)
    return [file for file in found if pattern is None or re.fullmatch(pattern, file.path)]


def load(
    copy: Copy, table: Table, store: StageStore, execute: Callable[..., Any]
) -> tuple[Result, list[StagedFile]]:
    """Insert the files' rows; the answer, and the files that were loaded now.

    execute: runs SQL in DuckDB's dialect. As in Snowflake, a file is loaded once into a table,
    unless it has changed or FORCE is given: the table's history says which were.
    """
    found = files_of(copy, store)
    loaded = f"select FILE_NAME from {table.history_sql} where (SCHEMA_NAME, TABLE_NAME) = (?, ?)"
    known = {name for (name,) in execute(loaded, list(table.history_names)).fetchall()}
    force = text.flag(copy.options, "FORCE", False)
    # with the content: a changed file is loaded again
    versions = {file.path: f"{copy.stage.name}/{file.path}#{file.md5}" for file in found}
    new = [file for file in found if force or versions[file.path] not in known]
    if not found:
        return status("Copy executed with 0 files processed.", COPY), []
    n_rows = {file.path: _n_rows(store, copy.stage, file) for file in new}
    if new:
        paths = [str(store.resolve(copy.stage, file.path)) for file in new]
        execute(_insert(copy, table, paths))
        for file in new:
            values = [*table.history_names, versions[file.path], n_rows[file.path]]
            columns = "(SCHEMA_NAME, TABLE_NAME, FILE_NAME, ROW_COUNT)"
            execute(f"insert into {table.history_sql} {columns} values (?, ?, ?, ?)", values)
    reports = [_report(copy.stage, file, n_rows.get(file.path)) for file in found]
    return rows(COLUMNS, reports, COPY), new


def _report(stage: Stage, file: StagedFile, n_rows: int | None) -> tuple:
    """The file's row of the answer; n_rows: None if it was not loaded now."""
    name = f"{stage.name.name.lower()}/{file.path}"
    if n_rows is None:
        return (name, "LOAD_SKIPPED", 0, 0, None, 1, "File was loaded before.", None, None, None)
    return (name, "LOADED", n_rows, n_rows, 1, 0, None, None, None, None)


def _n_rows(store: StageStore, stage: Stage, file: StagedFile) -> int:
    try:
        return pq.read_metadata(store.resolve(stage, file.path)).num_rows
    except (OSError, ValueError) as error:
        raise SqlError(
            f"Error parsing the Parquet file '{file.path}': {error}", 100152, "22000"
        ) from error


def _insert(copy: Copy, table: Table, paths: list[str]) -> str:
    columns = copy.columns or table.columns
    listed = ", ".join(f"'{quoted(glob.escape(path))}'" for path in paths)
    # a folder named a=b would be read as a column
    source = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    if copy.select is not None:
        if len(copy.select.expressions) != len(columns):
            raise compilation_error("Insert value list does not match column list", 2020, "21S01")
        values = [
            _without_dollar(expression).sql(dialect="duckdb")
            for expression in copy.select.expressions
        ]
    else:
        present = pq.read_schema(paths[0]).names
        mode = str(copy.options.get("MATCH_BY_COLUMN_NAME", "NONE")).upper()
        values = _matching(columns, present, mode)
    names = ", ".join(duck_name(column) for column in columns)
    return f"insert into {table.sql} ({names}) select {', '.join(values)} from {source}"


def _matching(columns: list[str], present: list[str], mode: str) -> list[str]:
    if mode not in ("CASE_SENSITIVE", "CASE_INSENSITIVE"):
        raise compilation_error(
            "PARQUET file format can produce one and only one column of type variant, object, or"
            " array. Load data into separate columns using the MATCH_BY_COLUMN_NAME copy option or"
            " copy with transformation.",
            2019,
            "0A000",
        )
    fold = str.upper if mode == "CASE_INSENSITIVE" else str
    by_name = {fold(name): name for name in present}
    found = [by_name.get(fold(column)) for column in columns]
    return ["null" if name is None else duck_name(name) for name in found]


def _without_dollar(expression: exp.Expr) -> exp.Expr:
    """$1:"A"::number -> "A"::number: a Parquet file's columns have names here."""
    # In parentheses, so that the root has a parent too when it is $1 itself that is replaced.
    expression = exp.Paren(this=expression.unalias().copy())
    for parameter in list(expression.find_all(exp.Parameter)):
        holder = parameter.parent
        keys = [key.this for key in holder.find_all(exp.JSONPathKey)] if holder else []
        if parameter.name != "1" or len(keys) != 1 or not isinstance(holder, exp.JSONExtract):
            raise unsupported(f"'{expression.this.sql('snowflake')}' in COPY INTO; use $1:column")
        holder.replace(exp.column(exp.to_identifier(keys[0], quoted=True)))
    return expression


def duck_name(name: str) -> str:
    """An identifier for DuckDB, in double quotes."""
    return '"' + name.replace('"', '""') + '"'
