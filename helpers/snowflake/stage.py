"""Bring a stage in line with a folder of images."""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from snowflake.connector import SnowflakeConnection

from helpers import config
from helpers.folders import image_files
from helpers.snowflake.connection import execute

STATUS = 6  # the column of PUT's answer that says what became of a file


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

    def __str__(self) -> str:
        return (
            f"{len(self.added)} added, {len(self.changed)} changed, "
            f"{len(self.removed)} removed, {self.unchanged} unchanged"
        )


def sync(connection: SnowflakeConnection, folder: Path, stage: str) -> Changes:
    """PUT what is new or changed in `folder`, REMOVE what is gone from it.

    Safe to run again after a failure. Raises OSError if PUT stored too few files.
    """
    local = {path.relative_to(folder).as_posix(): path for path in image_files(folder)}
    staged = listing(connection, stage)
    added = [path for path in local if path not in staged]
    changed = [path for path in local if path in staged and not _same(local[path], *staged[path])]
    removed = [path for path in staged if path not in local]
    _put(connection, stage, {path: local[path] for path in added + changed})
    for path in removed:  # the path alone is a prefix, which other names may begin with
        ending = _literal(".*" + re.escape(PurePosixPath(path).name))
        execute(connection, f"remove {_location(stage, path)} pattern = {ending}")
    return Changes(added, changed, removed, len(local) - len(added) - len(changed))


def listing(connection: SnowflakeConnection, stage: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and MD5 of each file on an internal stage, by its path there."""
    rows = execute(connection, f"list @{config.identifier(stage)}")
    return {name.partition("/")[2]: (size, md5) for name, size, md5, *_ in rows}


def _same(path: Path, size: int, md5: str) -> bool:
    return path.stat().st_size == size and hashlib.md5(path.read_bytes()).hexdigest() == md5


def _put(connection: SnowflakeConnection, stage: str, files: dict[str, Path]) -> None:
    """Upload files to their paths on the stage, with one PUT a folder.

    Links to a folder's files, in a folder of their own, make a glob that names only them.
    """
    by_folder: dict[str, list[str]] = {}
    for path in files:
        by_folder.setdefault(PurePosixPath(path).parent.as_posix(), []).append(path)
    for folder, paths in by_folder.items():
        target = _location(stage, "" if folder == "." else folder)
        with tempfile.TemporaryDirectory() as links:
            for path in paths:
                (Path(links) / PurePosixPath(path).name).symlink_to(files[path])
            rows = execute(
                connection,
                f"put 'file://{links}/*' {target} "
                "auto_compress = false overwrite = true parallel = 8",
            )
        n_uploaded = sum(row[STATUS] == "UPLOADED" for row in rows)
        if n_uploaded != len(paths):
            raise OSError(
                f"PUT stored {n_uploaded} of {len(paths)} files of {folder}. Run the cell again."
            )


def _location(stage: str, path: str) -> str:
    """A path on the stage as a literal, whatever characters it has."""
    return _literal(f"@{config.identifier(stage)}/{path}")


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
