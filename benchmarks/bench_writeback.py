"""Write-back on the stand-in beside the bare floor and the guide's way.

Each number of predictions and each way runs in a process of its own, in turns; the median of the
rounds counts. Prints them and writes runs/bench/writeback.json, by number of predictions: seconds
of each way, their ratios, the peak memory of this project's client and of the floor's in MiB.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import make_empty_tables
from snowflake.connector import SnowflakeConnection
from snowflake.connector.pandas_tools import write_pandas

import standin
from helpers import config, runs
from helpers.files import write_json
from helpers.records import WRITTEN, WRITTEN_PREDICTION, sql_columns
from helpers.snowflake import writeback
from helpers.snowflake.connection import connect, execute

CLASSES = [
    "dress",
    "hat",
    "longsleeve",
    "outwear",
    "pants",
    "shirt",
    "shoes",
    "shorts",
    "skirt",
    "t-shirt",
]
PART_ROWS = 20_000  # as notebook 03 writes them
DIGEST = "a" * 64
HOST = "https://account.snowflakecomputing.com/api/files/BENCH/PUBLIC/CLOTHING_DATASET"
EMPTY = "update clothing_test set pred_timestamp = null, type = null, confidence = null"
SET = "type = s.type, confidence = s.confidence, pred_timestamp = s.predicted_at"


def make_run(n: int) -> runs.Run:
    """A run of n predictions with logits and hashes, in parts as notebook 03 writes them."""
    run = runs.Run(
        f"bench-{n}", "local", "BENCH", "made", "d", "t", CLASSES, {"test": n}, DIGEST
    ).save()
    run.predictions.mkdir()
    random = np.random.default_rng(0)
    for part, start in enumerate(range(0, n, PART_ROWS)):
        table = predictions(random, start, min(PART_ROWS, n - start))
        pq.write_table(table, run.predictions / f"part-{part:06d}.parquet", compression="zstd")
    summary = {
        "predicted": n,
        "failed": 0,
        "arch": "resnet18",
        "classes": CLASSES,
        "model_digest": DIGEST,
    }
    write_json(run.folder / "inference.json", summary)
    return run


def predictions(random: np.random.Generator, start: int, n: int) -> pa.Table:
    """A part of n predictions, as a worker makes them; `start` counts the images before it."""
    types = [CLASSES[i] for i in random.integers(0, len(CLASSES), n)]
    paths = [f"{name}/{start + i:08d}.jpg" for i, name in enumerate(types)]
    logits = random.normal(size=(n, len(CLASSES))).astype("float32")
    columns = {
        "file_url": [f"{HOST}/{path.replace('/', '%2f')}" for path in paths],
        "relative_path": paths,
        "etag": [random.bytes(16).hex() for _ in paths],
        "size": pa.array(random.integers(5_000, 500_000, n)),
        "label": types,
        "type": types,
        "confidence": random.random(n),
        "logits": pa.array(list(logits), pa.list_(pa.float32())),
        "phash": [random.bytes(8).hex() for _ in paths],
        "model_digest": [DIGEST] * n,
        "predicted_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * n, pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def make_tables(run: runs.Run) -> None:
    """The tutorial's tables, with a row for each image of the run."""
    connection = connect("local")
    make_empty_tables(connection, "BENCH")
    inference, _, _ = writeback.check(run)
    writeback.stage(connection, "IMAGES", run, inference)
    columns = "file_url, relative_path, size"
    execute(connection, f"insert into clothing_test ({columns}) select {columns} from images")
    writeback.unstage(connection, "IMAGES")
    connection.close()


def ours(connection: SnowflakeConnection, run: runs.Run) -> dict:
    """Seconds of helpers.writeback, checks, staging, lineage and reconciliation included."""
    execute(connection, EMPTY)
    execute(connection, "truncate table clothing_prediction_log")
    started = time.perf_counter()
    counts = writeback.write_back(connection, run)
    assert counts.updated == counts.predictions == run.images["test"], counts
    return {"seconds": time.perf_counter() - started}


def floor(connection: SnowflakeConnection, run: runs.Run) -> dict:
    """Seconds of one write_pandas in snappy and one MERGE on the same columns: no check, no log."""
    execute(connection, EMPTY)
    frame = pq.read_table(run.predictions, columns=list(WRITTEN)).to_pandas()
    frame.columns = frame.columns.str.upper()
    started = time.perf_counter()
    columns = sql_columns(WRITTEN_PREDICTION)
    execute(connection, f"create or replace temporary table staged ({columns})")
    write_pandas(connection, frame, "STAGED", use_logical_type=True, compression="snappy")
    execute(
        connection,
        "merge into clothing_test as t using staged as s "
        "on t.file_url = s.file_url and t.size = s.size "
        f"when matched then update set {SET}",
    )
    return {"seconds": time.perf_counter() - started}


def guide(connection: SnowflakeConnection, run: runs.Run) -> dict:
    """Seconds of the guide's way: a permanent table, write_pandas, UPDATE … FROM, drop."""
    execute(connection, EMPTY)
    columns = ["file_url", "size", "type", "confidence", "predicted_at"]
    frame = pq.read_table(run.predictions, columns=columns).to_pandas()
    frame.columns = frame.columns.str.upper()
    started = time.perf_counter()
    types = "file_url text, size number, type text, confidence float, predicted_at timestamp_ltz"
    execute(connection, f"create or replace table clothing_temp ({types})")
    write_pandas(connection, frame, "CLOTHING_TEMP")
    where = "clothing_test.file_url = s.file_url and clothing_test.size = s.size"
    execute(connection, f"update clothing_test set {SET} from clothing_temp as s where {where}")
    execute(connection, "drop table clothing_temp")
    return {"seconds": time.perf_counter() - started}


WAYS = {"ours": ours, "floor": floor, "guide": guide}


def measure(way: str, n: int) -> dict:
    """One way, once, in this process."""
    connection = connect("local", "BENCH")
    result = WAYS[way](connection, runs.open_run(f"bench-{n}", "local", "BENCH"))
    connection.close()
    return result | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def compare(n: int, rounds: int) -> dict:
    """The three ways in turns, each in a fresh process."""
    make_tables(make_run(n))
    results = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-W", "ignore", __file__, "--way", way, "--n", str(n)]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[way].append(json.loads(shown.splitlines()[-1]))
    seconds = {way: statistics.median(r["seconds"] for r in results[way]) for way in WAYS}
    peak = {way: max(r["peak_mib"] for r in results[way]) for way in WAYS}
    return {
        "seconds": round(seconds["ours"], 2),
        "floor_seconds": round(seconds["floor"], 2),
        "guide_seconds": round(seconds["guide"], 2),
        "ratio_to_floor": round(seconds["ours"] / seconds["floor"], 2),
        "ratio_to_guide": round(seconds["ours"] / seconds["guide"], 2),
        "client_peak_mib": round(peak["ours"]),
        "floor_peak_mib": round(peak["floor"]),
        "rounds": {way: [round(r["seconds"], 2) for r in results[way]] for way in WAYS},
    }


def main() -> None:
    """Measure in a folder and a stand-in of its own, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="predictions"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.n[0])))
        return
    target = config.runs_folder() / "bench" / "writeback.json"
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TUTORIAL_HOME": folder, "TUTORIAL_SANDBOX": str(Path(folder) / "sandbox")}
        try:
            for n in options.n:
                result = compare(n, options.rounds)
                results[str(n)] = result
                shown = {name: value for name, value in result.items() if name != "rounds"}
                print(f"{n:9,}", shown, flush=True)
        finally:
            standin.stop()
    write_json(target, results)
    print(target)


if __name__ == "__main__":
    main()
