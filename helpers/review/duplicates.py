"""Near-duplicates between training and test images, by perceptual hash."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import config

MAX_DISTANCE = 4  # bits of 64 that may differ; two pictures that are only alike differ in 6 or more
AT_ONCE = 16  # hashes compared with all others; their distances stay within the processor's cache
COLUMNS = ["relative_path", "label", "phash"]


def provided_hashes(digest: str) -> Path:
    """Where the hashes are of the data of a model that comes with the repository."""
    return config.PROJECT_ROOT / "model" / "hashes" / f"{digest[:16]}.csv"


def load_hashes(digest: str) -> pd.DataFrame:
    """What `keep_hashes` wrote for the training data with this digest; empty if it did not."""
    for path in (config.hashes_file(digest), provided_hashes(digest)):
        if path.exists():
            return pd.read_csv(path, dtype=str)
    return pd.DataFrame(columns=COLUMNS)


def near_duplicates(
    table: pd.DataFrame, training: pd.DataFrame, max_distance: int = MAX_DISTANCE
) -> pd.DataFrame:
    """The table's images that a training image resembles, nearest first.

    Each with that image (training_path, training_label) and the distance in bits.
    100,000 by 100,000 hashes take some 10 s.
    """
    own, row_of = np.unique(_bits(table.phash), return_inverse=True)
    others, first = np.unique(_bits(training.phash), return_index=True)
    if not len(own) or not len(others):
        return table.head(0).assign(training_path="", training_label="", distance=0)
    nearest, distance = _nearest(own, others)
    match = training.iloc[first[nearest[row_of]]]
    found = table.assign(
        training_path=match.relative_path.to_numpy(),
        training_label=match.label.to_numpy(),
        distance=distance[row_of],
    )
    return found[found.distance <= max_distance].sort_values("distance", kind="stable")


def _nearest(hashes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) index of the hash in `others` that differs least from each of N hashes, (N,) in bits."""
    indices = []
    distances = []
    for start in range(0, len(hashes), AT_ONCE):
        few = hashes[start : start + AT_ONCE, None]
        differing = np.bitwise_count(few ^ others)  # (AT_ONCE, number of others)
        indices.append(differing.argmin(axis=1))
        distances.append(differing.min(axis=1))
    return np.concatenate(indices), np.concatenate(distances)


def _bits(hexadecimal: pd.Series) -> np.ndarray:
    return np.array([int(digits, 16) for digits in hexadecimal], dtype=np.uint64)
