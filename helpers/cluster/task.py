"""The task that the client submits for each batch of images, and what goes there and back.

Dask's scheduler imports this module to read the tasks, and has no use for torch: it is imported
on the workers only.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
from distributed import get_worker

from helpers.records import PREDICTION, Failure, Row

if TYPE_CHECKING:
    from torch import Tensor

    from helpers.cluster.predictor import Predictor


@dataclass
class Batch:
    """Images for one task. Its text, which Dask may log, does not show the signed URLs."""

    rows: list[Row]
    urls: list[str] = field(repr=False)  # one for each row
    model: str  # digest of the one that must predict
    signed: int = 1  # how often these images have been signed
    alone: bool = False  # nothing else runs beside it

    def again(self, rows: list[Row], alone: bool = False) -> "Batch":
        """Some of the images, to be signed anew."""
        return Batch(rows, [], self.model, self.signed + 1, alone)


@dataclass
class Result:
    """What became of a batch: each of its rows is in exactly one of the three."""

    predictions: pa.Table  # of PREDICTION
    failures: list[Failure]
    expired: list[Row]  # to be signed anew


def classify_batch(batch: Batch) -> Result:
    """Predict one batch on a worker: the task that the client submits."""
    from helpers.images import ImageError, UrlExpired

    predictor = getattr(get_worker(), "predictor", None)
    if predictor is None or predictor.digest != batch.model:
        raise RuntimeError(
            "The worker does not hold the model of this run. Call send_model before classify, "
            "and again if its file has changed."
        )
    good = []
    failures = []
    expired = []
    for row, found in zip(batch.rows, predictor.read_all(batch.urls), strict=True):
        if isinstance(found, UrlExpired):
            expired.append(row)
        elif isinstance(found, ImageError):
            failures.append(Failure(row.relative_path, found.reason, found.attempts))
        else:
            image, phash = found
            good.append((row, image, phash))
    return Result(_predictions(predictor, good), failures, expired)


def _predictions(predictor: "Predictor", good: "list[tuple[Row, Tensor, str]]") -> pa.Table:
    """A row of PREDICTION for each image that was read.

    good: each image's row, (3, S, S) uint8 pixels, and perceptual hash.
    """
    if not good:
        return PREDICTION.empty_table()
    import torch

    rows, images, hashes = zip(*good, strict=True)
    logits, probabilities = predictor.predict(torch.stack(images))  # (B, n_classes) each
    confidence, index = probabilities.max(1)  # (B,) each
    columns = {
        "file_url": [row.file_url for row in rows],
        "relative_path": [row.relative_path for row in rows],
        "etag": [row.etag for row in rows],
        "size": [row.size for row in rows],
        # an image that lies in no class folder has no label, and can be predicted all the same
        "label": [PurePosixPath(row.relative_path).parent.name for row in rows],
        "type": [predictor.classes[i] for i in index.tolist()],
        "confidence": confidence.tolist(),
        "logits": logits.tolist(),
        "phash": list(hashes),
        "model_digest": [predictor.digest] * len(rows),
        "predicted_at": [datetime.now(UTC)] * len(rows),
    }
    return pa.table(columns, schema=PREDICTION)
