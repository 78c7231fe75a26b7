"""Stages: their folders, the files in them, and what is known of each stage."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING
from urllib.parse import quote

from standin import keys
from standin.errors import SqlError, compilation_error, does_not_exist
from standin.names import StageName

if TYPE_CHECKING:
    import duckdb

# fakesnow's own table, which its SHOW STAGES reads; what that has no column for is in DETAIL.
TABLE = "_fs_global._fs_information_schema._fs_stages"
DETAIL = "_fs_global.standin.stage_detail"
THIS_STAGE = "(database_name, schema_name, name) = (?, ?, ?)"
SERVER_SIDE = "SNOWFLAKE_SSE"
OF_SESSION = "\x1f"  # between a temporary stage's name and its session: nobody names it so
TABLES_SQL = f"""
    create schema if not exists _fs_global.standin;
    create table if not exists {DETAIL} (
        database_name text, schema_name text, name text, encryption text, owner_session text
    );
"""


@dataclass(frozen=True)
class Stage:
    """One stage. url: '' for an internal one. owner_session: of a temporary stage, else ''."""

    name: StageName
    url: str = ""
    directory: bool = False
    encryption: str = ""
    owner_session: str = ""
    comment: str = ""
    storage_integration: str = ""
    has_credentials: bool = False

    @property
    def shown(self) -> str:
        """Its name as SQL gave it; that of a temporary stage is kept with its session."""
        return self.name.name.partition(OF_SESSION)[0]

    @property
    def readable_by_url(self) -> bool:
        """Whether signed URLs give the file's bytes: not where the client encrypts."""
        return bool(self.url) or self.encryption == SERVER_SIDE


@dataclass(frozen=True)
class StagedFile:
    """One file. path: its key, below its stage. size: bytes."""

    path: str
    size: int
    modified: dt.datetime
    md5: str


def temporary_name(name: StageName, session: str) -> StageName:
    """What a session's temporary stage is kept under: each session has its own of a name."""
    return StageName(name.database, name.schema, f"{name.name}{OF_SESSION}{session}")


class StageStore:
    """All stages below one folder, and their records in the catalogue."""

    def __init__(self, root: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.root = root
        self._connection = connection
        # By size and time of change: a refresh need not read every file again.
        self._hashes: dict[Path, tuple[int, int, str]] = {}
        # Every download asks for its stage, and they come by the thousand.
        self._found: dict[StageName, Stage] = {}
        connection.execute(TABLES_SQL)
        keys.adopt(root / "stages")

    def query(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        """Run on a cursor of its own, so outside any session's transaction.

        A rollback undoes no stage and no file in Snowflake either.
        """
        with self.cursor() as cursor:
            return cursor.execute(sql, values).fetchall()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of one's own to the same databases; to be closed after use."""
        return self._connection.cursor()

    def create(self, stage: Stage) -> None:
        """Note a stage; its folder comes with the first file."""
        kind = "EXTERNAL" if stage.url else "INTERNAL"
        kind += " TEMPORARY" if stage.owner_session else ""
        kind += " NO CSE" if stage.encryption == SERVER_SIDE else ""
        self.query(
            f"insert into {TABLE} (created_on, name, database_name, schema_name, url,"
            " has_credentials, has_encryption_key, owner, comment, type, cloud,"
            " storage_integration, owner_role_type, directory_enabled)"
            " values (now(), ?, ?, ?, ?, ?, 'N', 'SYSADMIN', ?, ?, ?, ?, 'ROLE', ?)",
            [
                stage.name.name,
                stage.name.database,
                stage.name.schema,
                stage.url,
                "Y" if stage.has_credentials else "N",
                stage.comment,
                kind,
                "AWS" if stage.url else None,
                stage.storage_integration or None,
                "Y" if stage.directory else "N",
            ],
        )
        self.query(
            f"insert into {DETAIL} values (?, ?, ?, ?, ?)",
            [*stage.name.parts, stage.encryption, stage.owner_session],
        )

    def find(self, name: StageName, session: str = "") -> Stage | None:
        """The stage of that name: the session's own temporary one comes before any other."""
        own = [temporary_name(name, session)] if session else []
        for known in (*own, name):
            stage = self._found.get(known) or self._read(known)
            if stage:
                self._found[known] = stage
                return stage
        return None

    def _read(self, name: StageName) -> Stage | None:
        rows = self.query(
            "select s.url, s.directory_enabled = 'Y', coalesce(d.encryption, ''),"
            " coalesce(d.owner_session, ''), s.comment, coalesce(s.storage_integration, ''),"
            f" s.has_credentials = 'Y' from {TABLE} s left join {DETAIL} d"
            f" using (database_name, schema_name, name) where {THIS_STAGE}",
            list(name.parts),
        )
        return Stage(name, *rows[0]) if rows else None

    def get(self, name: StageName, session: str = "") -> Stage:
        """As find(), but a missing stage is an SQL error."""
        stage = self.find(name, session)
        if stage is None:
            raise does_not_exist("Stage", str(name))
        return stage

    def set_directory(self, name: StageName, enabled: bool) -> None:
        """Give a stage a directory table, or take it away."""
        self.query(
            f"update {TABLE} set directory_enabled = ? where {THIS_STAGE}",
            ["Y" if enabled else "N", *name.parts],
        )
        self._found.pop(name, None)

    def drop(self, stage: Stage) -> None:
        """Forget a stage; the files of an internal one go with it."""
        self._found.pop(stage.name, None)
        for table in (TABLE, DETAIL):
            self.query(f"delete from {table} where {THIS_STAGE}", list(stage.name.parts))
        if not stage.url:
            shutil.rmtree(self.folder(stage), ignore_errors=True)

    def names(self, database: str | None = None, schema: str | None = None) -> list[StageName]:
        """The stages of a schema, of a database, or all."""
        rows = self.query(
            f"select database_name, schema_name, name from {TABLE}"
            " where database_name = coalesce(?, database_name)"
            " and schema_name = coalesce(?, schema_name)",
            [database, schema],
        )
        return [StageName(*row) for row in rows]

    def temporary_names(self, session: str | None = None) -> list[StageName]:
        """Temporary stages of one session, or of all."""
        rows = self.query(
            f"select database_name, schema_name, name from {DETAIL}"
            " where owner_session <> '' and owner_session = coalesce(?, owner_session)",
            [session],
        )
        return [StageName(*row) for row in rows]

    def folder(self, stage: Stage) -> Path:
        """Where its files are: an external stage's bucket is a folder below external/."""
        if stage.url:
            address = re.sub(r"^\w+://", "", stage.url)
            parts = [quote(part, safe=" ") for part in address.split("/") if part]
            if any(part in (".", "..") for part in parts):
                raise compilation_error(f"invalid URL '{stage.url}'")
            return self.root.joinpath("external", *parts)
        return self.root.joinpath("stages", *stage.name.url_part.split("/"))

    def resolve(self, stage: Stage, key: str) -> Path:
        """Where the file of that key is, or would be; an SQL error if there can be none."""
        keys.check(key)
        folder = self.folder(stage)
        if not stage.url:
            return folder / keys.FOLDER / keys.written(key)
        target = (folder / key).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise SqlError(f"Path '{key}' leaves the stage {stage.name}.", 253003, "22023")
        return target

    def files(self, stage: Stage, prefix: str = "") -> Iterator[StagedFile]:
        """Its files whose key begins with prefix, in order of their keys."""
        folder = self.folder(stage) if stage.url else self.folder(stage) / keys.FOLDER
        found = keys.paths_below(folder)
        by_key = {path if stage.url else keys.read(path): path for path in found}
        for key in sorted(key for key in by_key if key.startswith(prefix)):
            path = folder / by_key[key]
            with suppress(FileNotFoundError):  # removed just now
                info = path.stat()
                if S_ISREG(info.st_mode):
                    modified = dt.datetime.fromtimestamp(int(info.st_mtime), dt.UTC)
                    md5 = self._md5(path, info.st_size, info.st_mtime_ns)
                    yield StagedFile(key, info.st_size, modified, md5)

    def remove(self, stage: Stage, path: str) -> None:
        """Delete one file."""
        file = self.resolve(stage, path)
        file.unlink(missing_ok=True)
        self._hashes.pop(file, None)

    def _md5(self, path: Path, size: int, modified_ns: int) -> str:
        known = self._hashes.get(path)
        if known and known[:2] == (size, modified_ns):
            return known[2]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        self._hashes[path] = (size, modified_ns, digest)
        return digest
