"""Directory tables: what ALTER STAGE … REFRESH saw, until the next refresh.

fakesnow has none. A table of the catalogue, not a look at the folder: in Snowflake a directory
table is as stale as its last refresh, and whoever forgets to refresh must see that here.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from standin.names import StageName
from standin.signing import file_url
from standin.stages import Stage, StagedFile, StageStore

TABLE = "_fs_global.standin.directory"
COLUMNS = ("RELATIVE_PATH", "SIZE", "LAST_MODIFIED", "MD5", "ETAG", "FILE_URL")
TABLE_SQL = f"""
    create table if not exists {TABLE} (
        STAGE text, RELATIVE_PATH text, SIZE bigint, LAST_MODIFIED timestamptz,
        MD5 text, ETAG text, FILE_URL text
    )
"""


@dataclass(frozen=True)
class Change:
    """What a refresh found out about one file."""

    file: str
    status: str
    description: str


class DirectoryTables:
    """The directory tables of all stages, in one table of the catalogue."""

    def __init__(self, store: StageStore) -> None:
        self._store = store
        store.query(TABLE_SQL)

    def refresh(self, stage: Stage, prefix: str = "") -> list[Change]:
        """Bring a stage's directory table in line with its files; what has changed."""
        key = str(stage.name)
        old = self._known(key, prefix)
        new = {file.path: file for file in self._store.files(stage, prefix)}
        changes = [
            _registered(path, path in old)
            for path, file in new.items()
            if old.get(path) != _seen(file)
        ]
        gone = [path for path in old if path not in new]
        changes += [
            Change(path, "UNREGISTERED", "File unregistered successfully.") for path in gone
        ]
        if changes:
            self._replace(stage.name, prefix, list(new.values()))
        return changes

    def drop_stages(self, names: list[StageName]) -> None:
        """Drop stages with their directory tables."""
        for name in names:
            stage = self._store.find(name)
            if stage:
                self._store.drop(stage)
                self._store.query(f"delete from {TABLE} where STAGE = ?", [str(name)])

    def _known(self, key: str, prefix: str) -> dict[str, tuple]:
        """Size, time (whole seconds, as _seen() has it) and MD5 by path, as of the last refresh."""
        sql = (
            f"select RELATIVE_PATH, SIZE, epoch(LAST_MODIFIED)::bigint, MD5 from {TABLE}"
            " where STAGE = ? and starts_with(RELATIVE_PATH, ?)"
        )
        return {row[0]: row[1:] for row in self._store.query(sql, [key, prefix])}

    def _replace(self, name: StageName, prefix: str, files: list[StagedFile]) -> None:
        with self._store.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute(
                f"delete from {TABLE} where STAGE = ? and starts_with(RELATIVE_PATH, ?)",
                [str(name), prefix],
            )
            cursor.register("refreshed_files", _as_table(name, files))  # all rows in one statement
            cursor.execute(f"insert into {TABLE} select * from refreshed_files")
            cursor.execute("commit")


def _registered(path: str, known: bool) -> Change:
    status = "REGISTERED_UPDATE" if known else "REGISTERED_NEW"
    return Change(path, status, "File registered successfully.")


def _seen(file: StagedFile) -> tuple:
    return (file.size, int(file.modified.timestamp()), file.md5)


def _as_table(name: StageName, files: list[StagedFile]) -> pa.Table:
    digests = [file.md5 for file in files]
    return pa.table(
        {
            "STAGE": pa.array([str(name)] * len(files), pa.string()),
            "RELATIVE_PATH": pa.array([file.path for file in files], pa.string()),
            "SIZE": pa.array([file.size for file in files], pa.int64()),
            "LAST_MODIFIED": pa.array(
                [file.modified for file in files], pa.timestamp("us", tz="UTC")
            ),
            "MD5": pa.array(digests, pa.string()),
            "ETAG": pa.array(digests, pa.string()),
            "FILE_URL": pa.array(
                [file_url(name.url_part, file.path) for file in files], pa.string()
            ),
        }
    )
