"""A folder of images: its splits, and the files of its classes."""

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
        if not class_folder.is_dir() or class_folder.name.startswith("."):
            continue
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in class_folder.rglob("*")):
            raise ValueError(
                f"Class folder {class_folder} holds no image. Add some or remove the folder."
            )
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(f"{folder} holds no images. Give a folder of <class>/<file>.jpg.")
    return files


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
