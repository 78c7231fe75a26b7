"""Runs with predictions, as notebook 03 leaves them, and what a write-back makes of them."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from snowflake.connector import SnowflakeConnection

from helpers import runs
from helpers.files import write_json
from helpers.snowflake.connection import execute
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
    "t-shirt/a+b.jpg",
    "t-shirt/a#b&c=d.jpg",
    "t-shirt/x;y.jpg",
    "t-shirt/--z.jpg",
]
TEXTS = ("file_url", "relative_path", "etag", "label", "type", "phash", "model_digest")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        ("size", pa.int64()),
        ("confidence", pa.float64()),
        ("logits", pa.list_(pa.float32())),
        ("predicted_at", pa.timestamp("us", "UTC")),
    ]
)
FAILURES = pa.schema(
    [("relative_path", pa.string()), ("reason", pa.string()), ("attempts", pa.int64())]
)
ROWS_A_PART = 3
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def draw_files(folder: Path, paths: Iterable[str] = PATHS, content: str = "") -> Path:
    """Files with different bytes; what is in them does not matter here."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(f"{content or path}".encode())
    return folder


def make_run(
    connection: SnowflakeConnection,
    name: str,
    database: str,
    *,
    model: str = "m1",
    at: datetime = NOON,
    shift: int = 0,
    failed: Sequence[str] = (),
) -> runs.Run:
    """A run that predicts every image of clothing_test.

    Class and confidence follow from the path. shift: of the class, for another opinion.
    failed: paths without a prediction.
    """
    frames = list_images(connection, "clothing_test", "clothing_dataset")
    frame = pd.concat(list(frames), ignore_index=True)
    frame.columns = frame.columns.str.lower()
    frame = frame[~frame["relative_path"].isin(failed)].reset_index(drop=True)
    paths = frame["relative_path"].tolist()
    numbers = [int(hashlib.md5(path.encode()).hexdigest()[:6], 16) for path in paths]
    rows = frame.assign(
        label=[path.split("/")[-2] for path in paths],
        type=[CLASSES[(number + shift) % 3] for number in numbers],
        confidence=[number % 1000 / 1000 for number in numbers],
        logits=[[0.0, 1.0, 2.0]] * len(paths),
        phash="0" * 16,
        model_digest=model,
        predicted_at=[at + timedelta(microseconds=i) for i in range(len(paths))],
    )
    failures = [{"relative_path": path, "reason": "not an image", "attempts": 2} for path in failed]
    return save_run(name, database, rows.to_dict("records"), failures, model)


def save_run(
    name: str,
    database: str,
    rows: Sequence[dict],
    failures: Sequence[dict] = (),
    model: str = "m1",
) -> runs.Run:
    """Write the parts and inference.json of a run."""
    run = runs.start(
        "local",
        database,
        name,
        data_set="drawn",
        data_digest="d",
        test_digest="t",
        classes=CLASSES,
        images={},
        model_digest=model,
    )
    _write_parts(run.predictions, rows, SCHEMA)
    _write_parts(run.folder / "failures", failures, FAILURES)
    summary = {
        "predicted": len(rows),
        "failed": len(failures),
        "arch": "resnet18",
        "classes": CLASSES,
        "model_digest": model,
    }
    write_json(run.folder / "inference.json", summary)
    return run


def _write_parts(folder: Path, rows: Sequence[dict], schema: pa.Schema) -> None:
    """In the place of the parts that are there."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for start in range(0, len(rows), ROWS_A_PART):
        part = pa.Table.from_pylist(list(rows[start : start + ROWS_A_PART]), schema=schema)
        pq.write_table(part, folder / f"part-{start:06d}.parquet")


def rows_of(run: runs.Run) -> list[dict]:
    """The predictions of a run."""
    rows = []
    for part in sorted(run.predictions.glob("*.parquet")):
        rows += pq.read_table(part).to_pylist()
    return rows


def tables_of(
    connection: SnowflakeConnection, target: str = "clothing_test"
) -> tuple[list, list, list]:
    """Everything that a write-back may change, but for the time at which a failure was seen."""
    images = (
        f"select relative_path, size, type, confidence, pred_timestamp from {target} order by 1"
    )
    log = "select * from clothing_prediction_log order by run, relative_path, etag, predicted_at"
    failures = "select run, relative_path, reason, attempts from clothing_failure order by 1, 2"
    return execute(connection, images), execute(connection, log), execute(connection, failures)


def temporary_left(connection: SnowflakeConnection) -> list[str]:
    """Staging tables and stages that this session sees, whoever made them."""
    tables = execute(connection, "show tables like 'STAGED%'")
    stages = execute(connection, "show stages like 'STAGED%'")
    return [row[1] for row in tables + stages]
