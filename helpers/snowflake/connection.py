"""Connect to Snowflake or its local stand-in, run statements and SQL files."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, finalize

import pandas as pd
import snowflake.connector
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error, OperationalError, ProgrammingError

from helpers import config
from helpers.snowflake.login import TAG, account_parameters, tagged

SCHEMA = "PUBLIC"

# what Snowflake says by number, and what to do about it
LOST_SESSION = {390104, 390111, 390112, 390114}
NO_ANSWER = (
    "Snowflake does not answer, also after retries. Look at the network, and run the cell again; "
    "a stand-in that has ended is started by the cell that connects."
)
ADVICE = {
    **dict.fromkeys(
        LOST_SESSION, "The session is gone. Run the notebook again: what was written is found."
    ),
    **dict.fromkeys(
        (606, 607, 90073),
        "Name a warehouse in SNOWFLAKE_WAREHOUSE, "
        "or have an administrator resume it or raise its limit.",
    ),
    # the lower one of warehouse and session counts, and the role cannot change the warehouse's
    630: "Run the cell again, or have an administrator raise the limit: "
    "alter warehouse … set statement_timeout_in_seconds = 3600.",
    **dict.fromkeys(
        (253001, 253002, 253003, 253006, 253007, 253008),
        "Look at the file that it names: its place, its name, and who may read it.",
    ),
    # as connector 5 says it, and 4.8
    **dict.fromkeys(
        (252005, 290403),
        "The addresses of rows expire after six hours. Run the cell again: it asks anew.",
    ),
    604: "Somebody, or a limit, cancelled it. Run the cell again.",
}

# connection whose session is lost -> the one that its reads go on with
SUCCESSORS: WeakKeyDictionary[SnowflakeConnection, SnowflakeConnection] = WeakKeyDictionary()


def connect(backend: str = "", database: str = "", **tag: str) -> SnowflakeConnection:
    """A connection to the stand-in ("local", started if needed) or to your account ("snowflake").

    database: made the current one, with schema PUBLIC, if given. tag: what the work is, such as
    notebook and run, for the query history; it holds for later connections too.
    Raises ValueError for missing settings, LookupError for a database that does not exist.
    """
    backend = config.backend(backend)
    os.environ[TAG] = tagged(**tag)["QUERY_TAG"]
    connection = snowflake.connector.connect(**parameters(backend))
    if database:
        try:
            execute(connection, f"use schema {config.identifier(database)}.{SCHEMA}")
        except ProgrammingError as error:
            connection.close()
            raise LookupError(
                f"Database {database} cannot be used on backend {backend} ({error.msg}). "
                "Run notebook 01_set_up_snowflake first."
            ) from None
    return connection


def parameters(backend: str) -> dict[str, Any]:
    """Arguments for snowflake.connector.connect.

    They are the stand-in's, or come from connections.toml and the environment.
    """
    if backend == "local":
        import standin  # here: an account needs no stand-in

        return standin.connection_parameters() | {"session_parameters": tagged()}
    # without it the connector asks metadata addresses of three clouds where it runs
    os.environ.setdefault("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")
    return account_parameters()


def backend_of(connection: SnowflakeConnection) -> str:
    """The backend that a connection was made for: the stand-in alone is on this machine."""
    return "local" if connection.host == "127.0.0.1" else "snowflake"


@contextmanager
def advised() -> Generator[None, None, None]:
    """Adds to what Snowflake says what to do about it."""
    try:
        yield
    except Error as error:
        advice = ADVICE.get(error.errno, NO_ANSWER if isinstance(error, OperationalError) else "")
        if advice not in str(error.msg):  # a read that is repeated passes here twice
            error.msg = f"{error.msg} {advice}"
        raise


@contextmanager
def reading(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> Generator[SnowflakeCursor, None, None]:
    """A cursor with the rows of one SELECT; in another session where the connection's is lost.

    Only reads are repeated: a write may be part of a transaction that went with the session,
    so writes go on failing.
    """
    with advised(), _executed(connection, sql, values) as cursor:
        yield cursor


def _executed(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None
) -> SnowflakeCursor:
    cursor = SUCCESSORS.get(connection, connection).cursor()
    try:
        return cursor.execute(sql, values)
    except Error as error:
        cursor.close()
        if error.errno not in LOST_SESSION:
            raise
    successor = connect(backend_of(connection), connection.database or "")
    SUCCESSORS[connection] = successor  # for later reads too
    # nobody else knows of it, so it ends with the one that it follows
    finalize(connection, successor.close, retry=False)
    return successor.cursor().execute(sql, values)


def execute(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> list[tuple]:
    """All rows of one statement; values are bound, never formatted into it."""
    with advised(), connection.cursor() as cursor:
        return cursor.execute(sql, values).fetchall()


def query(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> pd.DataFrame:
    """The rows of one SELECT as a table."""
    with reading(connection, sql, values) as cursor:
        return cursor.fetch_pandas_all()


def describe(connection: SnowflakeConnection) -> str:
    """One sentence for the notebooks: backend, database and role of a connection; no secret."""
    database, schema, role = execute(
        connection, "select current_database(), current_schema(), current_role()"
    )[0]
    place = {"local": "local stand-in for Snowflake"}.get(
        backend_of(connection), f"Snowflake account {connection.account}"
    )
    return f"Connected to the {place}, database {database}, schema {schema}, role {role}."
