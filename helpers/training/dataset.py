"""Labelled images as a PyTorch dataset: from a local folder, or whatever else can be read by an index."""

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from helpers.files import written_whole
from helpers.folders import image_files, label_of
from helpers.images import ImageError, decode, shrink


class LabelledImages(Dataset):
    """Images whose lowest folder names their class; each item is (transform(image), target_transform(label)).

    cache: folder for decoded images, shrunk to `side` pixels on the shorter side, so that later epochs read
    neither network nor JPEG; None keeps none. on_error: "skip" leaves a broken image out of its batch with a
    warning and an entry in `broken` (path to reason); "raise" raises ImageError with the path.
    """

    def __init__(
        self,
        files,
        transform=None,
        target_transform=None,
        side=256,
        cache=None,
        on_error="skip",
        threads=8,
    ):
        if on_error not in ("skip", "raise"):
            raise ValueError(f'on_error is {on_error!r}. Use "skip" or "raise".')
        self.paths = [path for path, _, _ in files]
        self.sizes = {path: size for path, size, _ in files}
        self._keys = [f"{key}-{size}-{side}" for _, size, key in files]
        names = [label_of(path) for path in self.paths]
        self.classes = sorted(set(names))
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([self.class_to_idx[name] for name in names])
        self.transform, self.target_transform = transform, target_transform
        self.side, self.cache, self.on_error, self.threads = side, cache, on_error, threads
        self.broken: dict[str, str] = {}
        self._pool, self._pid = None, os.getpid()

    def read(self, index: int) -> bytes:
        """The file's bytes. Raises ImageError."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple:
        image, label = self.load(index), int(self.labels[index])
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(label) if self.target_transform else label

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        """What a DataLoader calls for a batch: the items fetched side by side, broken ones left out."""
        return [item for _, item in self.map(self.__getitem__, indices)]

    def map(self, function: Callable, indices: list[int]) -> list[tuple]:
        """(index, function(index)) of each image that can be read, fetched by several threads."""
        if self._pid != os.getpid():
            self.after_fork()
        if self._pool is None:
            # one compute thread each: together they fill the cores, and must not multiply them
            self._pool = ThreadPoolExecutor(self.threads, "images", torch.set_num_threads, (1,))
        self.prepare(indices)
        results = [(index, self._pool.submit(function, index)) for index in indices]
        return [
            (index, future.result()) for index, future in results if self._usable(index, future)
        ]

    def prepare(self, indices: list[int]) -> None:
        """Called once before a batch is read."""

    def after_fork(self) -> None:
        """Called in a forked DataLoader worker, to which the parent's threads did not come along."""
        self._pool, self._pid = None, os.getpid()

    def _usable(self, index: int, future) -> bool:
        error = future.exception()
        if isinstance(error, ImageError) and self.on_error == "skip":
            if self.paths[index] not in self.broken:
                warnings.warn(f"{self.paths[index]} is left out: {error}", stacklevel=2)
            self.broken[self.paths[index]] = str(error)
            return False
        return True

    def load(self, index: int) -> Tensor:
        """(3, H, W) uint8, its shorter side at most `side`. Raises ImageError with the path."""
        entry = self._cache_entry(index)
        if entry and entry.exists():
            try:
                return torch.from_numpy(np.load(entry))
            except (ValueError, OSError, EOFError):  # damaged: made anew below
                entry.unlink(missing_ok=True)
        try:
            image = shrink(decode(self.read(index)), self.side)
        except ImageError as error:
            raise ImageError(f"{self.paths[index]}: {error.reason}", error.attempts) from None
        if entry:
            _write_array(entry, image.numpy())
        return image

    def _cache_entry(self, index: int) -> Path | None:
        if self.cache is None:
            return None
        name = hashlib.sha256(self._keys[index].encode()).hexdigest()
        return Path(self.cache) / name[:2] / f"{name}.npy"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pool": None, "_pid": None}


class ImageFolder(LabelledImages):
    """The images of a local folder <class>/<file>."""

    def __init__(self, folder: Path, **options):
        self.folder = Path(folder).resolve()
        paths = [path.relative_to(self.folder).as_posix() for path in image_files(self.folder)]
        stats = [(path, (self.folder / path).stat()) for path in paths]
        super().__init__(
            [(p, s.st_size, f"{self.folder}/{p}@{s.st_mtime_ns}") for p, s in stats], **options
        )

    def read(self, index: int) -> bytes:
        return (self.folder / self.paths[index]).read_bytes()


def _write_array(path: Path, array: np.ndarray) -> None:
    """Whole or not at all, so that a killed process leaves no half image behind."""
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, array)
