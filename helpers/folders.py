"""A folder of images: its files, their labels, the data set's digest, and the splits."""

import hashlib
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def label_of(path: str) -> str:
    """The class of an image: its lowest folder. Raises ValueError for a path without one."""
    label = PurePosixPath(path).parent.name
    if not label:
        raise ValueError(f"{path!r} lies in no class folder. Arrange the images as <class>/<file>.")
    return label


def data_digest(sizes: dict[str, int]) -> str:
    """Identity of a data set: SHA-256 over its paths and sizes in bytes, equal on disk and on a stage."""
    lines = sorted(f"{path}\t{size}\n" for path, size in sizes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def image_files(folder: Path) -> list[Path]:
    """The images below a folder of classes, sorted. Raises if the folder or a class has none."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Images folder {folder} does not exist. Give a folder of <class>/<file>.jpg."
        )
    for class_folder in sorted(
        p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")
    ):
        if not any(p.suffix.lower() in IMAGE_SUFFIXES for p in class_folder.rglob("*")):
            raise ValueError(
                f"Class folder {class_folder} holds no image. Add some or remove the folder."
            )
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not files:
        raise ValueError(f"{folder} holds no images. Give a folder of <class>/<file>.jpg.")
    return files


def split_folders(folder: Path) -> tuple[Path, Path]:
    """The training and the test folder of a data set; `validation/` is the test split where there is no `test/`."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Images folder {folder} does not exist. Give a folder of train/<class>/, test/<class>/."
        )
    found = [folder / name for name in ("train", "test", "validation") if (folder / name).is_dir()]
    if len(found) < 2 or found[0].name != "train":
        raise FileNotFoundError(
            f"{folder} needs the folders train/ and test/ (or validation/), each with a folder a class."
        )
    return found[0], found[1]


def count(folder: Path) -> int:
    """Number of images in a folder of classes."""
    return len(image_files(folder))
