"""Near-duplicates between training and test images, by perceptual hash."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances_argmin_min

from helpers import config

MAX_DISTANCE = 4  # bits of 64 that may differ; two pictures that are only alike differ in 6 or more
COLUMNS = ["relative_path", "label", "phash"]


def provided_hashes(digest: str) -> Path:
    """Where the hashes are of the data of a model that comes with the repository."""
    return config.PROJECT_ROOT / "model" / "hashes" / f"{digest[:16]}.csv"


def load_hashes(digest: str) -> pd.DataFrame:
    """What `keep_hashes` wrote for the training data with this digest; empty if it did not."""
    for path in (config.hashes_file(digest), provided_hashes(digest)):
        if path.exists():
            return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame(columns=COLUMNS)


def near_duplicates(
    table: pd.DataFrame, training: pd.DataFrame, max_distance: int = MAX_DISTANCE
) -> pd.DataFrame:
    """The table's images that a training image resembles, nearest first.

    Each with that image (training_path, training_label) and the distance in bits.
    100,000 by 100,000 hashes take less than a minute.
    """
    if table.empty or training.empty:
        return table.head(0).assign(training_path="", training_label="", distance=0)
    training = training.sort_values("phash", kind="stable")  # of equally near ones, the least
    # between corners of a cube, the squared distance is the number of bits that differ
    nearest, distance = pairwise_distances_argmin_min(
        _bits(table.phash), _bits(training.phash), metric="sqeuclidean"
    )
    match = training.iloc[nearest]
    found = table.assign(
        training_path=match.relative_path.to_numpy(),
        training_label=match.label.to_numpy(),
        distance=distance.astype(int),
    )
    return found[found.distance <= max_distance].sort_values("distance", kind="stable")


def _bits(hexadecimal: pd.Series) -> np.ndarray:
    """(N, 64) of 0 and 1."""
    packed = np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8)
    return np.unpackbits(packed).reshape(-1, 64).astype(np.float32)
