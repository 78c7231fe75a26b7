"""Which images still need a prediction.

Each path comes once, and none that an earlier call has predicted.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd


class Worklist:
    """The rows that still need a prediction, each path once, and what was counted on the way.

    frames: of FILE_URL, RELATIVE_PATH, SIZE, ETAG. predicted: keys of the images that earlier calls
    have predicted.
    Paths that were met are remembered as 64-bit hashes in a sorted array, 8 bytes each: a hundred
    million take 800 MB, where a set of strings would take ten times as much.

    >>> listed = pd.DataFrame({"FILE_URL": "u", "RELATIVE_PATH": ["a", "b", "b"], "SIZE": 1})
    >>> listed["ETAG"] = "e"
    >>> before = keys_of(listed["RELATIVE_PATH"], listed["ETAG"])[:1]  # of a
    >>> work = Worklist([listed], predicted=before)
    >>> [path for chunk in work.chunks(10) for path in chunk.RELATIVE_PATH]
    ['b']
    >>> work.listed, work.done, work.duplicates
    (2, 1, 1)
    """

    def __init__(self, frames: Iterable[pd.DataFrame], predicted: np.ndarray):
        self.frames = frames
        self.predicted = np.sort(predicted)
        self.present = np.zeros(len(predicted), bool)  # which of them the table still lists
        self.listed = 0
        self.duplicates = 0
        self._met = np.zeros(0, np.uint64)

    @property
    def done(self) -> int:
        """Rows met so far that an earlier call has predicted."""
        return int(self.present.sum())

    def lists(self, paths: pd.Series) -> np.ndarray:
        """(N,) whether each path was met."""
        return _find(self._met, keys_of(paths))[1]

    def chunks(self, size: int) -> Iterator[pd.DataFrame]:
        """The rows to predict, `size` at a time; none of a frame that has none."""
        for frame in self.frames:
            wanted = self._wanted(frame)
            for start in range(0, len(wanted), size):
                yield wanted[start : start + size]

    def _wanted(self, frame: pd.DataFrame) -> pd.DataFrame:
        paths = keys_of(frame["RELATIVE_PATH"])
        new = ~pd.Series(paths).duplicated().to_numpy() & ~_find(self._met, paths)[1]
        met_now = np.sort(paths[new])
        self._met = np.insert(self._met, np.searchsorted(self._met, met_now), met_now)
        self.duplicates += int((~new).sum())
        self.listed += int(new.sum())
        frame = frame[new]
        at, known = _find(self.predicted, keys_of(frame["RELATIVE_PATH"], frame["ETAG"]))
        self.present[at[known]] = True
        return frame[~known]


def keys_of(*columns: pd.Series) -> np.ndarray:
    """One 64-bit hash for each row, of all its columns.

    >>> paths, etags = pd.Series(["a", "a", "b"]), pd.Series(["1", "2", "1"])
    >>> len(set(keys_of(paths, etags))), len(set(keys_of(paths)))
    (3, 2)
    """
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        values = column.to_numpy(object)
        # pandas loads it when asked, which hides its type
        hashed = pd.util.hash_array(values, categorize=False)  # ty: ignore[not-callable]
        key = key * np.uint64(31) + hashed
    return key


def _find(ordered: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key is in a sorted array, and whether it is there."""
    if not len(ordered):
        return np.zeros(len(keys), int), np.zeros(len(keys), bool)
    at = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
    return at, ordered[at] == keys
