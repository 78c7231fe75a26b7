"""Connect to Snowflake or its local stand-in, run SQL files, list images, sign URLs."""

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import snowflake.connector
from snowflake.connector.errors import Error, OperationalError, ProgrammingError
from snowflake.connector.util_text import split_statements

from helpers import config
from helpers.login import account_parameters

SCHEMA = "PUBLIC"
SIGNED_AT_ONCE = 1000  # paths in one statement, whose text Snowflake limits to 1 MB
DOES_NOT_EXIST = {2003, 2043}
LOST_SESSION = {390104, 390111, 390112, 390114}
NO_ANSWER = "Snowflake does not answer, also after retries. Look at the network, and run the cell again."
NO_WAREHOUSE = "Name a warehouse in SNOWFLAKE_WAREHOUSE, or have an administrator resume it or raise its limit."
TOO_LONG = "Run the cell again, or first: alter session set statement_timeout_in_seconds = 3600."
ADVICE = dict.fromkeys(LOST_SESSION, "The session is gone. Run the notebook again: what was written is found.")
ADVICE |= dict.fromkeys((606, 607, 90073), NO_WAREHOUSE) | dict.fromkeys((604, 630), TOO_LONG)


def connect(backend: str = "", database: str = ""):
    """A connection to the stand-in ("local", started if needed) or to your account ("snowflake").

    database: made the current one, with schema PUBLIC, if given. Raises ValueError for missing settings,
    LookupError for a database that does not exist.
    """
    backend = config.backend(backend)
    os.environ.setdefault("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")  # no probes of cloud metadata addresses
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
        from helpers import sandbox  # here: an account needs no stand-in

        return sandbox.connection_parameters()
    return account_parameters()


def backend_of(connection) -> str:
    """The backend that a connection was made for: the stand-in is the one on this machine's own address."""
    return "local" if connection.host == "127.0.0.1" else "snowflake"


@contextmanager
def _advised() -> Iterator[None]:
    """Adds to what Snowflake says what to do about it."""
    try:
        yield
    except Error as error:
        advice = ADVICE.get(error.errno) or (NO_ANSWER if isinstance(error, OperationalError) else "")
        if advice not in str(error.msg):  # a read that is repeated passes here twice
            error.msg = f"{error.msg} {advice}"
        raise


@contextmanager
def _reading(connection, sql: str, values: tuple | dict | None = None) -> Iterator:
    """A cursor with the rows of one SELECT; on a session of its own where that of the connection is lost.

    Only reads are repeated: a write may be part of a transaction that went with the session.
    """
    with _advised(), ExitStack() as stack:
        cursor = stack.enter_context(connection.cursor())
        try:
            cursor.execute(sql, values)
        except Error as error:
            if error.errno not in LOST_SESSION:
                raise
            fresh = stack.enter_context(connect(backend_of(connection), connection.database))
            cursor = stack.enter_context(fresh.cursor())
            cursor.execute(sql, values)
        yield cursor


def execute(connection, sql: str, values: tuple | dict | None = None) -> list[tuple]:
    """All rows of one statement; values are bound, never formatted into it."""
    with _advised(), connection.cursor() as cursor:
        return cursor.execute(sql, values).fetchall()


def query(connection, sql: str, values: tuple | dict | None = None) -> pd.DataFrame:
    """The rows of one SELECT as a table."""
    with _reading(connection, sql, values) as cursor:
        return cursor.fetch_pandas_all()


def run_file(connection, path: Path | str, **variables: str) -> dict[str, pd.DataFrame]:
    """Run a SQL file statement by statement; a `set name = …` in it takes the value given here instead.

    Returns each statement's rows by its text. Raises ProgrammingError that names file and statement.
    """
    path, results = config.PROJECT_ROOT / path, {}
    for statement, _ in split_statements(io.StringIO(path.read_text()), remove_comments=True):
        statement = statement.strip().rstrip(";").strip()
        if not statement:
            continue
        name = re.match(r"set\s+(\w+)\s*=", statement, re.IGNORECASE)
        value = variables.get(name[1]) if name else None
        try:
            with _advised(), connection.cursor() as cursor:
                cursor.execute(f"set {name[1]} = %s" if value else statement, (value,) if value else None)
                columns = [column.name for column in cursor.description or []]
                results[statement] = pd.DataFrame(cursor.fetchall(), columns=columns)
        except ProgrammingError as error:
            raise ProgrammingError(f"{path.name}, in “{statement[:70]}”: {error.msg}", errno=error.errno) from None
    return results


def list_files(connection, table: str, path_column: str, stage: str) -> list[tuple[str, int, str]]:
    """(relative path, size in bytes, etag) of the table's images that are on the stage, by path.

    Raises LookupError if the table or the stage does not exist.
    """
    frames = list_images(connection, table, stage, path_column=path_column)
    return [
        row for frame in frames for row in frame[["RELATIVE_PATH", "SIZE", "ETAG"]].itertuples(index=False, name=None)
    ]


def list_images(
    connection, table: str, stage: str, *, path_column: str = "RELATIVE_PATH", not_by_model: str = ""
) -> Iterator[pd.DataFrame]:
    """FILE_URL, RELATIVE_PATH, SIZE and ETAG of the table's images that are on the stage, in chunks, by path.

    not_by_model: leave out what has a prediction, and clothing_prediction_log has it from the model of this digest,
    for this ETAG.
    Raises LookupError if the table or the stage does not exist.
    """
    sql = (
        f"select d.file_url, d.relative_path, d.size, d.etag "
        f"from {config.identifier(table)} as t join directory(@{config.identifier(stage)}) as d "
        f"on d.relative_path = t.{config.identifier(path_column)} "
    )
    if not_by_model:
        sql += (
            "where t.pred_timestamp is null or not exists (select 1 "
            "from clothing_prediction_log as l where l.relative_path = d.relative_path "
            "and l.etag = d.etag and l.model_digest = %s) "
        )
    values = (not_by_model,) if not_by_model else None
    try:
        with _reading(connection, sql + "order by d.relative_path", values) as cursor:
            yield from cursor.fetch_pandas_batches()
    except ProgrammingError as error:
        if error.errno in DOES_NOT_EXIST:
            raise LookupError(f"{error.msg} Run notebook 01_set_up_snowflake first.") from None
        raise


def sign_urls(connection, stage: str, paths: list[str], seconds: int = 3600) -> list[str]:
    """A signed URL for each path on the stage, in order, each good for `seconds` (at most 604800)."""
    sql = (
        f"select get_presigned_url(@{config.identifier(stage)}, f.value::varchar, {int(seconds)}) "
        "from table(flatten(input => parse_json(%s))) as f order by f.index"
    )
    chunks = [paths[i : i + SIGNED_AT_ONCE] for i in range(0, len(paths), SIGNED_AT_ONCE)]
    urls = []
    for chunk in chunks:
        urls += query(connection, sql, (json.dumps(chunk),)).iloc[:, 0].tolist()
    return urls


def where(connection, backend: str) -> str:
    """One sentence for the notebooks: which backend, database and role a connection uses; no secret in it."""
    database, schema, role = execute(connection, "select current_database(), current_schema(), current_role()")[0]
    place = "the local stand-in for Snowflake" if backend == "local" else f"the Snowflake account {connection.account}"
    return f"Connected to {place}, database {database}, schema {schema}, role {role}."
