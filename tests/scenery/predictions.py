"""Runs with predictions, as notebook 03 leaves them, and the tables that they are written to."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers import runs
from helpers.files import write_json
from helpers.snowflake import stage
from helpers.snowflake.connection import execute, run_file
from helpers.snowflake.listing import list_images

CLASSES = ["hat", "shirt", "t-shirt"]
# what a path may hold, from PUT to the signed URL to the write-back
PATHS = [
    "hat/plain.jpg",
    "hat/a b.jpg",
    "hat/it's.jpg",
    'hat/"q".jpg',
    "shirt/ünï 服.jpg",
    "shirt/50%25.jpg",
]
PATHS += ["t-shirt/a+b.jpg", "t-shirt/a#b&c=d.jpg", "t-shirt/x;y.jpg", "t-shirt/--z.jpg"]
SCHEMA = pa.schema(
    [
        (name, pa.string())
        for name in ("file_url", "relative_path", "etag", "label", "type", "phash", "model_digest")
    ]
    + [("size", pa.int64()), ("confidence", pa.float64()), ("logits", pa.list_(pa.float32()))]
    + [("predicted_at", pa.timestamp("us", "UTC"))]
)
FAILURES = pa.schema(
    [("relative_path", pa.string()), ("reason", pa.string()), ("attempts", pa.int64())]
)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def draw_files(folder: Path, paths=PATHS, content: str = "") -> Path:
    """Files with different bytes; what is in them does not matter here."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(f"{content or path}".encode())
    return folder


def make_tables(connection, folder: Path, database: str) -> None:
    """What notebook 01 makes, in a new database, with the files of `folder` on the test stage."""
    execute(connection, f"create or replace database {database}")
    execute(connection, f"use schema {database}.PUBLIC")
    run_file(connection, "sql/02_create_stages.sql")
    run_file(connection, "sql/03_create_tables.sql")
    stage.sync(connection, folder, "clothing_dataset")
    run_file(connection, "sql/04_load_tables.sql")


def make_run(
    connection,
    name: str,
    database: str,
    *,
    model: str = "m1",
    at: datetime = NOON,
    shift: int = 0,
    failed=(),
):
    """A run that predicts every image of clothing_test, in parts of three rows."""
    frame = pd.concat(
        list(list_images(connection, "clothing_test", "clothing_dataset")), ignore_index=True
    )
    frame.columns = frame.columns.str.lower()
    frame = frame[~frame.relative_path.isin(failed)].reset_index(drop=True)
    number = frame.relative_path.map(
        lambda path: int(hashlib.md5(path.encode()).hexdigest()[:6], 16)
    )
    rows = frame.assign(
        label=frame.relative_path.str.split("/").str[-2],
        type=[CLASSES[(n + shift) % 3] for n in number],
        confidence=(number % 1000) / 1000,
        logits=[[0.0, 1.0, 2.0]] * len(frame),
        phash="0" * 16,
        model_digest=model,
        predicted_at=[at + timedelta(microseconds=i) for i in range(len(frame))],
    )
    failures = [{"relative_path": path, "reason": "not an image", "attempts": 2} for path in failed]
    return save_run(name, database, rows.to_dict("records"), failures, model)


def save_run(
    name: str, database: str, rows: list[dict], failures: list[dict] = (), model: str = "m1"
) -> runs.Run:
    """Write the parts and inference.json of a run."""
    facts = {
        "data_set": "drawn",
        "data_digest": "d",
        "test_digest": "t",
        "classes": CLASSES,
        "images": {},
    }
    run = runs.start("local", database, name, **facts, model_digest=model)
    for kind, content, schema in (("predictions", rows, SCHEMA), ("failures", failures, FAILURES)):
        (run.folder / kind).mkdir(exist_ok=True)
        for old in (run.folder / kind).iterdir():
            old.unlink()
        for i in range(0, len(content), 3):
            table = pa.Table.from_pylist(list(content[i : i + 3]), schema=schema)
            pq.write_table(table, run.folder / kind / f"part-{i:06d}.parquet")
    summary = {
        "predicted": len(rows),
        "failed": len(failures),
        "arch": "resnet18",
        "classes": CLASSES,
    }
    write_json(run.folder / "inference.json", summary | {"model_digest": model})
    return run


def rows_of(run: runs.Run) -> list[dict]:
    """The predictions of a run."""
    return [
        row
        for part in sorted(run.predictions.glob("*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


def tables_of(connection, target: str = "clothing_test") -> tuple[list, list, list]:
    """Everything that a write-back may change, but for the time at which a failure was seen."""
    select = (
        f"select relative_path, size, type, confidence, pred_timestamp from {target} order by 1"
    )
    log = "select * from clothing_prediction_log order by run, relative_path, etag, predicted_at"
    failures = "select run, relative_path, reason, attempts from clothing_failure order by 1, 2"
    return execute(connection, select), execute(connection, log), execute(connection, failures)


def temporary_left(connection) -> list:
    """Staging tables and stages that this session sees, whoever made them."""
    rows = execute(connection, "show tables like 'STAGED%'") + execute(
        connection, "show stages like 'STAGED%'"
    )
    return [row[1] for row in rows]
