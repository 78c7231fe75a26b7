"""Files that are written whole or not at all, and the digest of one."""

import errno
import hashlib
import json
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def written_whole(path: Path) -> Generator[Path, None, None]:
    """A file beside `path` to write to, which takes its place at the end.

    After an error or a kill `path` is as before. Makes the folder. Processes and threads that
    write the same file do not disturb each other: the last one wins. Raises OSError with the path
    and a remedy where the disk is full or the folder is not ours to write to.

    >>> target = Path(getfixture("tmp_path")) / "made" / "greeting.txt"
    >>> with written_whole(target) as unfinished:
    ...     _ = unfinished.write_text("hello")
    ...     print(target.exists())
    False
    >>> target.read_text()
    'hello'
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def owned(path: Path, remedy: str) -> Generator[None, None, None]:
    """Keeps others from `path` meanwhile; the lock ends with the process, however that ends.

    Raises BlockingIOError if another process, or another call in this one, has it.
    """
    try:
        with _writing(path):
            held = FileLock(path.with_name(f".{path.name}.lock"), timeout=0).acquire()
    except Timeout:
        raise BlockingIOError(f"{path} is in use by another process. {remedy}") from None
    with held as lock:
        yield
        # while it is held: whoever has it open tries anew
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Generator[None, None, None]:
    """Names the path, and what to do, where nothing can be written."""
    try:
        yield
    except OSError as error:
        # whether the disk is full, or the folder closed to us
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise OSError(
            error.errno,
            f"{path} cannot be written: {os.strerror(error.errno)}. Make room (make clean), or set "
            "TUTORIAL_HOME to a folder that you may write to",
        ) from error


def write_json(path: Path, content: dict) -> None:
    """Whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


def digest_of(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal.

    >>> path = Path(getfixture("tmp_path")) / "empty"
    >>> path.touch()
    >>> digest_of(path)[:12]
    'e3b0c44298fc'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
