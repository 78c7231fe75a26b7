"""Near-duplicates between training and test images, by perceptual hash."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import config
from helpers.files import written_whole
from helpers.folders import data_digest
from helpers.images import perceptual_hash

if TYPE_CHECKING:
    from helpers.training.dataset import LabelledImages

MAX_DISTANCE = 6  # bits of 64 that may differ; unrelated pictures differ in about 32
COLUMNS = ["relative_path", "label", "phash"]


def hashes_file(digest: str) -> Path:
    """Where the hashes of the training images with this data digest are kept, beside the models."""
    return config.trained_model().with_name(f"hashes-{digest[:16]}.csv")


def keep_hashes(data: "LabelledImages") -> Path:
    """Write the hash of each image that can be read, for the review to find copies of them among the test images."""
    path = hashes_file(data_digest(data.sizes))
    if not path.exists():
        hashes = data.map(lambda index: perceptual_hash(data.load(index)), list(range(len(data))))
        rows = [
            (data.paths[index], data.classes[data.labels[index]], digits)
            for index, digits in hashes
        ]
        with written_whole(path) as unfinished:
            pd.DataFrame(rows, columns=COLUMNS).to_csv(unfinished, index=False)
    return path


def load_hashes(digest: str) -> pd.DataFrame:
    """What `keep_hashes` wrote for the training data with this digest; empty if it did not."""
    path = hashes_file(digest)
    return pd.read_csv(path, dtype=str) if path.exists() else pd.DataFrame(columns=COLUMNS)


def near_duplicates(
    table: pd.DataFrame, training: pd.DataFrame, max_distance: int = MAX_DISTANCE
) -> pd.DataFrame:
    """The table's images that a training image resembles, nearest first, each with that image and the distance."""
    own, row_of = np.unique(_bits(table.phash), return_inverse=True)
    others, first = np.unique(_bits(training.phash), return_index=True)
    if not len(own) or not len(others):
        return table.head(0).assign(training_path="", training_label="", distance=0)
    # 16 at a time stay within the processor's cache: 100,000 by 100,000 hashes take some 10 s
    nearest = [_nearest(own[i : i + 16], others) for i in range(0, len(own), 16)]
    index, distance = (np.concatenate(part)[row_of] for part in zip(*nearest))
    match = training.iloc[first[index]]
    found = table.assign(
        training_path=match.relative_path.to_numpy(), training_label=match.label.to_numpy()
    )
    return found.assign(distance=distance)[distance <= max_distance].sort_values(
        "distance", kind="stable"
    )


def _nearest(hashes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.bitwise_count(hashes[:, None] ^ others)
    return distances.argmin(1), distances.min(1)


def _bits(hexadecimal: pd.Series) -> np.ndarray:
    return np.array([int(digits, 16) for digits in hexadecimal], dtype=np.uint64)
