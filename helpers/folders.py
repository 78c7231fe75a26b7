"""A folder of images: its splits, and the files of its classes."""

import os
from collections.abc import Iterator
from pathlib import Path

from helpers import config

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def images_folder(name: str = "") -> Path:
    """Absolute path of the images.

    name: "" is the drawn sample set, a relative one starts at the project's root.
    """
    return (config.PROJECT_ROOT / name).resolve() if name else config.home() / ".samples"


def image_files(folder: Path) -> list[Path]:
    """The images below a folder of classes, sorted. Raises if the folder or a class has none."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Images folder {folder} does not exist. Give a folder of <class>/<file>.jpg."
        )
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir() or _is_hidden(class_folder.name):
            continue
        if not any(_images_below(class_folder)):
            raise ValueError(
                f"Class folder {class_folder} holds no image. Add some or remove the folder."
            )
    files = sorted(_images_below(folder))
    if not files:
        raise ValueError(f"{folder} holds no images. Give a folder of <class>/<file>.jpg.")
    return files


def _images_below(folder: Path) -> Iterator[Path]:
    """Files that are images by their names, also behind links; a cycle of links is not entered."""
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        above = {here, *here.parents}
        folders[:] = [
            name
            for name in folders
            if not _is_hidden(name) and Path(place, name).resolve() not in above
        ]
        paths = [Path(place, name) for name in names if not _is_hidden(name)]
        yield from (p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _is_hidden(name: str) -> bool:
    """Whether it is a system's or a program's own, such as .ipynb_checkpoints."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "lost+found")


def split_folders(folder: Path) -> tuple[Path, Path]:
    """The training and the test folder of a data set.

    `validation/` is the test split where there is no `test/`. Raises FileNotFoundError.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Images folder {folder} does not exist. "
            "Give a folder of train/<class>/, test/<class>/."
        )
    names = [name for name in ("train", "test", "validation") if (folder / name).is_dir()]
    if len(names) < 2 or names[0] != "train":
        raise FileNotFoundError(
            f"{folder} needs the folders train/ and test/ (or validation/), "
            "each with a folder a class."
        )
    return folder / names[0], folder / names[1]


def count(folder: Path) -> int:
    """Number of images in a folder of classes."""
    return len(image_files(folder))
