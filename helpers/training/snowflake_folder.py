"""Labelled images that a Snowflake table lists and a stage holds, as a PyTorch dataset."""

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from helpers.images import Downloader, UrlExpired
from helpers.snowflake.connection import backend_of, connect, execute
from helpers.snowflake.listing import list_files, sign_urls
from helpers.training.dataset import LabelledImages

SIGNED_AHEAD = 4000  # URLs signed at once, well before they are all needed


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

        super().__init__(
            list_files(connection, table_name, relative_path_col, stage), transform, **options
        )
        if not self.paths:
            raise ValueError(
                f"Table {table_name} lists no images. Run notebook 01_set_up_snowflake first."
            )
        self.stage, self.url_seconds = stage, url_seconds
        self._sign_urls = partial(sign_urls, stage=stage, seconds=url_seconds)
        database = execute(connection, "select current_database()")[0][0]
        self._reconnect = reconnect or partial(connect, backend_of(connection), database)
        self._connection, self._download = connection, downloader or Downloader()
        self._urls: dict[
            str, tuple[str, float]
        ] = {}  # path -> URL, monotonic time at which it counts as old
        self._lock = threading.Lock()

    def prepare(self, indices: list[int]) -> None:
        now = time.monotonic()
        wanted = [i for i in indices if not ((entry := self._cache_entry(i)) and entry.exists())]
        old = [self.paths[i] for i in wanted if self._urls.get(self.paths[i], ("", 0))[1] < now]
        if old:  # the rest of the chunk comes along, for a small data set all
            more = [path for path in self.paths if self._urls.get(path, ("", 0))[1] < now][
                :SIGNED_AHEAD
            ]
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
            self._urls |= {
                p: (url, old_at)
                for p, url in zip(paths, self._sign_urls(self._connection, paths=paths))
            }

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_connection": None, "_lock": None, "_download": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock(), "_download": Downloader()}


def _sign_in_new_process(
    reconnect: Callable, sign_urls: Callable, _connection, paths: list[str]
) -> list[str]:
    """URLs signed by a process that may use the connector; costs a few seconds a call."""
    code = "import pickle, sys; c, s, p = pickle.load(sys.stdin.buffer); pickle.dump(s(c(), paths=p), sys.stdout.buffer)"
    job = pickle.dumps((reconnect, sign_urls, paths))
    return pickle.loads(
        subprocess.run(
            [sys.executable, "-c", code], input=job, capture_output=True, check=True
        ).stdout
    )
