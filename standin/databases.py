"""CREATE, DROP and USE of databases and schemas: one DuckDB file a database.

fakesnow attaches a database and stops there: no PUBLIC, no use of it, no schema but `main` after
USE DATABASE, and no end of the file after DROP.
"""

from __future__ import annotations

import re
from pathlib import Path

from fakesnow import info_schema, macros
from fakesnow.conn import FakeSnowflakeConnection

from standin.compat import quoted
from standin.errors import ALREADY_EXISTS, SqlError, compilation_error, does_not_exist, unsupported
from standin.names import RESERVED
from standin.results import Result, status

DEFAULT_SCHEMA = "PUBLIC"
DONE = "Statement executed successfully."


class Databases:
    """The database files of one folder, through one session's connection."""

    def __init__(self, folder: Path, connection: FakeSnowflakeConnection) -> None:
        self._folder = folder
        self._connection = connection
        self._duck = connection._duck_conn

    def exists(self, database: str, schema: str | None = None) -> bool:
        """Whether there is such a database, or such a schema in it."""
        sql = (
            "select 1 from information_schema.schemata where catalog_name = ?"
            " and schema_name = coalesce(?, schema_name) limit 1"
        )
        return bool(self._duck.execute(sql, [database, schema]).fetchall())

    def create(self, database: str, if_not_exists: bool) -> Result:
        """Make it and its schema PUBLIC, and use both, as Snowflake does."""
        if self.exists(database):
            if if_not_exists:
                return status(f"{database} already exists, statement succeeded.")
            raise compilation_error(f"Object '{database}' already exists.", ALREADY_EXISTS, "42710")
        if database.upper() in RESERVED or not re.fullmatch(r"[A-Z_][A-Z0-9_$]*", database):
            raise unsupported(f"a database named '{database}'; use A-Z, 0-9 and _")
        self._duck.execute(f"attach '{quoted(self._file(database))}' as \"{database}\"")
        # DuckDB holds what fakesnow adds to each database: its information schema and its macros.
        self._duck.execute("begin")
        self._duck.execute(info_schema.per_db_creation_sql(database))
        self._duck.execute(macros.creation_sql(database))
        self._duck.execute(f'create schema "{database}"."{DEFAULT_SCHEMA}"')
        self._duck.execute("commit")
        self.use(database, DEFAULT_SCHEMA)
        return status(f"Database {database} successfully created.")

    def drop(self, database: str, if_exists: bool) -> Result:
        """Detach it and delete its file, and DuckDB's log of changes beside it."""
        if not self.exists(database) or database.upper() in RESERVED:
            if if_exists:
                return status(f"Drop statement executed successfully ({database} already dropped).")
            raise does_not_exist("Database", database)
        if self._connection.database == database:
            self.leave()
        self._duck.execute(f'detach "{database}"')
        for file in (self._file(database), self._file(database).with_suffix(".db.wal")):
            file.unlink(missing_ok=True)
        return status(f"{database} successfully dropped.")

    def use(self, database: str, schema: str | None) -> Result:
        """schema: None for the database's PUBLIC, if it has one."""
        if not self.exists(database) or database.upper() in RESERVED:
            raise _cannot_use("Database", database)
        if schema is not None and not self.exists(database, schema):
            raise _cannot_use("Schema", f"{database}.{schema}")
        if schema is None and self.exists(database, DEFAULT_SCHEMA):
            schema = DEFAULT_SCHEMA
        self._duck.execute(f'set schema = \'"{database}"."{schema or "main"}"\'')
        self._set_current(database, schema)
        return status(DONE)

    def leave(self) -> None:
        """No current database any more."""
        self._duck.execute("set schema = 'memory.main'")
        self._set_current(None, None)

    def _set_current(self, database: str | None, schema: str | None) -> None:
        """fakesnow keeps the current names itself, and completes those in statements with them."""
        connection = self._connection
        connection.database = database
        connection._schema = schema
        connection.database_set = database is not None
        connection.schema_set = schema is not None

    def _file(self, database: str) -> Path:
        return self._folder / f"{database}.db"


def _cannot_use(kind: str, name: str) -> SqlError:
    return compilation_error(
        f"{kind} '{name}' does not exist or not authorized, or operation cannot be performed.",
        2043,
        "02000",
    )
