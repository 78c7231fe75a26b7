"""The Parquet parts of a run folder: what is predicted survives, whatever dies."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.cluster.task import Result
from helpers.files import written_whole
from helpers.inference.worklist import keys_of
from helpers.records import PREDICTION, Failure, failure_table


class Parts:
    """The Parquet parts of a run folder, each written whole or not at all.

    A part is written at `rows` predictions, or when `seconds` have passed since the last one.
    """

    def __init__(self, folder: Path, rows: int, seconds: float):
        self.folder = folder
        self.rows = rows
        self.seconds = seconds
        self.predicted = 0  # by this call
        self.failed = 0
        self._begin_part()

    def _begin_part(self) -> None:
        self.waiting: list[pa.Table] = []
        self.failures: list[Failure] = []
        self.written_at = time.monotonic()

    def begin(self, model: str) -> np.ndarray:
        """Keys of the images predicted before. Earlier failures are dropped: they are tried again.

        Raises ValueError if they were predicted by another model than the one with the digest
        `model`.
        """
        (self.folder / "inference.json").unlink(missing_ok=True)
        for kind in ("predictions", "failures"):
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        for path in [*self.folder.glob("*/.part-*"), *self.folder.glob("failures/part-*")]:
            path.unlink()
        keys = [np.zeros(0, np.uint64)]
        for path in self._of("predictions"):
            columns = ["relative_path", "etag", "model_digest"]
            rows = pq.read_table(path, columns=columns).to_pandas()
            others = set(rows["model_digest"]) - {model}
            if others:
                raise ValueError(
                    f"{path} was predicted by model {others.pop()}, not {model}. Start another run."
                )
            keys.append(keys_of(rows["relative_path"], rows["etag"]))
        return np.concatenate(keys)

    def add(self, result: Result) -> None:
        """Keep a batch's outcome, and write a part when it is due."""
        self.waiting.append(result.predictions)
        self.failures += result.failures
        self.predicted += len(result.predictions)
        self.failed += len(result.failures)
        is_full = sum(map(len, self.waiting)) >= self.rows
        if is_full or time.monotonic() > self.written_at + self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if any(map(len, self.waiting)):
            self._write("predictions", pa.concat_tables(self.waiting))
        if self.failures:
            self._write("failures", failure_table(self.failures))
        self._begin_part()

    def finish(self, gone: np.ndarray, among: Callable[[pd.Series], np.ndarray] | None) -> int:
        """Drops the earlier predictions of images that have changed or left the table.

        gone: their keys. among: which of many paths may be dropped, all if None. Returns how many
        of them stay.
        """
        before = self._count("predictions")
        for path in self._of("predictions") if len(gone) else []:
            _drop(path, gone, among)
        return len(gone) - before + self._count("predictions")

    def on_disk(self) -> dict[str, int]:
        """How many rows there are."""
        return {"predicted": self._count("predictions"), "failed": self._count("failures")}

    def _count(self, kind: str) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self._of(kind))

    def _of(self, kind: str) -> list[Path]:
        return sorted((self.folder / kind).glob("part-*.parquet"))

    def _write(self, kind: str, table: pa.Table) -> None:
        numbers = (int(path.stem.removeprefix("part-")) for path in self._of(kind))
        number = 1 + max(numbers, default=-1)
        _write_part(self.folder / kind / f"part-{number:06d}.parquet", table)


def _drop(path: Path, gone: np.ndarray, among: Callable[[pd.Series], np.ndarray] | None) -> None:
    """Write a part anew without the rows whose keys are in `gone`, and whose paths are `among`."""
    table = pq.read_table(path, schema=PREDICTION)
    rows = table.select(["relative_path", "etag"]).to_pandas()
    dropped = np.isin(keys_of(rows["relative_path"], rows["etag"]), gone)
    if among:
        dropped &= among(rows["relative_path"])
    if dropped.any():
        _write_part(path, table.filter(pa.array(~dropped)))


def _write_part(path: Path, table: pa.Table) -> None:
    with written_whole(path) as unfinished:
        # smaller to PUT than with snappy, and no slower
        pq.write_table(table, unfinished, compression="zstd")
