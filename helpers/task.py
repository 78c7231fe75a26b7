"""The task that the client submits for each batch of images, and what goes there and back.

Dask's scheduler imports this module to read the tasks, and has no use for torch: it is imported on the workers only.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
from distributed import get_worker

if TYPE_CHECKING:
    from helpers.runtime import Predictor

PREDICTION = pa.schema(
    [(name, pa.string()) for name in ("file_url", "relative_path", "etag")]
    + [("size", pa.int64()), ("label", pa.string()), ("type", pa.string()), ("confidence", pa.float64())]
    + [("logits", pa.list_(pa.float32())), ("phash", pa.string()), ("model_digest", pa.string())]
    + [("predicted_at", pa.timestamp("us", tz="UTC"))]
)
FAILURE = pa.schema([("relative_path", pa.string()), ("reason", pa.string()), ("attempts", pa.int64())])

Row = tuple[str, str, int, str]  # file_url, relative_path, size in bytes, etag


@dataclass
class Batch:
    """Images for one task. Its text, which Dask may log, does not show the signed URLs."""

    rows: list[Row]
    urls: list[str] = field(repr=False)
    model: str  # digest of the one that must predict
    signed: int = 1  # how often these images have been signed
    alone: bool = False  # nothing else runs beside it

    def again(self, rows: list[Row], alone: bool = False) -> "Batch":
        """Some of the images, to be signed anew."""
        return Batch(rows, [], self.model, self.signed + 1, alone)


@dataclass
class Result:
    """predictions: of PREDICTION; failures: of FAILURE; expired: rows to sign anew."""

    predictions: pa.Table
    failures: list[tuple[str, str, int]]
    expired: list[Row]


def classify_batch(batch: Batch) -> Result:
    """Predict one batch on a worker: the task that the client submits."""
    from helpers.images import ImageError, UrlExpired

    predictor = getattr(get_worker(), "predictor", None)
    if predictor is None or predictor.digest != batch.model:
        raise RuntimeError(
            "The worker does not hold the model of this run. Call send_model before classify, and again if its "
            "file has changed."
        )
    read = list(zip(batch.rows, predictor.read_all(batch.urls), strict=True))
    errors = [(row, error) for row, error in read if isinstance(error, ImageError)]
    expired = [row for row, error in errors if isinstance(error, UrlExpired)]
    failures = [(row[1], e.reason, e.attempts) for row, e in errors if not isinstance(e, UrlExpired)]
    good = [(row, *found) for row, found in read if not isinstance(found, ImageError)]
    return Result(_predictions(predictor, good), failures, expired)


def _predictions(predictor: "Predictor", good: list[tuple]) -> pa.Table:
    if not good:
        return PREDICTION.empty_table()
    import torch

    rows, images, hashes = zip(*good, strict=True)
    logits, probabilities = predictor.predict(torch.stack(images))
    confidence, index = probabilities.max(1)
    urls, paths, sizes, etags = zip(*rows, strict=True)
    types = [predictor.classes[i] for i in index.tolist()]
    # an image that lies in no class folder has no label, and can be predicted all the same
    labels = [PurePosixPath(path).parent.name for path in paths]
    now, digest = [datetime.now(UTC)] * len(good), [predictor.digest] * len(good)
    columns = [urls, paths, etags, sizes, labels, types, confidence.tolist(), logits.tolist(), hashes, digest, now]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, PREDICTION, strict=True)], schema=PREDICTION)
