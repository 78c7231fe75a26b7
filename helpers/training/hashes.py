"""Keep a fingerprint of each training image: chapter 4 finds copies of them among test images."""

from pathlib import Path

import pandas as pd

from helpers import config
from helpers.files import written_whole
from helpers.images import perceptual_hash
from helpers.labels import data_digest
from helpers.training.dataset import LabelledImages


def keep_hashes(data: LabelledImages, path: Path | None = None) -> Path:
    """Write path, label and perceptual hash of each image that can be read; where to.

    path: if not `config.hashes_file` of the data. A file that is there already stays.
    """
    path = path or config.hashes_file(data_digest(data.sizes))
    if not path.exists():
        rows = [
            (data.paths[index], data.classes[data.labels[index]], phash)
            for index, phash in data.map(
                lambda index: perceptual_hash(data.load(index)), list(range(len(data)))
            )
        ]
        with written_whole(path) as unfinished:
            pd.DataFrame(rows, columns=["relative_path", "label", "phash"]).to_csv(
                unfinished, index=False
            )
    return path
