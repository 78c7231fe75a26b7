"""Labelled images of a local folder, as a PyTorch dataset: for training without Snowflake."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from helpers.folders import walk
from helpers.images import ImageError
from helpers.training.dataset import ImageFile, LabelledImages


class ImageFolder(LabelledImages):
    """The images of a local folder <class>/<file>."""

    def __init__(self, folder: Path, **options: Any):
        self.folder = Path(folder).resolve()
        images = walk(self.folder)
        self._files = images.files
        described = [
            ImageFile(name, path.stat().st_size, f"{path}@{path.stat().st_mtime_ns}")
            for name, path in images.files.items()
        ]
        super().__init__(described, **options)
        if images.left_out:
            warnings.warn(f"{folder}: {images}", stacklevel=2)

    def read(self, index: int) -> bytes:
        """The file's bytes. Raises ImageError."""
        try:
            return self._files[self.paths[index]].read_bytes()
        except OSError as error:
            raise ImageError(f"not readable: {error.strerror}") from None

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
