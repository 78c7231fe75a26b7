"""A folder of images: its splits, the files of its classes, and what in it is left out."""

import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import config
from helpers.labels import label_of

# what `images.decode` reads
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng"),
    *(".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
}
# names of systems' own files and folders, wherever they lie
HIDDEN = re.compile(
    r"\..*|__MACOSX|@eaDir|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found"
)
# what SQL, a cloud's storage, CSV or HTML would change: bytes that are no UTF-8, control
# characters, backslashes; blanks at an end of a name, and dots at its end
CHANGED = re.compile(
    r"[\ud800-\udfff\x00-\x1f\x7f-\x9f\u2028\u2029\\]|(^|/)\s|[\s.](/|$)", re.UNICODE
)


@dataclass(frozen=True)
class Images:
    """What lies below a folder of classes.

    >>> print(Images({"hat/a.jpg": Path("hat/a.jpg")}, {"hat/b.heic": "no image by its name"}))
    1 images, 1 left out: hat/b.heic (no image by its name)
    """

    files: dict[str, Path]  # by path below the folder, in Unicode's composed form (NFC)
    left_out: dict[str, str]  # path to reason; of a folder for all that is in it

    def __str__(self) -> str:
        reasons = [f"{ascii(path)[1:-1]} ({reason})" for path, reason in self.left_out.items()]
        return f"{len(self.files)} images, {len(reasons)} left out: {first(reasons)}"


def images_folder(name: str = "") -> Path:
    """Absolute path of the images.

    name: "" is the drawn sample set, a relative one starts at the project's root.
    """
    return (config.PROJECT_ROOT / name).resolve() if name else config.home() / ".samples"


def walk(folder: Path) -> Images:
    """The images below a folder of classes, in order of their paths; links are followed.

    Raises FileNotFoundError without the folder, ValueError where it or a class holds no image, or
    where a name would not arrive on a stage. Warns of classes that may be meant otherwise.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Images folder {folder} does not exist. Give a folder of <class>/<file>.jpg."
        )
    images = Images({}, {})
    _enter(folder, folder, images)
    filled = {place for path in images.files.values() for place in path.parents}
    for place in (*sorted(folder.iterdir()), folder):
        if place.is_dir() and place not in filled and not HIDDEN.fullmatch(place.name):
            raise ValueError(
                f"{place} holds no image ({images}). "
                "Give a folder of <class>/<file>.jpg, and remove an empty class."
            )
    places: dict[str, set[str]] = {}
    for path in images.files:
        places.setdefault(label_of(path).casefold(), set()).add(path.rpartition("/")[0])
    several = [", ".join(sorted(alike)) for alike in places.values() if len(alike) > 1]
    if several:
        warnings.warn(
            f"{folder}: the lowest folder is the class, its case counts, and these look alike: "
            f"{first(several, '; ')}. Rename them or move their files up, unless that is meant.",
            stacklevel=2,
        )
    return images


def _enter(place: Path, folder: Path, images: Images) -> None:
    """Add what is below `place` to the images of `folder`. Raises ValueError for a name."""
    for path in sorted(place.iterdir()):
        # some systems write an accent as a character of its own: a class is one, however written
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        reason = _reason_against(path)
        if reason:
            images.left_out[name] = reason
        elif path.is_dir():
            _enter(path, folder, images)
        elif CHANGED.search(name):
            raise ValueError(
                f"{folder} has {name!a}, which would not arrive as it is. Rename it: UTF-8, no "
                "control character or backslash, no blank at an end, no dot at the end."
            )
        elif name in images.files:
            raise ValueError(
                f"{str(path)!a} and {str(images.files[name])!a} differ only in how an accent "
                "is written. Rename one of them."
            )
        else:
            images.files[name] = path


def _reason_against(path: Path) -> str:
    """Why a file or folder is left out; "" if it is not."""
    if HIDDEN.fullmatch(path.name):
        return "hidden"
    is_folder = path.is_dir()
    if is_folder and any(map(path.samefile, path.parents)):
        return "a link back to a folder around it"
    if not is_folder and path.suffix.lower() not in IMAGE_SUFFIXES:
        return "no image by its name"
    is_open = os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK)
    return "" if is_open and (is_folder or path.is_file()) else "no file that may be read"


def split_folders(folder: Path) -> tuple[Path, Path]:
    """The training and the test folder of a data set.

    `validation/` is the test split where there is no `test/`. Raises FileNotFoundError.
    """
    names = [name for name in ("train", "test", "validation") if (folder / name).is_dir()]
    if len(names) < 2 or names[0] != "train":
        needs = "needs the folders" if folder.is_dir() else "does not exist. Give a folder with"
        raise FileNotFoundError(
            f"Images folder {folder} {needs} train/ and test/ (or validation/), "
            "each with a folder a class."
        )
    return folder / names[0], folder / names[1]


def first(texts: Sequence[str], between: str = ", ") -> str:
    """The first three of them.

    >>> first(["a.jpg", "b .jpg", "c.jpg", "d.jpg"])
    'a.jpg, b .jpg, c.jpg, …'
    """
    return between.join([*texts[:3], "…"] if len(texts) > 3 else texts)
