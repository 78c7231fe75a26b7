"""Our own overhead by the number of rows: network and model replaced by stubs of known cost.

For each n, in a fresh process: a real table on the stand-in, read in pages, through `classify` on
two worker processes, to Parquet. Prints a table and writes runs/bench/scale.json: by n, rows_per_s,
and the peak memory of client and scheduler in MiB. The scheduler has a process of its own, so that
the two can be told apart.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from distributed import WorkerPlugin
from snowflake.connector import SnowflakeConnection

import standin
from helpers import config, model
from helpers.cluster.predictor import Predictor
from helpers.cluster.start import start_cluster
from helpers.files import digest_of, write_json
from helpers.inference.classify import classify
from helpers.snowflake.connection import connect, execute, query
from helpers.snowflake.sql_files import run_file
from helpers.training.pretrained import build

ROWS = (10_000, 100_000, 1_000_000)
PAGE = 50_000
BATCH = 256
WORKERS = 2
CLASSES = [f"class {i}" for i in range(10)]


class StubPredictor(Predictor):
    """Reads and predicts nothing: every image is the same small one, every logit constant."""

    def __init__(self, digest: str):
        self.digest = digest
        self.classes = CLASSES
        self.image = torch.zeros(3, 1, 1, dtype=torch.uint8)
        self.logits = torch.arange(10.0)

    def read_all(self, urls: list[str]) -> list:
        return [(self.image, "0123456789abcdef")] * len(urls)

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits.expand(len(images), -1)
        return logits, logits.softmax(1)


class StubPlugin(WorkerPlugin):
    """In the place of the model."""

    name = "model"

    def __init__(self, digest: str):
        self.digest = digest

    def setup(self, worker) -> None:
        worker.predictor = StubPredictor(self.digest)


def pages(connection: SnowflakeConnection) -> Iterator[pd.DataFrame]:
    """The table by path, PAGE rows at a time: the stand-in answers each query with one batch."""
    sql = (
        "select file_url, relative_path, size, etag from rows "
        f"where relative_path > %s order by relative_path limit {PAGE}"
    )
    frame = query(connection, sql, ("",))
    while len(frame):
        yield frame
        frame = query(connection, sql, (frame["RELATIVE_PATH"].iloc[-1],))


def fill(connection: SnowflakeConnection, n: int) -> None:
    """A table of n images, in a database of its own."""
    run_file(connection, "sql/01_create_database.sql", database_name="BENCH_SCALE")
    execute(
        connection,
        "create or replace table rows as "
        "select 'https://account/' || seq as file_url, "
        "'hat/' || lpad(seq, 9, '0') || '.jpg' as relative_path, "
        "1000 as size, md5(seq) as etag "
        f"from (select seq4()::varchar as seq from table(generator(rowcount => {n})))",
    )


def sign(paths: list[str]) -> list[str]:
    """URLs that nobody reads."""
    return [f"http://stub/{path}" for path in paths]


def peak_mib() -> float:
    """Peak resident memory of this process on Linux."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def measure(n: int, scheduler: str, folder: Path) -> dict:
    """What the fresh process for one n does."""
    path = folder / "model.pt"
    connection = connect("local")
    fill(connection, n)
    with start_cluster(scheduler) as client:
        client.wait_for_workers(WORKERS)
        client.register_plugin(StubPlugin(digest_of(path)))
        before = peak_mib()
        started = time.perf_counter()
        summary = classify(
            client,
            pages(connection),
            sign,
            folder / f"run-{n}",
            path,
            total=n,
            batch_size=BATCH,
            progress=False,
        )
        seconds = time.perf_counter() - started
        # a function of this module would bring torch into the scheduler, which has no use for it
        usage = client.run_on_scheduler(resource.getrusage, resource.RUSAGE_SELF)
    connection.close()
    assert summary["predicted"] == n, summary
    return {
        "rows_per_s": round(n / seconds),
        "client_peak_mib": peak_mib(),
        "client_before_mib": before,
        "scheduler_peak_mib": round(usage.ru_maxrss / 1024, 1),  # KiB on Linux
    }


def in_fresh_processes(n: int, folder: Path) -> dict:
    """Starts scheduler, workers and client for one n, and stops them."""
    address = folder / f"scheduler-{n}.json"
    # the stubs travel by name, so every process must find this module
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}

    def start(module: str, options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", module, "--scheduler-file", str(address), *options.split()]
        silent = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=silent, stderr=silent, cwd=folder, env=environment)

    scheduler = "--host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0"
    started = [start("distributed.cli.dask_scheduler", scheduler)]
    worker = "--nthreads 1 --no-nanny --no-dashboard"
    started += [start("distributed.cli.dask_worker", worker) for _ in range(WORKERS)]
    try:
        deadline = time.monotonic() + 120
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        url = json.loads(address.read_text())["address"]
        program = [sys.executable, "-c", "import bench_scale; bench_scale.main()"]
        program += ["--one", str(n), url, str(folder)]
        done = subprocess.run(program, stdout=subprocess.PIPE, env=environment, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def main() -> None:
    """Measure each n in a stand-in of its own, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument(
        "--one", nargs=3, metavar=("N", "SCHEDULER", "FOLDER"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.one:
        n, scheduler, folder = options.one
        print(json.dumps(measure(int(n), scheduler, Path(folder))))
        return
    folder = Path(tempfile.mkdtemp())
    os.environ["TUTORIAL_SANDBOX"] = str(folder / "sandbox")
    card = model.ModelCard("resnet18", CLASSES, 64, "bench", "bench")
    model.save(model.Classifier(build("resnet18", len(CLASSES)), card), folder / "model.pt")
    try:
        results = {}
        for n in options.rows:
            result = in_fresh_processes(n, folder)
            results[str(n)] = result
            shown = "  ".join(f"{name} {value}" for name, value in result.items())
            print(f"{n:>9} rows", shown, flush=True)
    finally:
        standin.stop(folder / "sandbox")
        shutil.rmtree(folder, ignore_errors=True)
    write_json(config.runs_folder() / "bench" / "scale.json", results)


if __name__ == "__main__":
    main()
