"""Classify a table of images on a Dask cluster: chunks in, Parquet parts out.

Each image is exactly one row, of predictions or of failures.
"""

import logging
import time
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
from distributed import Client, performance_report
from distributed.comm import CommClosedError
from tqdm.auto import tqdm

from helpers.cluster.loading import loaded_models, send_model
from helpers.files import digest_of, owned, write_json
from helpers.inference.parts import Parts
from helpers.inference.schedule import Flight, Sign, batches
from helpers.inference.worklist import Worklist
from helpers.model import read_card

# Dask warns that it cannot tell the size of its report's own message
logging.getLogger("distributed.sizeof").setLevel(logging.ERROR)
# what the summary says of the model
CARD = ("arch", "classes", "image_size", "temperature", "data_set", "data_digest")


def classify(
    client: Client,
    images: Iterable[pd.DataFrame],
    sign: Sign,
    run_folder: Path | str,
    model_path: Path | str,
    *,
    total: int | None = None,
    complete: bool = False,
    batch_size: int = 32,
    chunk: int = 1024,
    part_rows: int = 20_000,
    part_seconds: float = 10,
    progress: bool = True,
    report: bool = True,
) -> dict:
    """Predict every image of the frames `images` that has no prediction in `run_folder` yet.

    images: frames of FILE_URL, RELATIVE_PATH, SIZE, ETAG, and URL. sign: paths to URLs, for what
    was refused; for frames without URL too, late, `chunk` paths at a time. total: rows to come,
    for the progress bar. complete: whether the frames are the whole table, so that earlier
    predictions of images that they lack are dropped; otherwise those stay, and count as listed.
    A part is written at `part_rows` rows or after `part_seconds`.
    Returns the summary, also in inference.json. Raises BlockingIOError where another process
    predicts in this folder, ConnectionError if the scheduler is lost, RuntimeError if not
    listed = predicted + failed; finished parts stay, and a new call does only what is missing.
    """
    started = time.perf_counter()
    model = digest_of(model_path)
    card = read_card(model_path)
    parts = Parts(Path(run_folder), part_rows, part_seconds)
    with owned(parts.folder, "Wait for its end, or start another run with notebook 01."):
        work = Worklist(images, parts.begin(model))
        with ExitStack() as stack:
            stack.enter_context(_loss_named(client, parts.folder))
            if set(loaded_models(client).values()) != {model}:
                send_model(client, model_path)
            if report:
                stack.enter_context(client.as_current())
                stack.enter_context(performance_report(str(parts.folder / "dask-report.html")))
            bar = stack.enter_context(tqdm(total=total, unit="image", disable=not progress))
            stack.callback(parts.flush)
            workers = client.nthreads()
            waiting = batches(work, sign, model, batch_size, chunk, sum(workers.values()))
            for result in Flight(client, waiting, sign):
                parts.add(result)
                bar.set_postfix(failures=parts.failed, refresh=False)
                bar.update(work.done + work.duplicates + parts.predicted + parts.failed - bar.n)
        left_out = parts.finish(work.predicted[~work.present], None if complete else work.lists)
        seconds = time.perf_counter() - started
        counts = {"listed": work.listed + left_out, **parts.on_disk()}
        if counts["listed"] != counts["predicted"] + counts["failed"]:
            raise RuntimeError(
                f"{counts} does not add up in {parts.folder}. Move its predictions away, run again."
            )
        summary = counts | {
            "duplicates": work.duplicates,
            "predicted_before": work.done + left_out,
            "complete": complete,
            "seconds": round(seconds, 2),
            "workers": len(workers),
            "images_per_s": round(parts.predicted / seconds, 2),
            "model_digest": model,
            **{name: getattr(card, name) for name in CARD},
        }
        write_json(parts.folder / "inference.json", summary)
        return summary


def plan(
    summary: dict,
    predictions: pd.DataFrame,
    n_workers: int,
    urls_per_s: float,
    n: int = 10**8,
    hours: float = 8,
) -> list[str]:
    """What `n` images in `hours` would need, in sentences, from what a run measured.

    predictions: some of the run's, with their size. n_workers: of that run. urls_per_s: how many
    images the client listed and signed in a second.

    >>> summary = {"predicted": 600, "images_per_s": 40.0}
    >>> files = pd.DataFrame({"size": [50_000, 70_000]})  # bytes
    >>> print(*plan(summary, files, n_workers=2, urls_per_s=9_000), sep="\\n")
    20.0 images/s a worker: 100,000,000 images are 1,389 worker-hours, 174 such workers for 8 hours.
    Together they read 208 MB/s from the stage.
    The client signed 9,000 URLs/s and 3,472 are needed: the workers stay the bottleneck.
    """
    if not summary["predicted"] or not summary["images_per_s"]:
        return ["This call predicted nothing, so there is nothing to work out."]
    per_worker = summary["images_per_s"] / n_workers
    needed = n / (hours * 3600)  # images/s
    worker_hours = n / per_worker / 3600
    megabytes_per_s = needed * predictions["size"].mean() / 1e6
    bottleneck = "the workers stay the" if urls_per_s > needed else "signing is the next"
    return [
        f"{per_worker:,.1f} images/s a worker: {n:,} images are {worker_hours:,.0f} worker-hours, "
        f"{needed / per_worker:,.0f} such workers for {hours:g} hours.",
        f"Together they read {megabytes_per_s:,.0f} MB/s from the stage.",
        f"The client signed {urls_per_s:,.0f} URLs/s and {needed:,.0f} are needed: {bottleneck} "
        "bottleneck.",
    ]


@contextmanager
def _loss_named(client: Client, folder: Path) -> Generator[None, None, None]:
    """Turns what Dask raises when the scheduler goes away into one error that names it."""
    address = getattr(client.scheduler, "address", "(a closed client has none)")
    try:
        yield
    except (Exception, CancelledError) as error:
        lost = client.status != "running" or isinstance(error, CancelledError | CommClosedError)
        if not lost:
            raise
        raise ConnectionError(
            f"The Dask scheduler at {address} is lost. Finished parts are in {folder}: "
            "start a cluster and call again with the same run to go on."
        ) from error
