"""Take down what the tutorial made in Snowflake, and nothing else."""

from pathlib import Path

import pyarrow.parquet as pq
from snowflake.connector import DictCursor, SnowflakeConnection

from helpers import config, runs
from helpers.files import written_whole
from helpers.snowflake.connection import SCHEMA, execute
from helpers.snowflake.sql_files import run_file

MADE = {
    "view": {"CLOTHING_PREDICTION", "CLOTHING_PREDICTION_CHANGE", "CLOTHING_UNREADABLE"},
    "table": {"CLOTHING_TEST", "CLOTHING_TRAIN", "CLOTHING_PREDICTION_LOG", "CLOTHING_FAILURE"},
    "stage": {"CLOTHING_DATASET", "CLOTHING_DATASET_TRAIN"},
}
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
        with connection.cursor() as cursor:
            cursor.execute(f"select * from {config.identifier(database)}.{SCHEMA}.{name}")
            content = cursor.fetch_arrow_all(force_return_table=True)
            assert content is not None  # an empty table is returned as one
        with written_whole(folder / f"{name.lower()}.parquet") as unfinished:
            pq.write_table(content, unfinished)
        rows[name.lower()] = content.num_rows
    return rows


def drop_everything(connection: SnowflakeConnection, database: str, made_database: bool) -> str:
    """Drop the tutorial's things in `database`.

    The database goes too, if the tutorial made it and nothing else is in it. Returns a sentence
    that says what became of it.
    """
    name = config.identifier(database)
    if not database_exists(connection, name):
        return f"Database {name} does not exist: nothing to drop."
    run_file(connection, "sql/08_drop_all.sql", database_name=name)
    rest = [f"{kind} {schema}.{thing}" for kind, schema, thing in _contents(connection, name)]
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


def _contents(connection: SnowflakeConnection, database: str) -> list[tuple[str, str, str]]:
    """Kind, schema and name of every view, table and stage; none without the database."""
    if not database_exists(connection, database):
        return []
    found = []
    for kind in MADE:
        show = f"show {kind}s in database {config.identifier(database)}"
        with connection.cursor(DictCursor) as cursor:
            rows = cursor.execute(show).fetchall()
        found += [(kind, row["schema_name"], row["name"]) for row in rows]
    return [thing for thing in found if thing[1] != "INFORMATION_SCHEMA"]
