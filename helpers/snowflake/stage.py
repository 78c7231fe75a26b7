"""Bring a stage in line with a folder of images."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from helpers import config
from helpers.folders import image_files
from helpers.snowflake.connection import execute


@dataclass(frozen=True)
class Changes:
    """Paths relative to the stage that a sync put, removed, or found in place."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int

    def __str__(self) -> str:
        counts = (
            f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"
        )
        return f"{counts}, {self.unchanged} unchanged"


def sync(connection, folder: Path, stage: str) -> Changes:
    """PUT what is new or changed in `folder`, REMOVE what is gone from it. Safe to run again after a failure."""
    local = {path.relative_to(folder).as_posix(): path for path in image_files(folder)}
    staged = listing(connection, stage)
    added = [path for path in local if path not in staged]
    changed = [path for path in local if path in staged and not _same(local[path], *staged[path])]
    removed = [path for path in staged if path not in local]
    _put(connection, stage, {path: local[path] for path in added + changed})
    for path in removed:
        execute(connection, f"remove {_quoted(stage, path)}")
    return Changes(added, changed, removed, len(local) - len(added) - len(changed))


def listing(connection, stage: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and MD5 of each file on an internal stage, by its path there."""
    rows = execute(connection, f"list @{config.identifier(stage)}")
    return {name.partition("/")[2]: (size, md5) for name, size, md5, *_ in rows}


def _same(path: Path, size: int, md5: str) -> bool:
    return path.stat().st_size == size and hashlib.md5(path.read_bytes()).hexdigest() == md5


def _put(connection, stage: str, files: dict[str, Path]) -> None:
    """One PUT a folder: links to its files in a folder of their own make a glob that names only them."""
    by_folder: dict[str, list[str]] = {}
    for path in files:
        by_folder.setdefault(PurePosixPath(path).parent.as_posix(), []).append(path)
    for folder, paths in by_folder.items():
        with tempfile.TemporaryDirectory() as links:
            for path in paths:
                (Path(links) / PurePosixPath(path).name).symlink_to(files[path])
            target = _quoted(stage, "" if folder == "." else folder)
            rows = execute(
                connection,
                f"put 'file://{links}/*' {target} auto_compress = false overwrite = true parallel = 8",
            )
        uploaded = [row for row in rows if row[6] == "UPLOADED"]
        if len(uploaded) != len(paths):
            raise OSError(
                f"PUT stored {len(uploaded)} of {len(paths)} files of {folder}. Run the cell again."
            )


def _quoted(stage: str, path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'@{config.identifier(stage)}/{escaped}'"
