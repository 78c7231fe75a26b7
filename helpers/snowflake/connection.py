"""Connect to Snowflake or its local stand-in, run statements and SQL files."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import pandas as pd
import snowflake.connector
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error, OperationalError, ProgrammingError
from snowflake.connector.util_text import split_statements

from helpers import config
from helpers.snowflake.login import account_parameters

SCHEMA = "PUBLIC"
NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)  # of a statement in a SQL file
COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
SETTING = re.compile(r"set\s+(\w+)\s*=", re.IGNORECASE)
LOST_SESSION = {390104, 390111, 390112, 390114}
NO_ANSWER = (
    "Snowflake does not answer, also after retries. Look at the network, and run the cell again."
)
NO_WAREHOUSE = "Name a warehouse in SNOWFLAKE_WAREHOUSE, or have an administrator resume it or raise its limit."
TOO_LONG = "Run the cell again, or first: alter session set statement_timeout_in_seconds = 3600."
ADVICE = dict.fromkeys(
    LOST_SESSION, "The session is gone. Run the notebook again: what was written is found."
)
ADVICE |= dict.fromkeys((606, 607, 90073), NO_WAREHOUSE) | dict.fromkeys((604, 630), TOO_LONG)
# connection whose session is lost -> the one that its reads go on with
SUCCESSORS: WeakKeyDictionary[SnowflakeConnection, SnowflakeConnection] = WeakKeyDictionary()


def connect(backend: str = "", database: str = "") -> SnowflakeConnection:
    """A connection to the stand-in ("local", started if needed) or to your account ("snowflake").

    database: made the current one, with schema PUBLIC, if given. Raises ValueError for missing settings,
    LookupError for a database that does not exist.
    """
    backend = config.backend(backend)
    os.environ.setdefault(
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true"
    )  # no probes of cloud metadata addresses
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


def parameters(backend: str) -> dict:
    """Arguments for snowflake.connector.connect, for the stand-in or from connections.toml and the environment."""
    if backend == "local":
        import standin  # here: an account needs no stand-in

        return standin.connection_parameters()
    return account_parameters()


def backend_of(connection: SnowflakeConnection) -> str:
    """The backend that a connection was made for: the stand-in is the one on this machine's own address."""
    return "local" if connection.host == "127.0.0.1" else "snowflake"


@contextmanager
def _advised() -> Iterator[None]:
    """Adds to what Snowflake says what to do about it."""
    try:
        yield
    except Error as error:
        advice = ADVICE.get(error.errno) or (
            NO_ANSWER if isinstance(error, OperationalError) else ""
        )
        if advice not in str(error.msg):  # a read that is repeated passes here twice
            error.msg = f"{error.msg} {advice}"
        raise


@contextmanager
def reading(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> Iterator[SnowflakeCursor]:
    """A cursor with the rows of one SELECT; in a session of its own where the connection's is lost.

    Only reads are repeated: a write may be part of a transaction that went with the session, so writes go on failing.
    """
    with _advised(), _executed(connection, sql, values) as cursor:
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
    successor = connect(backend_of(connection), connection.database)
    SUCCESSORS[connection] = successor  # later reads need no log-in of their own
    return successor.cursor().execute(sql, values)


def execute(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> list[tuple]:
    """All rows of one statement; values are bound, never formatted into it."""
    with _advised(), connection.cursor() as cursor:
        return cursor.execute(sql, values).fetchall()


def query(
    connection: SnowflakeConnection, sql: str, values: tuple | dict | None = None
) -> pd.DataFrame:
    """The rows of one SELECT as a table."""
    with reading(connection, sql, values) as cursor:
        return cursor.fetch_pandas_all()


def run_file(
    connection: SnowflakeConnection, path: Path | str, **variables: str
) -> dict[str, pd.DataFrame]:
    """Run a SQL file statement by statement; a `set name = …` in it takes the value given here instead.

    path: below the project's root. Returns the rows of each statement that has a name, which a comment above it
    gives: `-- name: merged`. Raises ProgrammingError that names file and statement.
    """
    path = config.PROJECT_ROOT / path
    results = {}
    for written, _ in split_statements(io.StringIO(path.read_text())):
        named = NAME.search(written)
        statement = COMMENT.sub("", written).strip().rstrip(";")
        if not statement:
            continue
        values = None
        setting = SETTING.match(statement)
        if setting and setting[1] in variables:
            statement = f"set {setting[1]} = %s"
            values = (variables[setting[1]],)
        try:
            with _advised(), connection.cursor() as cursor:
                cursor.execute(statement, values)
                if named:
                    columns = [column.name for column in cursor.description]
                    results[named[1]] = pd.DataFrame(cursor.fetchall(), columns=columns)
        except ProgrammingError as error:
            raise ProgrammingError(
                f"{path.name}, in “{statement[:70]}”: {error.msg}", errno=error.errno
            ) from None
    return results


def describe(connection: SnowflakeConnection) -> str:
    """One sentence for the notebooks: which backend, database and role a connection uses; no secret in it."""
    database, schema, role = execute(
        connection, "select current_database(), current_schema(), current_role()"
    )[0]
    local = backend_of(connection) == "local"
    place = (
        "the local stand-in for Snowflake"
        if local
        else f"the Snowflake account {connection.account}"
    )
    return f"Connected to {place}, database {database}, schema {schema}, role {role}."
