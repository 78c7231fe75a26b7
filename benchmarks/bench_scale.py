"""Our own overhead by the number of rows: network and model replaced by stubs of known cost.

For each n, in a fresh process: a real table on the stand-in, read in pages, through `classify` on two worker
processes, to Parquet. Prints a table and writes runs/bench/scale.json: by n, rows_per_s, and the peak memory of
client and scheduler in MiB. The scheduler has a process of its own, so that the two can be told apart.
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

import standin
from helpers import config, model
from helpers.cluster.predictor import Predictor
from helpers.cluster.start import start_cluster
from helpers.files import digest_of, write_json
from helpers.inference.classify import classify
from helpers.snowflake.connection import connect, execute, query, run_file

ROWS = (10_000, 100_000, 1_000_000)
PAGE, BATCH, WORKERS = 50_000, 256, 2
CLASSES = [f"class {i}" for i in range(10)]


class StubPredictor(Predictor):
    """Reads and predicts nothing: every image is the same small one, and the logits are constant."""

    def __init__(self, digest: str):
        self.digest, self.classes = digest, CLASSES
        self.image, self.logits = torch.zeros(3, 1, 1, dtype=torch.uint8), torch.arange(10.0)

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


def pages(connection) -> Iterator[pd.DataFrame]:
    """The table by path, PAGE rows at a time: the stand-in answers each query with one batch."""
    last = ""
    sql = "select file_url, relative_path, size, etag from rows where relative_path > %s order by relative_path limit"
    while len(frame := query(connection, f"{sql} {PAGE}", (last,))):
        yield frame
        last = frame["RELATIVE_PATH"].iloc[-1]


def fill(connection, n: int) -> None:
    run_file(connection, "sql/01_create_database.sql", database_name="BENCH_SCALE")
    execute(
        connection,
        "create or replace table rows as select 'https://account/' || seq as file_url, 'hat/' || lpad(seq, 9, '0') "
        f"|| '.jpg' as relative_path, 1000 as size, md5(seq) as etag from (select seq4()::varchar as seq "
        f"from table(generator(rowcount => {n})))",
    )


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
        before, started = peak_mib(), time.perf_counter()
        summary = classify(
            client, pages(connection), lambda paths: [f"http://stub/{p}" for p in paths], folder / f"run-{n}", path,
            total=n, batch_size=BATCH, progress=False,
        )  # fmt: skip
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
    address, module = folder / f"scheduler-{n}.json", [sys.executable, "-m"]
    # the stubs travel by name, so every process must find this module
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": folder,
        "env": environment,
    }
    options = [
        "--host",
        "127.0.0.1",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        str(address),
    ]
    started = [
        subprocess.Popen(
            [*module, "distributed.cli.dask_scheduler", "--port", "0", *options], **quiet
        )
    ]
    worker = [
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(address),
        "--nthreads",
        "1",
        "--no-nanny",
    ]
    started += [
        subprocess.Popen([*module, *worker, "--no-dashboard"], **quiet) for _ in range(WORKERS)
    ]
    try:
        deadline = time.monotonic() + 120
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        url = json.loads(address.read_text())["address"]
        program = [
            sys.executable,
            "-c",
            "import bench_scale; bench_scale.main()",
            "--one",
            str(n),
            url,
            str(folder),
        ]
        done = subprocess.run(program, stdout=subprocess.PIPE, env=environment, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def main() -> None:
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
    model.save(model.Classifier(model.build("resnet18", len(CLASSES)), card), folder / "model.pt")
    try:
        results = {}
        for n in options.rows:
            results[str(n)] = in_fresh_processes(n, folder)
            print(
                f"{n:>9} rows",
                "  ".join(f"{name} {value}" for name, value in results[str(n)].items()),
                flush=True,
            )
    finally:
        standin.stop(folder / "sandbox")
        shutil.rmtree(folder, ignore_errors=True)
    target = config.runs_folder() / "bench"
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "scale.json", results)


if __name__ == "__main__":
    main()
