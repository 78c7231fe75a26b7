"""Fetch the public data set of photographs of clothes."""

import argparse
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from helpers import config
from helpers.folders import walk

URL = "https://github.com/alexeygrigorev/clothing-dataset-small/archive/refs/heads/master.zip"
# the tutorial's splits; the archive's own test split comes along
COUNTS = {"train": 3068, "validation": 341}
MAX_BYTES = 500 * 2**20  # of the unpacked archive


def download(
    folder: Path, url: str = URL, counts: dict[str, int] = COUNTS, timeout_s: float = 60
) -> Path:
    """Put the data set into `folder`, whole or not at all.

    A folder that holds it already is left as it is. counts: of images by split.
    Raises ValueError if the images in the archive are not the expected number.
    """
    if folder.exists():
        _check(folder, counts)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch:
        data_set = _unpacked(url, Path(scratch), timeout_s)
        _check(data_set, counts)
        data_set.rename(folder)
    return folder


def _unpacked(url: str, scratch: Path, timeout_s: float) -> Path:
    """The one folder that is in the archive, unpacked below `scratch`."""
    archive = scratch / "archive.zip"
    with urllib.request.urlopen(url, timeout=timeout_s) as response, archive.open("wb") as file:
        shutil.copyfileobj(response, file)
    with zipfile.ZipFile(archive) as content:
        n_bytes = sum(entry.file_size for entry in content.infolist())
        if n_bytes > MAX_BYTES:
            raise ValueError(
                f"{url} unpacks to more than {MAX_BYTES} bytes. It is not the expected data set."
            )
        content.extractall(scratch / "unpacked")
    return next((scratch / "unpacked").iterdir())


def _check(folder: Path, counts: dict[str, int]) -> None:
    """Raises ValueError if a split has another number of images."""
    for split, expected in counts.items():
        found = len(walk(folder / split).files)
        if found != expected:
            raise ValueError(
                f"{folder / split} holds {found} images, not {expected}. "
                f"Remove {folder} and try again."
            )


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 the data set is there, 1 it could not be fetched."""
    default = config.home() / "data" / "clothing-dataset-small"
    parser = argparse.ArgumentParser(prog="python -m helpers download", description=__doc__)
    parser.add_argument("--folder", type=Path, default=default)
    folder = parser.parse_args(arguments).folder
    try:
        print(download(folder))
    except (OSError, ValueError) as error:
        print(f"The data set could not be fetched from {URL}: {error}", file=sys.stderr)
        return 1
    print(f"Now: make tutorial IMAGES={folder}")
    return 0
