"""Bring a stage in line with a folder of images."""

import hashlib
import posixpath
import re
import tempfile
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from snowflake.connector import SnowflakeConnection

from helpers import config
from helpers.folders import first, walk
from helpers.snowflake.connection import execute
from helpers.snowflake.sql_files import literal, local_files

TARGET = 1  # the column of PUT's answer with the name on the stage
STATUS = 6  # and the one that says what became of a file
REMOVED_AT_ONCE = 100  # paths in the pattern of one statement


@dataclass(frozen=True)
class Changes:
    """Paths relative to the stage that a sync put, removed, or found in place.

    >>> print(Changes(added=["hat/1.jpg"], changed=[], removed=[], unchanged=3))
    1 added, 0 changed, 0 removed, 3 unchanged
    """

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    left_out: str = ""  # what of the folder is not taken along, as a sentence

    def __str__(self) -> str:
        return (
            f"{len(self.added)} added, {len(self.changed)} changed, "
            f"{len(self.removed)} removed, {self.unchanged} unchanged{self.left_out}"
        )


def sync(connection: SnowflakeConnection, folder: Path, stage: str) -> Changes:
    """PUT what is new or changed in `folder`, then REMOVE what is gone from it.

    Nothing is removed before LIST has all that was put under its own name; what is there and
    cannot be read is not gone. Safe to run again after a failure. Raises ValueError for names that
    would not arrive, OSError for files that PUT or REMOVE passed over.
    """
    images = walk(folder)
    local = images.files
    staged = listing(connection, stage)
    added = [path for path in local if path not in staged]
    changed = [path for path in local if path in staged and not _same(local[path], *staged[path])]
    if added or changed:
        _put(connection, stage, {path: local[path] for path in added + changed})
        staged = listing(connection, stage)
        _require_all("LIST does not have", local, staged)
    for path in [*added, *changed][:1]:  # else each sync would send all again
        if not _same(local[path], *staged[path]):
            warnings.warn(f"LIST's MD5 of @{stage}/{path} is not the file's.", stacklevel=2)
    # what is there and cannot be read is not gone
    gone = [path for path in staged if path not in local and not _is_below(path, images.left_out)]
    _remove(connection, stage, gone)
    left_out = f"; {images}" if images.left_out else ""
    return Changes(added, changed, gone, len(local) - len(added) - len(changed), left_out)


def listing(connection: SnowflakeConnection, stage: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and MD5 of each file on an internal stage, by its path there."""
    rows = execute(connection, f"list @{config.identifier(stage)}")
    return {name.partition("/")[2]: (size, md5) for name, size, md5, *_ in rows}


def _same(path: Path, size: int, md5: str) -> bool:
    return path.stat().st_size == size and hashlib.md5(path.read_bytes()).hexdigest() == md5


def _is_below(path: str, folders: Collection[str]) -> bool:
    return any(place in folders for place in (path, *map(str, PurePosixPath(path).parents)))


def _put(connection: SnowflakeConnection, stage: str, files: dict[str, Path]) -> None:
    """Upload files to their paths on the stage, with one PUT a folder.

    Links to a folder's files, in a folder of their own, make a glob that names only them.
    """
    for folder, inside in groupby(sorted(files), key=lambda path: path.rpartition("/")[0]):
        paths = list(inside)
        with tempfile.TemporaryDirectory() as links:
            for path in paths:
                (Path(links) / PurePosixPath(path).name).symlink_to(files[path].absolute())
            rows = execute(
                connection,
                f"put {local_files(Path(links), '*')} {_location(stage, folder)} "
                "auto_compress = false overwrite = true parallel = 8",
            )
        stored = [posixpath.join(folder, row[TARGET]) for row in rows if row[STATUS] == "UPLOADED"]
        _require_all("PUT passed over", paths, stored)


def _remove(connection: SnowflakeConnection, stage: str, paths: list[str]) -> None:
    """Remove these files alone: to REMOVE a path is the beginning of names, so a pattern ends it.

    The pattern fits names as LIST has them, and names below the stage.
    """
    for start in range(0, len(paths), REMOVED_AT_ONCE):
        some = paths[start : start + REMOVED_AT_ONCE]
        pattern = literal(f"({stage.lower()}/)?({'|'.join(map(re.escape, some))})")
        rows = execute(connection, f"remove {_location(stage, '')} pattern = {pattern}")
        _require_all("REMOVE passed over", some, [row[0].partition("/")[2] for row in rows])


def _require_all(problem: str, paths: Collection[str], found: Collection[str]) -> None:
    lacking = sorted({*paths}.difference(found))
    if lacking:
        raise OSError(
            f"{problem} {len(lacking)} of {len(paths)} files: {first(lacking)}. "
            "Run the cell again; if it says the same, rename them."
        )


def _location(stage: str, path: str) -> str:
    """A path on the stage as a literal, whatever characters it has."""
    return literal(f"@{config.identifier(stage)}/{path}")
