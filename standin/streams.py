"""Streams on stages: what a directory table has gained and lost since a statement last used it.

fakesnow has none. A stream keeps the directory table as it was: its offset. It moves on when a
statement that reads the stream and changes rows is committed, as in Snowflake.
"""

from __future__ import annotations

import pyarrow as pa

from standin import directory
from standin.errors import ALREADY_EXISTS, compilation_error, does_not_exist
from standin.names import StageName
from standin.results import Result, status
from standin.stages import StageStore
from standin.text import literal

TABLE = "_fs_global.standin.stream"
SEEN = "_fs_global.standin.stream_seen"
COLUMNS = ", ".join(f'"{column}"' for column in directory.COLUMNS)
TABLES_SQL = f"""
    create table if not exists {TABLE} (NAME text, STAGE text);
    create table if not exists {SEEN} as
        select NAME, D.* exclude (STAGE) from {TABLE}, {directory.TABLE} as D where false;
"""


class Streams:
    """All streams, in two tables of the catalogue."""

    def __init__(self, store: StageStore) -> None:
        self._store = store
        store.query(TABLES_SQL)

    def names(self) -> dict[str, str]:
        """The stage of each stream."""
        return dict(self._store.query(f"select NAME, STAGE from {TABLE}"))

    def create(self, name: StageName, stage: StageName, replace: bool, keep: bool) -> Result:
        """It begins with the directory table of now: what is there already is not new."""
        if str(name) in self.names():
            if keep:
                return status(f"{name.name} already exists, statement succeeded.")
            if not replace:
                raise compilation_error(f"Object '{name}' already exists.", ALREADY_EXISTS, "42710")
            self.drop(name, if_exists=True)
        self._store.query(f"insert into {TABLE} values (?, ?)", [str(name), str(stage)])
        self.advance(str(name), self.snapshot(str(stage)))
        return status(f"Stream {name.name} successfully created.")

    def drop(self, name: StageName, if_exists: bool) -> Result:
        """Leave nothing of a stream."""
        if str(name) not in self.names() and not if_exists:
            raise does_not_exist("Stream", str(name))
        for table in (TABLE, SEEN):
            self._store.query(f"delete from {table} where NAME = ?", [str(name)])
        return status(f"{name.name} successfully dropped.")

    def has_data(self, name: StageName) -> bool:
        """SYSTEM$STREAM_HAS_DATA."""
        if str(name) not in self.names():
            raise does_not_exist("Stream", str(name))
        return bool(self._store.query(f"select 1 from ({self.changes_sql(str(name))}) limit 1"))

    def changes_sql(self, name: str) -> str:
        """A SELECT of what has changed since the offset, with the three columns of metadata."""
        now = f"from {directory.TABLE} where STAGE = {literal(self.names()[name])}"
        seen = f"from {SEEN} where NAME = {literal(name)}"
        return " union all ".join(
            f"select {COLUMNS}, '{action}' as \"METADATA$ACTION\","
            f' "RELATIVE_PATH" in (select RELATIVE_PATH {other}) as "METADATA$ISUPDATE",'
            f' md5("RELATIVE_PATH" || "ETAG") as "METADATA$ROW_ID"'
            f" from (select {COLUMNS} {one} except select {COLUMNS} {other})"
            for action, one, other in (("INSERT", now, seen), ("DELETE", seen, now))
        )

    def snapshot(self, stage: str) -> pa.Table:
        """A stage's directory table as it is now."""
        with self._store.cursor() as cursor:
            return cursor.execute(
                f"select {COLUMNS} from {directory.TABLE} where STAGE = ?", [stage]
            ).to_arrow_table()

    def advance(self, name: str, snapshot: pa.Table) -> None:
        """Put a stream's offset where the directory table was as in the snapshot."""
        with self._store.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute(f"delete from {SEEN} where NAME = ?", [name])
            cursor.register("snapshot", snapshot)
            cursor.execute(f"insert into {SEEN} select {literal(name)}, * from snapshot")
            cursor.execute("commit")
