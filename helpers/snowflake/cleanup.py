"""Take down what the tutorial made in Snowflake, and nothing else."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from snowflake.connector import DictCursor, SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from helpers import config, runs
from helpers.files import written_whole
from helpers.snowflake.connection import SCHEMA, advised, execute
from helpers.snowflake.sql_files import run_file

MADE = {
    "view": {"CLOTHING_PREDICTION", "CLOTHING_PREDICTION_CHANGE", "CLOTHING_UNREADABLE"},
    "table": {"CLOTHING_TEST", "CLOTHING_TRAIN", "CLOTHING_PREDICTION_LOG", "CLOTHING_FAILURE"},
    "stage": {"CLOTHING_DATASET", "CLOTHING_DATASET_TRAIN"},
    "task": {"CLOTHING_LOAD_IMAGES"},
    "stream": {"CLOTHING_NEW_IMAGE"},
}
# what else goes with a database, and every edition of Snowflake can show
OTHERS = ("schema", "user function", "procedure", "sequence", "file format", "pipe", "alert")
OTHERS += ("streamlit", "notebook", "secret", "network rule", "model", "semantic view")
OWN_SCHEMAS = {SCHEMA, "INFORMATION_SCHEMA"}  # which each database has from its start
EXPORTED = {"CLOTHING_TEST", "CLOTHING_PREDICTION_LOG", "CLOTHING_FAILURE"}


def listing(connection: SnowflakeConnection, database: str) -> list[tuple[str, str]]:
    """Kind and name of the tutorial's own things in this database, as SHOW tells them.

    Empty if the database does not exist.
    """
    found = _contents(connection, database)
    return [(kind, name) for kind, schema, name in found if schema == SCHEMA and name in MADE[kind]]


def export(connection: SnowflakeConnection, database: str, folder: Path) -> dict[str, int]:
    """Rows written to `folder` as Parquet, by table.

    A table that is gone keeps the file of an earlier export.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for _, name in listing(connection, database):
        if name not in EXPORTED:
            continue
        path = folder / f"{name.lower()}.parquet"
        with advised(), connection.cursor() as cursor, written_whole(path) as unfinished:
            cursor.execute(f"select * from {config.identifier(database)}.{SCHEMA}.{name}")
            batches = cursor.fetch_arrow_batches()
            # of an empty table there is no batch
            first = next(batches, None) or cursor.fetch_arrow_all(force_return_table=True)
            rows[path.stem] = write_batches(first, batches, unfinished)
    return rows


def write_batches(first: pa.Table, others: Iterator[pa.Table], path: Path) -> int:
    """Rows written to a Parquet file; no more batches are held than the first and one other.

    Snowflake gives the integers of each batch the narrowest type that they fit into.
    """
    wide = pa.schema(
        field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field
        for field in first.schema
    )
    with pq.ParquetWriter(path, wide) as writer:
        for batch in chain([first], others):
            writer.write_table(batch.cast(wide))
    return pq.read_metadata(path).num_rows


def drop_everything(connection: SnowflakeConnection, database: str, made_database: bool) -> str:
    """Drop the tutorial's things in `database`.

    The database goes too, if the tutorial made it and the role sees nothing else in it. Returns a
    sentence that says what became of it.
    """
    name = config.identifier(database)
    if not database_exists(connection, name):
        return f"Database {name} does not exist: nothing to drop."
    run_file(connection, "sql/08_drop_all.sql", database_name=name)
    found = _contents(connection, name, (*MADE, *OTHERS))
    rest = [f"{kind} {'.'.join(filter(None, place))}" for kind, *place in found]
    if not made_database:
        return f"Database {name} stays: notebook 01_set_up_snowflake found it, and did not make it."
    if rest:
        return f"Database {name} stays: it also holds {', '.join(rest)}."
    execute(connection, f"drop database {name}")
    return f"Database {name} is dropped."


def database_exists(connection: SnowflakeConnection, database: str) -> bool:
    """Whether the role sees it."""
    name = config.identifier(database)
    rows = execute(connection, f"show databases like '{name}'")  # LIKE: _ is any character
    return name in [row[1] for row in rows]


def made_database(backend: str, database: str) -> bool:
    """Whether the latest run here says that the tutorial itself created this database."""
    try:
        return runs.open_run("latest", backend, database).made_database
    except (FileNotFoundError, ValueError):
        return False


def _contents(
    connection: SnowflakeConnection, database: str, kinds: Iterable[str] = MADE
) -> list[tuple[str, str, str]]:
    """Kind, schema and name of everything of these kinds; none without the database."""
    if not database_exists(connection, database):
        return []
    found = []
    for kind in kinds:
        show = f"show {kind}s in database {config.identifier(database)}"
        try:
            with connection.cursor(DictCursor) as cursor:
                shown = cursor.execute(show).fetchall()
            rows = [row for row in shown if row.get("is_builtin") != "Y"]
        except ProgrammingError as error:  # it may hold some
            rows = [{"name": f"unknown ({error.msg})"}]
        found += [(kind, row.get("schema_name") or "", row["name"]) for row in rows]
    return [
        (kind, schema, name)
        for kind, schema, name in found
        if schema != "INFORMATION_SCHEMA" and not (kind == "schema" and name.upper() in OWN_SCHEMAS)
    ]
