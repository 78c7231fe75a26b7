"""Numbers about a run's predictions: how good, where wrong, how sure, and which images to look at."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow.dataset
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score

N_BINS = 15  # of the calibration error
N_RESAMPLES = 1000
COLUMNS = ["relative_path", "label", "type", "confidence", "phash"]


@dataclass(frozen=True)
class Predictions:
    """What one run predicted: a table with a row an image, and the raw logits (N, C) in the same order."""

    table: pd.DataFrame  # COLUMNS and right (bool)
    logits: np.ndarray
    classes: list[str]
    temperature: float

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) index of each true class; -1 where the model does not know it."""
        return pd.Index(self.classes).get_indexer(self.table.label)

    def probabilities(self, temperature: float | None = None) -> np.ndarray:
        """(N, C) in [0, 1], after the model's own temperature unless another is given."""
        scaled = self.logits / (temperature or self.temperature)
        exponentials = np.exp(scaled - scaled.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)


def load_predictions(folder: Path) -> Predictions:
    """The predictions in a run folder, without the columns that a review does not need."""
    about = json.loads((folder / "inference.json").read_text())
    parts = sorted((folder / "predictions").glob("part-*.parquet"))
    if not parts:
        empty = pd.DataFrame(columns=COLUMNS).assign(right=np.zeros(0, bool))
        return Predictions(
            empty, np.zeros((0, len(about["classes"])), np.float32), about["classes"], 1.0
        )
    content = pyarrow.dataset.dataset(parts).to_table([*COLUMNS, "logits"])
    logits = content["logits"].combine_chunks().flatten().to_numpy().reshape(len(content), -1)
    table = content.select(COLUMNS).to_pandas()
    return Predictions(
        table.assign(right=table.label == table.type),
        logits,
        about["classes"],
        about["temperature"],
    )


def load_failures(folder: Path) -> pd.DataFrame:
    """relative_path, reason and attempts of the images that could not be predicted."""
    parts = [pd.read_parquet(path) for path in sorted((folder / "failures").glob("part-*.parquet"))]
    return (
        pd.concat(parts) if parts else pd.DataFrame(columns=["relative_path", "reason", "attempts"])
    )


def metrics(probabilities: np.ndarray, labels: ArrayLike, classes: list[str]) -> dict:
    """How good predictions are: plain numbers, ready for JSON; None of them if N == 0.

    probabilities: (N, C); labels: (N,) indices into classes, -1 for a class that the model does not know.
    accuracy_95 is Wilson's 95 % interval; ece the expected calibration error in 15 bins (Guo et al. 2017); ece_95
    the value that a perfectly calibrated model with these confidences stays below 95 times in 100.
    """
    labels, n = np.asarray(labels), len(labels)
    if n == 0:
        return {"n": 0} | dict.fromkeys(
            ("accuracy", "accuracy_95", "top3", "macro_f1", "ece", "ece_95", "recall")
        )
    order = np.argsort(-probabilities, axis=1, kind="stable")
    right = order[:, 0] == labels
    ece, ece_95 = calibration_error(probabilities.max(1), right)
    found = {name: right[labels == index] for index, name in enumerate(classes)}
    return {
        "n": n,
        "accuracy": float(right.mean()),
        "accuracy_95": interval(int(right.sum()), n),
        "top3": float((order[:, :3] == labels[:, None]).any(1).mean()),
        "macro_f1": float(f1_score(labels, order[:, 0], average="macro", zero_division=0)),
        "ece": ece,
        "ece_95": ece_95,
        "recall": {name: float(hits.mean()) if len(hits) else None for name, hits in found.items()},
    }


def interval(hits: int, n: int) -> list[float]:
    """Wilson's 95 % interval of the share hits / n; [0, 1] for n == 0."""
    if n == 0:
        return [0.0, 1.0]
    z, share = 1.959964, hits / n
    centre, spread = (
        share + z**2 / (2 * n),
        z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5,
    )
    return [
        max(0.0, (centre - spread) / (1 + z**2 / n)),
        min(1.0, (centre + spread) / (1 + z**2 / n)),
    ]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """ece and ece_95 as in `metrics`."""
    bins, random = bins_of(confidence), np.random.default_rng(0)

    def error(hits: np.ndarray) -> float:
        return float(np.abs(np.bincount(bins, hits - confidence)).sum() / len(bins))

    calibrated = [error(random.random(len(bins)) < confidence) for _ in range(N_RESAMPLES)]
    return error(right), float(np.percentile(calibrated, 95))


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) index of the bin, open below and closed above, that each confidence falls into."""
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)


def calibration_bins(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy with its 95 % interval (low, high) and n of each bin that is not empty."""
    table = pd.DataFrame({"bin": bins_of(confidence), "confidence": confidence, "right": right})
    bins = table.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("right", "mean"), n=("right", "size")
    )
    limits = [interval(round(row.accuracy * row.n), int(row.n)) for row in bins.itertuples()]
    return bins.assign(low=[low for low, _ in limits], high=[high for _, high in limits])


def headline(predictions: Predictions, failures: pd.DataFrame) -> dict:
    """`metrics` of a run with its failures, and the constant guess of the most frequent class as a baseline."""
    result = metrics(predictions.probabilities(), predictions.labels, predictions.classes)
    shares = predictions.table.label.value_counts(normalize=True)
    baseline = (
        {"class": shares.index[0], "accuracy": float(shares.iloc[0])} if len(shares) else None
    )
    return result | {"failures": len(failures), "baseline": baseline}


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Counts by true class (rows) and predicted class (columns)."""
    table, names = predictions.table, predictions.classes
    names = names + sorted(set(table.label) - set(names))
    return pd.crosstab(table.label, table.type).reindex(index=names, columns=names, fill_value=0)


def by_class(counts: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """n, recall with its 95 % interval, precision, F1 and failures of each class; NaN where there is none to count."""
    hits, n, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    low, high = zip(*(interval(int(h), int(m)) for h, m in zip(hits, n)))
    failed = failures.relative_path.map(lambda path: PurePosixPath(path).parent.name).value_counts()
    table = pd.DataFrame(
        {
            "n": n,
            "recall": hits / n,
            "recall_low": low,
            "recall_high": high,
            "precision": hits / called,
        }
    )
    return table.assign(
        f1=2 * hits / (n + called), failures=failed.reindex(counts.index, fill_value=0)
    )


def most_confused(counts: pd.DataFrame, n: int = 5) -> list[str]:
    """The pairs of classes with the most errors, as sentences."""
    pairs = (
        counts.where(~np.eye(len(counts), dtype=bool), 0)
        .stack()
        .sort_values(ascending=False, kind="stable")
        .head(n)
    )
    return [
        f"{k} of {counts.loc[a].sum()} images of {a} were called {b}."
        for (a, b), k in pairs.items()
        if k
    ]


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the images answered, and accuracy on them, for each threshold on confidence (at most 2,000 rows)."""
    ranked, rank = table.sort_values("confidence", ascending=False), np.arange(1, len(table) + 1)
    curve = pd.DataFrame({"threshold": ranked.confidence, "coverage": rank / max(1, len(table))})
    curve = curve.assign(accuracy=ranked.right.cumsum() / rank).drop_duplicates(
        "threshold", keep="last"
    )
    return curve.iloc[:: -(-len(curve) // 2000) or 1]


def threshold_for(curve: pd.DataFrame, accuracy: float = 0.95) -> tuple[pd.Series | None, str]:
    """The row of the lowest threshold that reaches `accuracy`, if any does, and what it means in a sentence."""
    reached = curve[curve.accuracy >= accuracy]
    if not len(reached):
        return None, f"No threshold reaches an accuracy of {accuracy}."
    row = reached.iloc[-1]
    answered = f"At a confidence of {row.threshold:.2f} or more, {row.coverage:.0%} of the images are answered"
    return row, f"{answered}, with an accuracy of {row.accuracy:.3f}."


def suspicious_labels(predictions: Predictions) -> pd.DataFrame:
    """Images whose label may be wrong, the strongest disagreement first.

    Those called another class with at least the probability that this class's own images get on average
    ("confident learning", Northcutt et al. 2021).
    """
    probabilities, labels, table = (
        predictions.probabilities(),
        predictions.labels,
        predictions.table,
    )
    own = table.assign(own=np.where(labels < 0, 0, probabilities[np.arange(len(labels)), labels]))
    usual = table.type.map(own.groupby("label").own.mean())
    chosen = own[~own.right & (own.confidence >= usual)]
    return chosen.iloc[np.argsort(chosen.own - chosen.confidence, kind="stable")]
