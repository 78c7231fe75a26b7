"""Classify a table of images on a Dask cluster: chunks in, Parquet parts out, each image exactly one row."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, KilledWorker, as_completed, performance_report
from distributed.comm import CommClosedError
from tqdm.auto import tqdm

from helpers.cluster import loaded_models, send_model
from helpers.model import digest, read_checkpoint
from helpers.runs import write_json
from helpers.task import FAILURE, PREDICTION, Batch, Result, Row, classify_batch

CARD = ("arch", "classes", "image_size", "temperature", "data_set", "data_digest")
SIGNED_AT_MOST = 5  # times for one image, before its refused URL counts as a failure


def classify(
    client: Client,
    images: Iterable[pd.DataFrame],
    sign: Callable[[list[str]], list[str]],
    run_folder: Path | str,
    model_path: Path | str,
    *,
    total: int | None = None,
    batch_size: int = 32,
    chunk: int = 1024,
    part_rows: int = 20_000,
    part_seconds: float = 10,
    progress: bool = True,
    report: bool = True,
) -> dict:
    """Predict every image of the frames `images` that has no prediction in `run_folder` yet.

    images: frames of FILE_URL, RELATIVE_PATH, SIZE, ETAG. sign: paths to URLs, called late, `chunk` paths at a
    time. total: rows to come, for the progress bar. A part is written at `part_rows` rows or after `part_seconds`.
    Returns the summary, also in inference.json. Raises ConnectionError if the scheduler is lost, RuntimeError if
    not listed = predicted + failed; finished parts stay, and a new call does only what is missing.
    """
    started, model = time.perf_counter(), digest(Path(model_path))
    card = read_checkpoint(model_path)["card"]
    parts = Parts(Path(run_folder), part_rows, part_seconds)
    table = Table(images, parts.begin(model))
    with ExitStack() as stack:
        stack.enter_context(_loss_named(client, parts.folder))
        if set(loaded_models(client).values()) != {model}:
            send_model(client, model_path)
        if report:
            stack.enter_context(_reported(client, parts.folder / "dask-report.html"))
        bar = stack.enter_context(tqdm(total=total, unit="image", disable=not progress))
        stack.callback(parts.flush)
        slots = sum(client.nthreads().values())
        for result in _results(client, _batches(table, sign, model, batch_size, chunk, slots), sign):
            parts.add(result)
            bar.set_postfix(failures=parts.failed, refresh=False)
            bar.update(table.done + table.duplicates + parts.predicted + parts.failed - bar.n)
    on_disk = parts.finish(gone=table.predicted[~table.present])
    seconds = time.perf_counter() - started
    counts = {"listed": table.listed, **on_disk, "duplicates": table.duplicates}
    if table.listed != sum(on_disk.values()):
        raise RuntimeError(f"{counts} does not add up in {parts.folder}. Move its predictions away and run again.")
    speed = {"seconds": round(seconds, 2), "images_per_s": round(parts.predicted / seconds, 2)}
    summary = counts | {"predicted_before": table.done, **speed, "model_digest": model} | {n: card[n] for n in CARD}
    write_json(parts.folder / "inference.json", summary)
    return summary


def plan(
    summary: dict, predictions: pd.DataFrame, n_workers: int, urls_per_s: float, n: int = 10**8, hours: float = 8
) -> list[str]:
    """What `n` images in `hours` would need, in sentences, from what a run with `n_workers` measured.

    urls_per_s: how many URLs the client signed in a second.
    """
    if not summary["predicted"] or not summary["images_per_s"]:
        return ["This call predicted nothing, so there is nothing to work out."]
    per_worker, needed = summary["images_per_s"] / n_workers, n / (hours * 3600)
    bottleneck = "the workers stay the bottleneck" if urls_per_s > needed else "signing is the next bottleneck"
    return [
        f"{per_worker:,.1f} images/s a worker: {n:,} images are {n / per_worker / 3600:,.0f} worker-hours, "
        f"{needed / per_worker:,.0f} such workers for {hours:g} hours.",
        f"Together they read {needed * predictions['size'].mean() / 1e6:,.0f} MB/s from the stage.",
        f"The client signed {urls_per_s:,.0f} URLs/s and {needed:,.0f} are needed: {bottleneck}.",
    ]


class Table:
    """The rows that still need a prediction, each path once, and what was counted on the way.

    Paths are remembered as 64-bit hashes, 8 bytes each, in sorted runs that are merged as they double.
    """

    def __init__(self, frames: Iterable[pd.DataFrame], predicted: np.ndarray):
        self.frames = frames
        self.predicted, self.present = np.sort(predicted), np.zeros(len(predicted), bool)
        self.runs: list[np.ndarray] = []
        self.listed = self.duplicates = 0

    @property
    def done(self) -> int:
        """Rows met so far that an earlier call has predicted."""
        return int(self.present.sum())

    def chunks(self, size: int) -> Iterator[list[Row]]:
        for frame in self.frames:
            for start in range(0, len(frame), size):
                yield self._wanted(frame[start : start + size])

    def _wanted(self, frame: pd.DataFrame) -> list[Row]:
        frame = frame[self._first_met(keys_of(frame["RELATIVE_PATH"]))]
        self.listed += len(frame)
        at, known = _find(self.predicted, keys_of(frame["RELATIVE_PATH"], frame["ETAG"]))
        self.present[at[known]] = True
        columns = [frame[name][~known].tolist() for name in ("FILE_URL", "RELATIVE_PATH", "SIZE", "ETAG")]
        return list(zip(*columns, strict=True))

    def _first_met(self, keys: np.ndarray) -> np.ndarray:
        new = ~pd.Series(keys).duplicated().to_numpy()
        for run in self.runs:
            new &= ~_find(run, keys)[1]
        self.duplicates += int((~new).sum())
        run = np.sort(keys[new])
        while self.runs and len(self.runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self.runs.pop(), run]))
        self.runs.append(run)
        return new


def keys_of(*columns: pd.Series) -> np.ndarray:
    """One 64-bit hash for each row."""
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        key = key * np.uint64(31) + pd.util.hash_array(column.to_numpy(object), categorize=False)
    return key


def _find(ordered: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key is in a sorted array, and whether it is there."""
    if not len(ordered):
        return np.zeros(len(keys), int), np.zeros(len(keys), bool)
    at = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
    return at, ordered[at] == keys


class Parts:
    """The Parquet parts of a run folder, each written whole or not at all."""

    def __init__(self, folder: Path, rows: int, seconds: float):
        self.folder, self.rows, self.seconds = folder, rows, seconds
        self.waiting, self.failures, self.written_at = [], [], time.monotonic()
        self.predicted = self.failed = 0  # by this call

    def begin(self, model: str) -> np.ndarray:
        """Keys of the images predicted before. Earlier failures are dropped: they are tried again."""
        (self.folder / "inference.json").unlink(missing_ok=True)
        for kind in ("predictions", "failures"):
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        for path in [*self.folder.glob("*/.part-*"), *self.folder.glob("failures/part-*")]:
            path.unlink()
        keys = [np.zeros(0, np.uint64)]
        for path in self._of("predictions"):
            rows = pq.read_table(path, columns=["relative_path", "etag", "model_digest"]).to_pandas()
            if others := set(rows["model_digest"]) - {model}:
                raise ValueError(f"{path} was predicted by model {others.pop()}, not {model}. Start another run.")
            keys.append(keys_of(rows["relative_path"], rows["etag"]))
        return np.concatenate(keys)

    def add(self, result: Result) -> None:
        self.waiting.append(result.predictions)
        self.failures += result.failures
        self.predicted += len(result.predictions)
        self.failed += len(result.failures)
        full = sum(map(len, self.waiting)) >= self.rows
        if full or time.monotonic() > self.written_at + self.seconds:
            self.flush()

    def flush(self) -> None:
        if any(map(len, self.waiting)):
            self._write("predictions", pa.concat_tables(self.waiting))
        if self.failures:
            columns = zip(*self.failures, strict=True)
            self._write("failures", pa.table([pa.array(c) for c in columns], schema=FAILURE))
        self.waiting, self.failures, self.written_at = [], [], time.monotonic()

    def finish(self, gone: np.ndarray) -> dict[str, int]:
        """Drops earlier predictions of images that have changed or left the table; counts the rows on the disk."""
        for path in self._of("predictions") if len(gone) else ():
            table = pq.read_table(path, schema=PREDICTION)
            rows = table.select(["relative_path", "etag"]).to_pandas()
            kept = ~np.isin(keys_of(rows["relative_path"], rows["etag"]), gone)
            if not kept.all():
                _write_whole(path, table.filter(pa.array(kept)))
        count = {
            kind: sum(pq.read_metadata(p).num_rows for p in self._of(kind)) for kind in ("predictions", "failures")
        }
        return {"predicted": count["predictions"], "failed": count["failures"]}

    def _of(self, kind: str) -> list[Path]:
        return sorted((self.folder / kind).glob("part-*.parquet"))

    def _write(self, kind: str, table: pa.Table) -> None:
        last = max((int(path.stem[5:]) for path in self._of(kind)), default=-1)
        _write_whole(self.folder / kind / f"part-{last + 1:06d}.parquet", table)


def _write_whole(path: Path, table: pa.Table) -> None:
    partial = path.with_name(f".{path.name}")
    pq.write_table(table, partial, compression="zstd")  # smaller to PUT than snappy, and no slower
    os.replace(partial, path)


def _batches(table: Table, sign: Callable, model: str, batch_size: int, chunk: int, slots: int) -> Iterator[Batch]:
    """Signs a chunk only when its first batch is about to be sent.

    The last chunk's batches shrink with what is left of it, so that the workers end at about the same time: guided
    self-scheduling (Polychronopoulos and Kuck 1987).
    """
    chunks = table.chunks(chunk)
    rows = next(chunks, None)
    while rows is not None:
        following = next(chunks, None)
        urls = sign([row[1] for row in rows]) if rows else []
        least = batch_size if following is not None else -(-batch_size // 8)
        while rows:
            size = min(batch_size, max(least, len(rows) // (2 * slots or 1)))
            yield Batch(rows[:size], urls[:size], model)
            rows, urls = rows[size:], urls[size:]
        rows = following


def _results(client: Client, batches: Iterator[Batch], sign: Callable) -> Iterator[Result]:
    """The batches' results as they arrive, with two tasks in flight for each of the cluster's slots.

    Images that were on a worker when it died, several times, wait until all else is done, then go one at a time:
    the one that kills its worker is found, and takes no other along.
    """
    running, finished, again, suspects = {}, as_completed(), deque(), deque()
    slots, counted_at = 1, float("-inf")

    def submit(batch: Batch) -> None:
        if batch.signed > 1:
            batch.urls = sign([row[1] for row in batch.rows])
        future = client.submit(classify_batch, batch, pure=False, priority=batch.signed)
        running[future] = batch
        finished.add(future)

    while True:
        if time.monotonic() > counted_at + 1:  # workers come and go
            slots, counted_at = max(1, sum(client.nthreads().values())), time.monotonic()
        while len(running) < 2 * slots and (batch := again.popleft() if again else next(batches, None)):
            submit(batch)
        if not running and suspects:
            submit(suspects.popleft())
        if not running:
            return
        future = next(finished)
        batch = running.pop(future)
        try:
            result = future.result()
        except KilledWorker:
            if batch.alone:
                reason = "its worker process died, several times"
                yield Result(PREDICTION.empty_table(), [(batch.rows[0][1], reason, batch.signed)], [])
            else:
                suspects.extend(batch.again([row], alone=True) for row in batch.rows)
            continue
        if result.expired and batch.signed < SIGNED_AT_MOST:
            half = -(-len(result.expired) // 2)  # less to do before these expire as well
            again.extend(batch.again(rows) for rows in (result.expired[:half], result.expired[half:]) if rows)
        else:
            reason = f"the signed URL was refused (403), signed {batch.signed} times"
            result.failures.extend((row[1], reason, batch.signed) for row in result.expired)
        yield result


@contextmanager
def _reported(client: Client, path: Path) -> Iterator[None]:
    """Saves Dask's report of a pass that ends well; after an error the scheduler may be gone."""
    # Dask warns that it cannot tell the size of the report's own message
    logging.getLogger("distributed.sizeof").setLevel(logging.ERROR)
    with client.as_current():
        recorder = performance_report(str(path))
        recorder.__enter__()
        yield
        recorder.__exit__(None, None, None)


@contextmanager
def _loss_named(client: Client, folder: Path) -> Iterator[None]:
    """Turns what Dask raises when the scheduler goes away into one error that names it."""
    address = client.scheduler.address
    try:
        yield
    except (Exception, CancelledError) as error:
        if client.status == "running" and not isinstance(error, CancelledError | CommClosedError):
            raise
        raise ConnectionError(
            f"The Dask scheduler at {address} is lost. Finished parts are in {folder}: "
            "start a cluster and call again with the same run to go on."
        ) from error
