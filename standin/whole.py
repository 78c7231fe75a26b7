"""A file written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_whole(target: Path, part: Path) -> Generator[BinaryIO, None, None]:
    """A file to write to, at part, that takes target's place when the block ends without error.

    part: on the same file system. Raises OSError, and leaves target as it was.
    """
    try:
        with part.open("wb") as file:
            yield file
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def kept_secret(path: Path, secret: str = "") -> str:
    """A text in a file that only this user can read; made once, and again if that is gone or empty.

    secret: what to write then; a new random text by default.
    """
    if not path.exists() or not path.read_text():
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        part.touch(0o600)  # private before there is anything in it
        part.write_text(secret or secrets.token_hex(32))
        os.replace(part, path)
    return path.read_text()
