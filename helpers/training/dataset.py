"""Labelled images as a PyTorch dataset, read by several threads and kept decoded in a cache."""

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import Dataset

from helpers.files import written_whole
from helpers.images import ImageError, decode, shrink
from helpers.labels import label_of


class ImageFile(NamedTuple):
    """One file of a data set."""

    path: str  # below the data set's folder or stage; its lowest folder is the label
    size: int  # bytes
    key: str  # changes with the content: names the file in the cache


class LabelledImages(Dataset):
    """Images whose lowest folder names their class, as (transform(image), target_transform(label)).

    cache: folder for decoded images, shrunk to `side` pixels on the shorter side, so that later
    epochs read neither network nor JPEG; None keeps none. on_error: "skip" leaves a broken image
    out of its batch with a warning and an entry in `broken` (path to reason); "raise" raises
    ImageError with the path.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        side: int = 256,
        cache: Path | str | None = None,
        on_error: str = "skip",
        threads: int = 8,
    ):
        if on_error not in ("skip", "raise"):
            raise ValueError(f'on_error is {on_error!r}. Use "skip" or "raise".')
        self.paths = [file.path for file in files]
        self.sizes = {file.path: file.size for file in files}
        self._keys = [f"{file.key}-{file.size}-{side}" for file in files]
        names = [label_of(path) for path in self.paths]
        self.classes = sorted(set(names))
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([self.class_to_idx[name] for name in names])
        self.transform = transform
        self.target_transform = target_transform
        self.side = side
        self.cache = cache
        self.on_error = on_error
        self.threads = threads
        self.broken: dict[str, str] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pid: int | None = os.getpid()

    def read(self, index: int) -> bytes:
        """The file's bytes. Raises ImageError."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple:
        image = self.load(index)
        label = int(self.labels[index])
        return (
            self.transform(image) if self.transform else image,
            self.target_transform(label) if self.target_transform else label,
        )

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        """What a DataLoader calls for a batch: items fetched side by side, broken ones left out."""
        return [item for _, item in self.map(self.__getitem__, indices)]

    def map(self, function: Callable[[int], Any], indices: list[int]) -> list[tuple[int, Any]]:
        """(index, function(index)) of each image that can be read, fetched by several threads."""
        if self._pid != os.getpid():
            self.after_fork()
        if self._pool is None:
            # one compute thread each: together they fill the cores, and must not multiply them
            self._pool = ThreadPoolExecutor(self.threads, "images", torch.set_num_threads, (1,))
        self.prepare(indices)
        futures = [(index, self._pool.submit(function, index)) for index in indices]
        return [
            (index, future.result()) for index, future in futures if self._usable(index, future)
        ]

    def prepare(self, indices: list[int]) -> None:
        """Called once before a batch is read."""

    def after_fork(self) -> None:
        """Called in a forked DataLoader worker, to which the parent's threads did not come."""
        self._pool = None
        self._pid = os.getpid()

    def _usable(self, index: int, future: Future) -> bool:
        # another error than ImageError comes with the result
        error = future.exception()
        if not isinstance(error, ImageError) or self.on_error == "raise":
            return True
        path = self.paths[index]
        if path not in self.broken:
            warnings.warn(f"{path} is left out: {error}", stacklevel=3)
        self.broken[path] = str(error)
        return False

    def load(self, index: int) -> Tensor:
        """(3, H, W) uint8, its shorter side at most `side`. Raises ImageError with the path."""
        entry = self.cache_entry(index)
        if entry and entry.exists():
            try:
                return safetensors.torch.load_file(entry)["image"]
            except (safetensors.SafetensorError, KeyError, OSError):  # damaged: made anew below
                entry.unlink(missing_ok=True)
        try:
            image = shrink(decode(self.read(index)), self.side)
        except ImageError as error:
            raise ImageError(f"{self.paths[index]}: {error.reason}", error.attempts) from None
        if entry:
            # not NumPy's format: its header is parsed by what Python 3.11 does not do in threads
            with written_whole(entry) as unfinished:
                safetensors.torch.save_file({"image": image.contiguous()}, unfinished)
        return image

    def cache_entry(self, index: int) -> Path | None:
        """Where the decoded image is kept, whether or not it is there yet; None without a cache."""
        if self.cache is None:
            return None
        name = hashlib.sha256(self._keys[index].encode()).hexdigest()
        return Path(self.cache) / name[:2] / f"{name}.safetensors"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pool": None, "_pid": None}
