"""Labelled images as PyTorch datasets: from a folder, or from a Snowflake table and stage."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from helpers.images import Downloader, ImageError, UrlExpired, decode, shrink

SIGNED_AHEAD = 4000  # URLs signed at once, well before they are all needed
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class LabelledImages(Dataset):
    """Images whose lowest folder names their class; each item is (transform(image), target_transform(label)).

    cache: folder for decoded images, shrunk to `side` pixels on the shorter side, so that later epochs read
    neither network nor JPEG; None keeps none. on_error: "skip" leaves a broken image out of its batch with a
    warning and an entry in `broken` (path to reason); "raise" raises ImageError with the path.
    """

    def __init__(self, files, transform=None, target_transform=None, side=256, cache=None, on_error="skip", threads=8):
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
        return [(index, future.result()) for index, future in results if self._usable(index, future)]

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


def label_of(path: str) -> str:
    """The class of an image: its lowest folder. Raises ValueError for a path without one."""
    label = PurePosixPath(path).parent.name
    if not label:
        raise ValueError(f"{path!r} lies in no class folder. Arrange the images as <class>/<file>.")
    return label


def data_digest(sizes: dict[str, int]) -> str:
    """Identity of a data set: SHA-256 over its paths and sizes in bytes, equal on disk and on a stage."""
    lines = sorted(f"{path}\t{size}\n" for path, size in sizes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def image_files(folder: Path) -> list[Path]:
    """The images below a folder of classes, sorted. Raises if the folder or a class has none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"Images folder {folder} does not exist. Give a folder of <class>/<file>.jpg.")
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not any(p.suffix.lower() in IMAGE_SUFFIXES for p in class_folder.rglob("*")):
            raise ValueError(f"Class folder {class_folder} holds no image. Add some or remove the folder.")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no images. Give a folder of <class>/<file>.jpg.")
    return files


class ImageFolder(LabelledImages):
    """The images of a local folder <class>/<file>."""

    def __init__(self, folder: Path, **options):
        self.folder = Path(folder).resolve()
        paths = [path.relative_to(self.folder).as_posix() for path in image_files(self.folder)]
        stats = [(path, (self.folder / path).stat()) for path in paths]
        super().__init__([(p, s.st_size, f"{self.folder}/{p}@{s.st_mtime_ns}") for p, s in stats], **options)

    def read(self, index: int) -> bytes:
        return (self.folder / self.paths[index]).read_bytes()


class SnowflakeImageFolder(LabelledImages):
    """The images that a table lists and a stage holds, read through signed URLs.

    table_name has `relative_path_col` and SIZE; the ETAG comes from the stage's directory table. URLs live
    `url_seconds` and are signed a batch at a time, anew when they are old or refused. What is pickled for
    DataLoader workers holds no connection: a worker that must sign calls `reconnect`.
    """

    def __init__(
        self,
        table_name: str,
        relative_path_col: str,
        stage: str,
        connection,
        transform=None,
        *,
        reconnect: Callable | None = None,
        url_seconds: int = 3600,
        downloader: Downloader | None = None,
        **options,
    ):
        from helpers import snowflake  # here, so that training from a folder needs no connector

        super().__init__(snowflake.list_files(connection, table_name, relative_path_col, stage), transform, **options)
        if not self.paths:
            raise ValueError(f"Table {table_name} lists no images. Run notebook 01_set_up_snowflake first.")
        self.stage, self.url_seconds = stage, url_seconds
        self._sign_urls = partial(snowflake.sign_urls, stage=stage, seconds=url_seconds)
        database = snowflake.execute(connection, "select current_database()")[0][0]
        self._reconnect = reconnect or partial(snowflake.connect, snowflake.backend_of(connection), database)
        self._connection, self._download = connection, downloader or Downloader()
        self._urls: dict[str, tuple[str, float]] = {}  # path -> URL, monotonic time at which it counts as old
        self._lock = threading.Lock()

    def prepare(self, indices: list[int]) -> None:
        now = time.monotonic()
        wanted = [i for i in indices if not ((entry := self._cache_entry(i)) and entry.exists())]
        old = [self.paths[i] for i in wanted if self._urls.get(self.paths[i], ("", 0))[1] < now]
        if old:  # the rest of the chunk comes along, for a small data set all
            more = [path for path in self.paths if self._urls.get(path, ("", 0))[1] < now][:SIGNED_AHEAD]
            self._sign(list(dict.fromkeys(old + more)))

    def read(self, index: int) -> bytes:
        path = self.paths[index]
        if path not in self._urls:
            self._sign([path])
        try:
            return self._download(self._urls[path][0])[0]
        except UrlExpired:
            self._sign([path])
            return self._download(self._urls[path][0])[0]

    def after_fork(self) -> None:
        # the connector's own threads did not come along either: in a fork any call of it waits for ever
        forked = self._pid is not None
        super().after_fork()
        if forked:
            self._lock, self._sign_urls = (
                threading.Lock(),
                partial(_sign_in_new_process, self._reconnect, self._sign_urls),
            )

    def _sign(self, paths: list[str]) -> None:
        with self._lock:
            if self._connection is None:
                self._connection = self._reconnect()
            old_at = time.monotonic() + 0.8 * self.url_seconds
            self._urls |= {p: (url, old_at) for p, url in zip(paths, self._sign_urls(self._connection, paths=paths))}

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_connection": None, "_lock": None, "_download": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock(), "_download": Downloader()}


def _sign_in_new_process(reconnect: Callable, sign_urls: Callable, _connection, paths: list[str]) -> list[str]:
    """URLs signed by a process that may use the connector; costs a few seconds a call."""
    code = (
        "import pickle, sys; c, s, p = pickle.load(sys.stdin.buffer); pickle.dump(s(c(), paths=p), sys.stdout.buffer)"
    )
    job = pickle.dumps((reconnect, sign_urls, paths))
    return pickle.loads(subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True).stdout)


def _write_array(path: Path, array: np.ndarray) -> None:
    """Whole or not at all, so that a killed process leaves no half image behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    with partial_path.open("wb") as file:
        np.save(file, array)
    os.replace(partial_path, path)
