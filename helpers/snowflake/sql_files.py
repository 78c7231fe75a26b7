"""Run the numbered files of sql/ statement by statement; texts and paths in a statement."""

import glob
import io
import re
from pathlib import Path

import pandas as pd
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import ProgrammingError
from snowflake.connector.util_text import split_statements

from helpers import config
from helpers.snowflake.connection import advised, tagged

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)  # of a statement in a SQL file
COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
SETTING = re.compile(r"set\s+(\w+)\s*=", re.IGNORECASE)


def run_file(
    connection: SnowflakeConnection, path: Path | str, **variables: str | float
) -> dict[str, pd.DataFrame]:
    """Run a SQL file statement by statement.

    path: below the project's root. variables: a `set name = …` of the file takes the value given
    here instead. Returns the rows of each statement that has a name, which a comment above it
    gives: `-- name: merged`. The file is the step in each statement's tag.
    Raises ProgrammingError that names file and statement.
    """
    path = config.PROJECT_ROOT / path
    results = {}
    for written, _ in split_statements(io.StringIO(path.read_text())):
        statement = COMMENT.sub("", written).strip().rstrip(";")
        if not statement:
            continue
        statement, values = _set(statement, variables)
        try:
            with advised(), connection.cursor() as cursor:
                cursor.execute(statement, values, _statement_params=tagged(step=path.stem))
                named = NAME.search(written)
                if named:
                    results[named[1]] = _all_rows(cursor)
        except ProgrammingError as error:
            raise ProgrammingError(
                f"{path.name}, in “{statement[:70]}”: {error.msg}", errno=error.errno
            ) from None
    return results


def _set(statement: str, variables: dict[str, str | float]) -> tuple[str, tuple | None]:
    """The statement and the values to bind: for a `set` of one of the variables, its value."""
    setting = SETTING.match(statement)
    if setting and setting[1] in variables:
        return f"set {setting[1]} = %s", (variables[setting[1]],)
    return statement, None


def _all_rows(cursor: SnowflakeCursor) -> pd.DataFrame:
    """Of a cursor whose statement is no SELECT and so has no Arrow batches."""
    columns = [column.name for column in cursor.description or ()]
    return pd.DataFrame(cursor.fetchall(), columns=columns)


def literal(text: str) -> str:
    """A text as SQL writes it, where a statement takes no bound value.

    >>> literal("it's")
    "'it\\\\'s'"
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def local_files(folder: Path, pattern: str) -> str:
    """The files of a local folder that a glob names, as PUT takes them.

    The glob is `pattern` alone: the folder may have any characters.

    >>> local_files(Path("/my [old] work"), "*.jpg")
    "'file:///my [[]old] work/*.jpg'"
    """
    return literal(f"file://{glob.escape(folder.as_posix())}/{pattern}")
