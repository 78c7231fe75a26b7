"""Labelled images that a Snowflake table lists and a stage holds, as a PyTorch dataset."""

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from snowflake.connector import SnowflakeConnection
from torch import Tensor

from helpers.images import Downloader, UrlExpired
from helpers.snowflake.connection import backend_of, connect
from helpers.snowflake.listing import list_files, sign_urls
from helpers.training.dataset import ImageFile, LabelledImages

SIGNED_AHEAD = 4000  # URLs signed at once, well before they are all needed
KEPT_SHARE = 0.8  # of its life, for which a signed URL is used
# a process of its own, which gets its work on standard input and answers on standard output
SIGNER = """
import pickle, sys
connect, sign_urls, paths = pickle.load(sys.stdin.buffer)
pickle.dump(sign_urls(connect(), paths=paths), sys.stdout.buffer)
"""


class SnowflakeImageFolder(LabelledImages):
    """The images that a table lists and a stage holds, read through signed URLs.

    table_name has `relative_path_col` and SIZE; the ETAG comes from the stage's directory table.
    URLs live `url_seconds` and are signed a batch at a time, anew when they are old or refused.
    What is pickled for DataLoader workers holds no connection: a worker that must sign calls
    `reconnect`.
    """

    def __init__(
        self,
        table_name: str,
        relative_path_col: str,
        stage: str,
        connection: SnowflakeConnection,
        transform: Callable[[Tensor], Any] | None = None,
        *,
        reconnect: Callable[[], SnowflakeConnection] | None = None,
        url_seconds: int = 3600,
        downloader: Downloader | None = None,
        **options: Any,
    ):
        listed = list_files(connection, table_name, relative_path_col, stage)
        if not listed:
            raise ValueError(
                f"Table {table_name} lists no images. Run notebook 01_set_up_snowflake first."
            )
        super().__init__([ImageFile(*file) for file in listed], transform, **options)
        self.url_seconds = url_seconds
        self._sign_urls = partial(sign_urls, stage=stage, seconds=url_seconds)
        self._reconnect = reconnect or partial(
            connect, backend_of(connection), connection.database or ""
        )
        self._connection: SnowflakeConnection | None = connection
        self._download = downloader or Downloader()
        # by path: a URL, and the monotonic time in seconds at which it counts as old
        self._urls: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def prepare(self, indices: list[int]) -> None:
        """Sign what the batch needs, and what comes next; of a small data set all."""
        needed = [
            self.paths[index]
            for index in indices
            if self._is_old(self.paths[index]) and not self._is_cached(index)
        ]
        if needed:
            needed += [path for path in self.paths if self._is_old(path)][:SIGNED_AHEAD]
            self._sign(list(dict.fromkeys(needed)))

    def read(self, index: int) -> bytes:
        """The file's bytes, through its signed URL. Raises ImageError."""
        path = self.paths[index]
        if path not in self._urls:
            self._sign([path])
        try:
            return self._download(self._urls[path][0])[0]
        except UrlExpired:
            self._sign([path])
            return self._download(self._urls[path][0])[0]

    def after_fork(self) -> None:
        """Called in a forked DataLoader worker."""
        # the connector's own threads did not come along: in a fork any call of it waits for ever
        forked = self._pid is not None
        super().after_fork()
        if forked:
            self._lock = threading.Lock()
            self._sign_urls = partial(_sign_in_new_process, self._reconnect, self._sign_urls)

    def _is_cached(self, index: int) -> bool:
        entry = self.cache_entry(index)
        return entry is not None and entry.exists()

    def _is_old(self, path: str) -> bool:
        return path not in self._urls or self._urls[path][1] < time.monotonic()

    def _sign(self, paths: list[str]) -> None:
        with self._lock:
            if self._connection is None:
                self._connection = self._reconnect()
            old_at = time.monotonic() + KEPT_SHARE * self.url_seconds
            self._urls |= {
                path: (url, old_at)
                for path, url in zip(paths, self._sign_urls(self._connection, paths=paths))
            }

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_connection": None, "_lock": None, "_download": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock(), "_download": Downloader()}


def _sign_in_new_process(
    reconnect: Callable[[], SnowflakeConnection],
    sign: Callable[..., list[str]],
    _connection: SnowflakeConnection | None,
    paths: list[str],
) -> list[str]:
    """URLs signed by a process that may use the connector; costs a few seconds a call."""
    answer = subprocess.run(
        [sys.executable, "-c", SIGNER],
        input=pickle.dumps((reconnect, sign, paths)),
        capture_output=True,
        check=True,
    )
    return pickle.loads(answer.stdout)
