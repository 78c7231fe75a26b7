"""What a staged file is called on the disk: its whole key, in letters that any file system keeps.

A key is a text and no path: "pre" and "pre/b.jpg", "A.jpg" and "a.jpg", or one accent in two
spellings are different files, as on Snowflake. So all but a few plain characters are written %XX,
slashes too; a long name goes on in a folder. Each key is read from its file's name again: there is
no index that could be lost.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from standin.errors import SqlError

FOLDER = "%"  # below the stage's own, where earlier versions put files under their plain names
LONGEST_KEY = 1024  # bytes of UTF-8, as in the clouds' stores
LONGEST_NAME = 200  # characters; file systems take 255 bytes
GOES_ON = "+"  # at the end of a folder's name; never in a written key
# no capitals, which some file systems fold; a dot only inside, so that no name is . or ..
WRITTEN_OTHERWISE = re.compile(rb"[^a-z0-9_.-]|\.(?![a-z0-9_-])")


def check(key: str) -> None:
    """Raises SqlError for a key that no stage can have, or that no address would keep."""
    if "\0" in key or len(key.encode(errors="surrogatepass")) > LONGEST_KEY:
        reason = f"is longer than {LONGEST_KEY} bytes, or has a NUL character in it"
    elif {".", ".."} & set(key.split("/")):
        reason = "leaves the stage, or has '.' for a folder: clients resolve such addresses"
    else:
        return
    raise SqlError(f"Path '{key}' {reason}. Give the file another path.", 253003, "22023")


def as_folder(path: str) -> str:
    """What the keys of files put there begin with; no slash is added or lost."""
    return path + "/" if path and not path.endswith("/") else path


def written(key: str) -> str:
    """The key as a path relative to FOLDER: pieces of plain ASCII in lower case."""
    name = WRITTEN_OTHERWISE.sub(lambda found: b"%%%02x" % ord(found[0]), key.encode()).decode()
    pieces = [name[at : at + LONGEST_NAME] for at in range(0, len(name), LONGEST_NAME)]
    return f"{GOES_ON}/".join(pieces)


def read(path: str) -> str:
    """The inverse of written()."""
    return unquote(path.replace(f"{GOES_ON}/", ""))


def paths_below(folder: Path) -> Iterator[str]:
    """The files below a folder, relative to it; none if there is no such folder."""
    for at, _, names in os.walk(folder):
        before = Path(at).relative_to(folder).as_posix() + "/"
        before = "" if before == "./" else before
        yield from (before + name for name in names)


def adopt(stages: Path) -> None:
    """Put what an earlier version kept under plain names where it belongs; may end half way."""
    for stage in stages.glob("*/*/*"):
        for old in [path for path in stage.iterdir() if path.name != FOLDER]:
            below = [f"{old.name}/{path}" for path in paths_below(old)]
            for key in [old.name] if old.is_file() else below:
                target = stage / FOLDER / written(key)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(stage / key, target)
            shutil.rmtree(old, ignore_errors=True)
