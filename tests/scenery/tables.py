"""The tutorial's stages and tables, as notebook 01 makes them."""

from collections.abc import Iterable
from pathlib import Path

from snowflake.connector import SnowflakeConnection

from helpers.snowflake import stage
from helpers.snowflake.connection import SCHEMA, execute
from helpers.snowflake.sql_files import run_file


def make_empty_tables(connection: SnowflakeConnection, database: str) -> None:
    """Empty stages and tables, in a new database that becomes the current one."""
    execute(connection, f"create or replace database {database}")
    execute(connection, f"use schema {database}.{SCHEMA}")
    run_file(connection, "sql/02_create_stages.sql")
    run_file(connection, "sql/03_create_tables.sql")


def make_tables(
    connection: SnowflakeConnection,
    folder: Path,
    database: str,
    stages: Iterable[str] = ("clothing_dataset",),
) -> None:
    """The same with the files of `folder` on these stages, and a row for each in their tables."""
    make_empty_tables(connection, database)
    for name in stages:
        stage.sync(connection, folder, name)
    run_file(connection, "sql/04_load_tables.sql")
