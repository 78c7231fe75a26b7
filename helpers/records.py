"""The columns of a prediction and of a failure, said once.

They are the same on the workers, in Parquet parts, and in Snowflake.
"""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow.dataset import Dataset, dataset

TIME = pa.timestamp("us", tz="UTC")

# a prediction as a worker makes it and as a Parquet part holds it
PREDICTION = pa.schema(
    {
        "file_url": pa.string(),
        "relative_path": pa.string(),
        "etag": pa.string(),  # of the version of the image that was predicted
        "size": pa.int64(),  # bytes
        "label": pa.string(),  # the image's lowest folder, "" where it lies in none
        "type": pa.string(),  # the predicted class
        "confidence": pa.float64(),  # calibrated, from 0 to 1
        "logits": pa.list_(pa.float32()),  # the network's raw outputs, one for each class
        "phash": pa.string(),  # perceptual hash, 16 hexadecimal digits
        "model_digest": pa.string(),  # SHA-256 of the checkpoint
        "predicted_at": TIME,
    }
)
FAILURE = pa.schema({"relative_path": pa.string(), "reason": pa.string(), "attempts": pa.int64()})

# what goes on into Snowflake; labels, logits and hashes stay in the run's folder
WRITTEN = (
    "file_url",
    "relative_path",
    "etag",
    "size",
    "type",
    "confidence",
    "model_digest",
    "predicted_at",
)
WRITTEN_PREDICTION = pa.schema([PREDICTION.field(name) for name in WRITTEN])
SQL_TYPES = {pa.string(): "text", pa.int64(): "number", pa.float64(): "float", TIME: "timestamp_tz"}


class Row(NamedTuple):
    """An image to predict, as the stage's listing has it."""

    file_url: str
    relative_path: str
    size: int  # bytes
    etag: str


class Failure(NamedTuple):
    """An image that could not be predicted, and why: a row of FAILURE."""

    relative_path: str
    reason: str
    attempts: int


def failure_table(failures: list[Failure]) -> pa.Table:
    """Rows of FAILURE.

    >>> failure_table([Failure("hat/a.jpg", "not a readable image", 1)]).to_pylist()
    [{'relative_path': 'hat/a.jpg', 'reason': 'not a readable image', 'attempts': 1}]
    """
    return pa.Table.from_pylist([failure._asdict() for failure in failures], schema=FAILURE)


def on_disk(folder: Path, schema: pa.Schema) -> Dataset:
    """The Parquet parts of a folder as one table, which is read only when asked for."""
    return dataset(sorted(folder.glob("part-*.parquet")), schema=schema)


def sql_columns(schema: pa.Schema) -> str:
    """The columns of a schema as CREATE TABLE takes them.

    >>> sql_columns(FAILURE)
    'relative_path text, reason text, attempts number'
    """
    return ", ".join(f"{field.name} {SQL_TYPES[field.type]}" for field in schema)
