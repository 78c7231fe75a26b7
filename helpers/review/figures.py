"""Numbers about a run: how good, where wrong, how sure, and which images to look at."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from helpers.records import FAILURE, PREDICTION, on_disk

N_BINS = 15  # of the calibration error
N_RESAMPLES = 1000
MAX_ROWS = 40  # classes in a gallery, which is an image file of limited height
MAX_POINTS = 2000  # of a coverage curve
COLUMNS = ["relative_path", "label", "type", "confidence", "phash"]  # of PREDICTION
METRICS = ("accuracy", "accuracy_95", "top3", "macro_f1", "ece", "ece_95", "recall")


@dataclass(frozen=True)
class Predictions:
    """What one run predicted: a table with a row an image, and the logits in the same order."""

    table: pd.DataFrame  # COLUMNS and right (bool)
    logits: np.ndarray  # (N, C), raw
    classes: list[str]
    temperature: float

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) index of each true class; -1 where the model does not know it."""
        return pd.Index(self.classes).get_indexer(self.table.label)

    def probabilities(self, temperature: float | None = None) -> np.ndarray:
        """(N, C) in [0, 1], after the model's own temperature unless another is given."""
        return softmax(self.logits / (temperature or self.temperature), axis=1)


def load_predictions(folder: Path) -> Predictions:
    """The predictions in a run folder, without the columns that a review does not need."""
    about = json.loads((folder / "inference.json").read_text())
    parts = on_disk(folder / "predictions", PREDICTION).to_table([*COLUMNS, "logits"])
    logits = parts["logits"].combine_chunks().flatten().to_numpy()
    table = parts.select(COLUMNS).to_pandas()
    return Predictions(
        table.assign(right=table.label == table.type),
        logits.reshape(len(table), len(about["classes"])),
        about["classes"],
        about["temperature"],
    )


def load_failures(folder: Path) -> pd.DataFrame:
    """relative_path, reason and attempts of the images that could not be predicted."""
    return on_disk(folder / "failures", FAILURE).to_table().to_pandas()


def metrics(probabilities: np.ndarray, labels: ArrayLike, classes: list[str]) -> dict:
    """How good predictions are: plain numbers, ready for JSON; None of them if N == 0.

    probabilities: (N, C); labels: (N,) indices into classes, -1 for a class that the model does
    not know. accuracy_95 is Wilson's 95 % interval; ece the expected calibration error in 15 bins
    (Guo et al. 2017); ece_95 the value that a perfectly calibrated model with these confidences
    stays below 95 times in 100.

    >>> metrics(np.array([[0.9, 0.1], [0.6, 0.4]]), [0, 1], ["hat", "shirt"])["recall"]
    {'hat': 1.0, 'shirt': 0.0}
    """
    labels = np.asarray(labels)
    n = len(labels)
    if n == 0:
        return {"n": 0} | dict.fromkeys(METRICS)
    order = np.argsort(-probabilities, axis=1, kind="stable")  # (N, C), the likeliest class first
    right = order[:, 0] == labels
    in_top3 = (order[:, :3] == labels[:, None]).any(axis=1)
    ece, ece_95 = calibration_error(probabilities.max(axis=1), right)
    found = pd.Series(right).groupby(labels).mean().to_dict()
    return {
        "n": n,
        "accuracy": float(right.mean()),
        "accuracy_95": interval(int(right.sum()), n),
        "top3": float(in_top3.mean()),
        "macro_f1": float(f1_score(labels, order[:, 0], average="macro", zero_division=0)),
        "ece": ece,
        "ece_95": ece_95,
        "recall": {name: found.get(index) for index, name in enumerate(classes)},
    }


def interval(hits: int, n: int) -> list[float]:
    """Wilson's 95 % interval of the share hits / n; [0, 1] for n == 0.

    >>> [round(limit, 3) for limit in interval(16, 20)]
    [0.584, 0.919]
    """
    if n == 0:
        return [0.0, 1.0]
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return [float(low), float(high)]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """ece and ece_95 as in `metrics`."""
    bins = bins_of(confidence)
    random = np.random.default_rng(0)

    def error(hits: np.ndarray) -> float:
        return float(np.abs(np.bincount(bins, hits - confidence)).sum() / len(bins))

    # what is right is drawn anew, as often as the confidences claim
    calibrated = [error(random.random(len(bins)) < confidence) for _ in range(N_RESAMPLES)]
    return error(right), float(np.percentile(calibrated, 95))


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """(N,) index of the bin, open below and closed above, that each confidence falls into.

    >>> bins_of(np.array([0.0, 0.5, 0.99, 1.0]))
    array([ 0,  7, 14, 14])
    """
    return np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)


def calibration_bins(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy with its 95 % interval (low, high) and n of each nonempty bin."""
    groups = pd.DataFrame({"confidence": confidence, "right": right}).groupby(bins_of(confidence))
    bins = groups.agg(
        confidence=("confidence", "mean"), accuracy=("right", "mean"), n=("right", "size")
    )
    limits = list(map(interval, groups.right.sum(), bins.n))
    return bins.join(pd.DataFrame(limits, bins.index, ["low", "high"], float))


def headline(predictions: Predictions, failures: pd.DataFrame) -> dict:
    """`metrics` of a run with its failures, and as a baseline the guess of the commonest class."""
    result = metrics(predictions.probabilities(), predictions.labels, predictions.classes)
    shares = predictions.table.label.value_counts(normalize=True)
    commonest = [{"class": name, "accuracy": share} for name, share in shares.items()]
    return result | {"failures": len(failures), "baseline": next(iter(commonest), None)}


def rounded(result: dict) -> pd.DataFrame:
    """A row a figure, with its value as text: each number in it to three digits.

    >>> rounded({"n": 20, "accuracy_95": [0.58397, 0.91933]}).value.tolist()
    ['20', '[0.584, 0.919]']
    """
    few_digits = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 3))
    return pd.DataFrame({"figure": list(result), "value": list(map(str, few_digits.values()))})


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Counts by true class (rows) and predicted class (columns)."""
    table = predictions.table
    names = predictions.classes + sorted(set(table.label) - set(predictions.classes))
    return pd.crosstab(table.label, table.type).reindex(index=names, columns=names, fill_value=0)


def by_class(counts: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """n, recall with its 95 % interval, precision, F1 and failures of each class.

    counts: as `confusion` returns them. NaN where there is none to count.
    """
    hits = np.diag(counts)
    n = counts.sum(axis=1)
    called = counts.sum(axis=0)
    low, high = np.transpose(list(map(interval, hits, n)))
    failed = failures.relative_path.map(lambda path: PurePosixPath(path).parent.name).value_counts()
    return pd.DataFrame(
        {
            "n": n,
            "recall": hits / n,
            "recall_low": low,
            "recall_high": high,
            "precision": hits / called,
            "f1": 2 * hits / (n + called),
            "failures": failed.reindex(counts.index, fill_value=0),
        }
    )


def most_confused(counts: pd.DataFrame, n: int = 5) -> list[str]:
    """The pairs of classes with the most errors, as sentences.

    >>> most_confused(pd.DataFrame([[8, 2], [0, 5]], ["hat", "shirt"], ["hat", "shirt"]))
    ['2 of 10 images of hat were called shirt.']
    """
    errors = counts.where(~np.eye(len(counts), dtype=bool), 0).stack()
    pairs = errors[errors > 0].sort_values(ascending=False, kind="stable").head(n)
    return [
        f"{times} of {counts.loc[label].sum()} images of {label} were called {called}."
        for (label, called), times in pairs.items()
    ]


def few_of_each(table: pd.DataFrame, n: int, classes: int = MAX_ROWS) -> pd.DataFrame:
    """The first n rows of each label, of the first `classes` labels: more fill no picture."""
    shown = table.label.isin(table.label.unique()[:classes])
    return table[shown].groupby("label").head(n)


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the images answered, and accuracy on them, for each threshold on confidence.

    At most MAX_POINTS rows, the highest threshold first.
    """
    ranked = table.sort_values("confidence", ascending=False)
    rank = np.arange(1, len(table) + 1)
    curve = pd.DataFrame(
        {
            "threshold": ranked.confidence,
            "coverage": rank / max(1, len(table)),
            "accuracy": ranked.right.cumsum() / rank,
        }
    )
    # images of equal confidence are answered together
    curve = curve.drop_duplicates("threshold", keep="last")
    return curve.iloc[:: max(1, math.ceil(len(curve) / MAX_POINTS))]


def threshold_for(curve: pd.DataFrame, accuracy: float = 0.95) -> tuple[pd.Series | None, str]:
    """The row of the lowest threshold that reaches `accuracy`, if any, and what it means in words.

    >>> curve = coverage(pd.DataFrame({"confidence": [0.9, 0.7], "right": [True, False]}))
    >>> threshold_for(curve)[1].split(", ")[0]
    'At a confidence of 0.90 or more'
    """
    reached = curve[curve.accuracy >= accuracy]
    if not len(reached):
        return None, f"No threshold reaches an accuracy of {accuracy}."
    row = reached.iloc[-1]
    return row, (
        f"At a confidence of {row.threshold:.2f} or more, {row.coverage:.0%} of the images are "
        f"answered, with an accuracy of {row.accuracy:.3f}."
    )


def suspicious_labels(predictions: Predictions, at_most: float = 1.0) -> pd.DataFrame:
    """Images whose label may be wrong, the strongest disagreement first.

    Those called another class with at least the probability that this class's own images get on
    average ("confident learning", Northcutt et al. 2021). at_most: probability that may be left
    for the label; with a small one, a model that wavers between two classes accuses nobody.
    """
    labels = predictions.labels
    of_label = predictions.probabilities()[np.arange(len(labels)), labels]  # (N,)
    table = predictions.table.assign(own=np.where(labels < 0, 0, of_label))
    usual = table.groupby("label").own.mean().reindex(table.type).to_numpy()  # (N,)
    is_sure = (table.confidence >= usual) & (table.own <= at_most)
    chosen = table[~table.right & is_sure]
    return chosen.iloc[np.argsort(chosen.own - chosen.confidence, kind="stable")]
