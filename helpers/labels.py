"""What a path says of an image, and the digest of a data set."""

import hashlib
from pathlib import PurePosixPath


def label_of(path: str) -> str:
    """The class of an image: its lowest folder. Raises ValueError for a path without one.

    >>> label_of("train/t-shirt/a.jpg")
    't-shirt'
    """
    label = PurePosixPath(path).parent.name
    if not label:
        raise ValueError(f"{path!r} lies in no class folder. Arrange the images as <class>/<file>.")
    return label


def data_digest(sizes: dict[str, int]) -> str:
    """Identity of a data set: SHA-256 over its paths and their sizes in bytes.

    It is the same on disk and on a stage, and whatever the order.

    >>> data_digest({"hat/a.jpg": 10})[:12]
    'b5aa8f3e4c03'
    """
    lines = "".join(sorted(f"{path}\t{size}\n" for path, size in sizes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
