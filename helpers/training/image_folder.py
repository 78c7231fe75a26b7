"""Labelled images of a local folder, as a PyTorch dataset: for training without Snowflake."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from helpers.folders import image_files
from helpers.training.dataset import ImageFile, LabelledImages


class ImageFolder(LabelledImages):
    """The images of a local folder <class>/<file>."""

    def __init__(self, folder: Path, **options: Any):
        self.folder = Path(folder).resolve()
        super().__init__([self._described(path) for path in image_files(self.folder)], **options)

    def _described(self, path: Path) -> ImageFile:
        status = path.stat()
        key = f"{path}@{status.st_mtime_ns}"
        return ImageFile(path.relative_to(self.folder).as_posix(), status.st_size, key)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return (self.folder / self.paths[index]).read_bytes()

    def subset(self, indices: Sequence[int]) -> Self:
        """The same data set with only these images; its classes stay, also where none is left."""
        chosen = copy.copy(self)
        chosen.paths = [self.paths[index] for index in indices]
        chosen.sizes = {path: self.sizes[path] for path in chosen.paths}
        chosen._keys = [self._keys[index] for index in indices]
        chosen.labels = self.labels[list(indices)]
        chosen.broken = {}
        chosen._pool = None
        return chosen
