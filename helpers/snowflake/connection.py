"""Connect to Snowflake or its local stand-in, run statements and SQL files."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary, finalize

import pandas as pd
import snowflake.connector
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error, ProgrammingError

from helpers import config
from helpers.snowflake.login import TAG, account_parameters, tagged

SCHEMA = "PUBLIC"

LOST_SESSION = {390104, 390111, 390112, 390114}
# The connector's own numbers: what Snowflake says of a statement may quote any text.
OWN = r"^(None|-1|\d\d?|2[59]\d{4}):.*"
# how number and text of an error show its cause -> what to do about it; the first that fits
ADVICE = {
    r"^390(104|111|112|114):": "The session is gone. Run the notebook again: what was written is "
    "found.",
    r"^(606|607|90073):": "Name a warehouse in SNOWFLAKE_WAREHOUSE, "
    "or have an administrator resume it or raise its limit.",
    # the lower one of warehouse and session counts, and the role cannot change the warehouse's
    r"^630:": "Run the cell again, or have an administrator raise the limit: "
    "alter warehouse … set statement_timeout_in_seconds = 3600.",
    r"^604:": "Somebody, or a limit, cancelled it. Run the cell again.",
    rf"^39010[12]:|{OWN}temporarily locked": "Wait 15 minutes, or have an administrator let the "
    "user in: alter user … set disabled = false mins_to_unlock = 0.",
    rf"^390(420|422|432):|{OWN}not allowed to access Snowflake": "Have an administrator let this "
    "machine's address in, by a network policy of the user.",
    rf"^390(186|189):|{OWN}Role .* not granted": "Set SNOWFLAKE_ROLE to a role of the user.",
    rf"^39(0100|0144|0303|0318|4\d{{3}}):|{OWN}(Incorrect username|JWT token)": "Look at user, "
    "account and credential; a key's public half must be the user's RSA_PUBLIC_KEY.",
    # a large result comes in parts; as connector 5 says it, and 4.8
    r"^(252005|252010|255005|290403):": "The addresses of rows expire after six hours. Run the "
    "cell again: it asks anew.",
    rf"{OWN}HTTP (status:? )?40[34]\b": "The stage's storage refuses it. Look at the file's name, "
    "whether the stage is there, and whether a network policy keeps this machine from it.",
    rf"{OWN}(HTTP request failed|[Cc]onnection (refused|reset|aborted|closed)|timed out"
    r"|Max retries|Could not connect|dns error)|^(25000[35]|25101[12]|29\d{4}):": "Snowflake does "
    "not answer, also after retries. Look at the network and its proxy, and run the cell again; "
    "a stand-in that has ended is started by the cell that connects.",
    r"No space left|os error 28\b": "The disk is full: make clean, or set TUTORIAL_HOME or TMPDIR "
    "to another one.",
    rf"^25300\d:|{OWN}(os error \d+\b|No such file|Permission denied)": "Look at the file that it "
    "names: its place, its name, and who may read it.",
}

# connection whose session is lost -> the one that its reads go on with
SUCCESSORS: WeakKeyDictionary[SnowflakeConnection, SnowflakeConnection] = WeakKeyDictionary()


@contextmanager
def advised() -> Generator[None, None, None]:
    """Adds to what Snowflake says what to do about it."""
    try:
        yield
    except Error as error:
        advice = next(
            (
                remedy
                for cause, remedy in ADVICE.items()
                if re.search(cause, f"{error.errno}: {error.msg}", re.S)
            ),
            "",
        )
        if advice not in str(error.msg):  # a read that is repeated passes here twice
            error.msg = f"{error.msg} {advice}"
        raise


@advised()
def connect(backend: str = "", database: str = "", **tag: str) -> SnowflakeConnection:
    """A connection to the stand-in ("local", started if needed) or to your account ("snowflake").

    database: made the current one, with schema PUBLIC, if given. tag: what the work is, such as
    notebook and run, for the query history; it holds for later connections too.
    Raises ValueError for missing settings, LookupError for a database that does not exist.
    """
    backend = config.backend(backend)
    os.environ[TAG] = tagged(**tag)["QUERY_TAG"]
    connection = snowflake.connector.connect(**parameters(backend))
    if backend == "snowflake":
        with suppress(ProgrammingError):  # a restricted session has one role already
            execute(connection, "use secondary roles none")  # nothing but what the role may do
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
    """The rows of one SELECT as a table; from another session where the connection's is lost.

    Only reads are repeated: a write may be part of a transaction that went with the session,
    so writes go on failing.
    """
    with advised(), _executed(connection, sql, values) as cursor:
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
