"""Which batch goes to the cluster when.

Each slot has two tasks, refused URLs are signed anew, and deaths of workers are survived.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from distributed import Client, Future, KilledWorker, as_completed

from helpers.cluster.task import Batch, Result, classify_batch
from helpers.inference.worklist import Worklist
from helpers.records import PREDICTION, Failure, Row

SIGNED_AT_MOST = 5  # times for one image, before its refused URL counts as a failure
IN_FLIGHT = 2  # tasks for each slot of the cluster: one that runs, and one that waits beside it
COLUMNS = [name.upper() for name in Row._fields]  # of a listing
COUNT_SLOTS_S = 1.0  # how often the cluster's slots are counted anew: workers come and go

Sign = Callable[[list[str]], list[str]]  # paths to signed URLs, in order


def batches(
    work: Worklist, sign: Sign, model: str, batch_size: int, chunk: int, slots: int
) -> Iterator[Batch]:
    """Batches of at most `batch_size` images.

    A chunk without the column URL is signed only when its first batch is about to be sent. The
    last chunk's batches shrink with what is left of it, so that the workers end at about the same
    time: guided self-scheduling (Polychronopoulos and Kuck 1987).
    """
    chunks = work.chunks(chunk)
    frame = next(chunks, None)
    while frame is not None:
        following = next(chunks, None)
        rows = [Row(*values) for values in frame[COLUMNS].itertuples(index=False, name=None)]
        urls = frame["URL"].tolist() if "URL" in frame else sign(frame["RELATIVE_PATH"].tolist())
        is_last = following is None
        least = math.ceil(batch_size / 8) if is_last else batch_size
        while rows:
            fair_share = len(rows) // (2 * slots or 1)
            size = min(batch_size, max(least, fair_share))
            yield Batch(rows[:size], urls[:size], model)
            rows = rows[size:]
            urls = urls[size:]
        frame = following


class Flight:
    """The batches that are under way, and what must go again.

    Iterating gives the results as they arrive, each image in exactly one of them.

    Images that were on a worker when it died, several times, wait until all else is done, then go
    one at a time: the one that kills its worker is found, and takes no other along.
    """

    def __init__(self, client: Client, waiting: Iterator[Batch], sign: Sign):
        self.client = client
        self.waiting = waiting
        self.sign = sign
        self.running: dict[Future, Batch] = {}
        self.finished = as_completed()
        self.again: deque[Batch] = deque()  # whose URLs had expired
        self.suspects: deque[Batch] = deque()  # images that may kill a worker
        self.slots = 1
        self.counted_at = float("-inf")

    def __iter__(self) -> Iterator[Result]:
        while True:
            self._submit_what_fits()
            if not self.running:
                return
            future = next(self.finished)
            result = self._outcome(future, self.running.pop(future))
            if result is not None:
                yield result

    def _submit_what_fits(self) -> None:
        if time.monotonic() > self.counted_at + COUNT_SLOTS_S:
            self.slots = max(1, sum(self.client.nthreads().values()))
            self.counted_at = time.monotonic()
        while len(self.running) < IN_FLIGHT * self.slots:
            batch = self.again.popleft() if self.again else next(self.waiting, None)
            if batch is None:
                break
            self._submit(batch)
        if not self.running and self.suspects:
            self._submit(self.suspects.popleft())

    def _submit(self, batch: Batch) -> None:
        if batch.signed > 1:
            batch.urls = self.sign([row.relative_path for row in batch.rows])
        future = self.client.submit(classify_batch, batch, pure=False, priority=batch.signed)
        self.running[future] = batch
        self.finished.add(future)

    def _outcome(self, future: Future, batch: Batch) -> Result | None:
        """What to count of a finished task; None where all of it goes again."""
        try:
            result = future.result()
        except KilledWorker:
            if batch.alone:
                return _failed(batch.rows, "its worker process died, several times", batch.signed)
            self.suspects.extend(batch.again([row], alone=True) for row in batch.rows)
            return None
        if batch.signed < SIGNED_AT_MOST:
            half = math.ceil(len(result.expired) / 2)  # less to do before these expire as well
            for rows in (result.expired[:half], result.expired[half:]):
                if rows:
                    self.again.append(batch.again(rows))
        else:
            reason = f"the signed URL was refused (403), signed {batch.signed} times"
            result.failures += _failed(result.expired, reason, batch.signed).failures
        return result


def _failed(rows: list[Row], reason: str, attempts: int) -> Result:
    failures = [Failure(row.relative_path, reason, attempts) for row in rows]
    return Result(PREDICTION.empty_table(), failures, expired=[])
