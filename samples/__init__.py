"""A sample set of ten garment classes, drawn with Pillow, for who has no photographs at hand.

Nothing but the shape of the garment tells the classes apart: colour, cloth, ground, light and
size are left to chance, so that a model has to look at the garment. The files in reading order:

    __init__   draw_samples: a folder of images, by seed; whole or not at all
    picture    one picture: a garment posed on a ground, lit, seen through a camera
    shapes     outlines and marks, what every garment is drawn with
    tops, dresses, trousers, outwear, hats, shoes   the ten garments
    props      what carries them: a hanger, a mannequin
    canvas     where a garment is in the picture, and how its marks become pixels
    surfaces   colours, cloth and floors

`python -m samples FOLDER` draws a set. The package imports nothing of the project.
"""

import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from samples.picture import GARMENTS, draw_picture

SAMPLE_CLASSES = tuple(GARMENTS)
VERSION = 2
MARKER = "samples.json"
# real data have faults, and so has every set, listed in its planted.json: a test image that is
# nearly a training image, and one in the folder of another class than it shows
FAULTS = {
    "near_copies": {"test/shoes/shoes_0001.jpg": "train/shoes/shoes_0001.jpg"},
    "wrong_labels": {"test/pants/pants_0001.jpg": "dress"},
}


def draw_samples(folder: Path, n_train: int = 40, n_test: int = 15, seed: int = 0) -> Path:
    """Draw n_train and n_test JPEGs a class into folder/{train,test}/<class>/, if not there yet.

    The same seed gives the same pixels for an image, whatever the counts. Two test images are
    faults, which planted.json lists. The folder appears whole or not at all. Raises FileExistsError
    if the folder holds anything else, ValueError if a count is below 1.
    """
    folder = Path(folder)
    counts = {"train": n_train, "test": n_test}
    if min(counts.values()) < 1:
        raise ValueError(
            f"n_train={n_train}, n_test={n_test}: each class needs at least 1 image in each split."
        )
    wanted = {"version": VERSION, "seed": seed, **counts}
    if _holds(folder, wanted):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something other than the sample set {wanted}."
            " Move it away, or name another folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _draw_all(unfinished, counts, seed)
        (unfinished / MARKER).write_text(json.dumps(wanted) + "\n")
        unfinished.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        os.replace(unfinished, folder)
    except OSError:
        # Another process may have drawn the same set meanwhile: then theirs is as good.
        if not _holds(folder, wanted):
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def image_seed(seed: int, split: str, garment: str, number: int) -> list[int]:
    """The seed of one image: independent of every other image and of the order."""
    return [seed, zlib.crc32(f"{split}/{garment}/{number}".encode())]


def _draw_all(folder: Path, counts: dict[str, int], seed: int) -> None:
    for split, count in counts.items():  # train comes first: a test image is a copy of one there
        for garment in SAMPLE_CLASSES:
            (folder / split / garment).mkdir(parents=True)
            for number in range(1, count + 1):
                name = f"{split}/{garment}/{garment}_{number:04d}.jpg"
                rng = np.random.default_rng(image_seed(seed, split, garment, number))
                image = draw_picture(rng, FAULTS["wrong_labels"].get(name, garment))
                original = FAULTS["near_copies"].get(name)
                if original:
                    image = Image.open(folder / original)
                # a near-copy is saved with less care
                image.save(folder / name, quality=60 if original else int(rng.integers(82, 94)))
    (folder / "planted.json").write_text(json.dumps(FAULTS, indent=2) + "\n")


def _holds(folder: Path, wanted: dict[str, int]) -> bool:
    """Whether the folder is this very set: its marker says so, and every class has its images."""
    marker = folder / MARKER
    if not marker.is_file() or marker.read_text().strip() != json.dumps(wanted):
        return False
    return all(
        len(list((folder / split / garment).glob("*.jpg"))) == wanted[split]
        for split in ("train", "test")
        for garment in SAMPLE_CLASSES
    )
