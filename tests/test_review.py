"""Each number of the figures on a case that can be worked out by hand."""

import json
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from helpers.images import perceptual_hash
from helpers.labels import data_digest
from helpers.model import Classifier, ModelCard
from helpers.review import attribution, duplicates, figures, stories
from helpers.review.stories import Story
from helpers.training.hashes import keep_hashes
from helpers.training.image_folder import ImageFolder

CLASSES = ["hat", "shirt", "t-shirt"]


def predictions_of(rows: list[tuple[str, str, float]]) -> figures.Predictions:
    """Predictions from (label, called, confidence); the other classes share what is left."""
    labels = [label for label, _, _ in rows]
    called = [name for _, name, _ in rows]
    confidence = np.array([share for _, _, share in rows])
    chosen = np.array(called)[:, None] == CLASSES  # (N, C)
    rest = (1 - confidence) / (len(CLASSES) - 1)
    probabilities = np.where(chosen, confidence[:, None], rest[:, None])
    table = pd.DataFrame(
        {
            "relative_path": [f"{label}/{i}.jpg" for i, label in enumerate(labels)],
            "label": labels,
            "type": called,
            "confidence": confidence,
            "phash": "0" * 16,
        }
    )
    table["right"] = table.label == table.type
    return figures.Predictions(table, np.log(probabilities + 1e-12), CLASSES, temperature=1.0)


def case(*rows: tuple[str, str, int]) -> figures.Predictions:
    """Predictions from (label, called, times), each with a confidence of 0.8."""
    return predictions_of(
        [(label, called, 0.8) for label, called, times in rows for _ in range(times)]
    )


@pytest.fixture
def confused() -> figures.Predictions:
    """8 of 10 hats right, 2 called shirt; 3 of 5 shirts, 2 called t-shirt; all of 5 t-shirts."""
    return case(
        ("hat", "hat", 8),
        ("hat", "shirt", 2),
        ("shirt", "shirt", 3),
        ("shirt", "t-shirt", 2),
        ("t-shirt", "t-shirt", 5),
    )


def test_metrics_of_a_hand_made_confusion(confused):
    result = figures.headline(confused, pd.DataFrame({"relative_path": ["hat/x.jpg"]}))
    assert result["n"] == 20 and result["accuracy"] == 0.8 and result["top3"] == 1.0
    assert result["recall"] == {"hat": 0.8, "shirt": 0.6, "t-shirt": 1.0}
    f1 = [2 * 8 / (10 + 8), 2 * 3 / (5 + 5), 2 * 5 / (5 + 7)]
    assert result["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert result["accuracy_95"] == pytest.approx([0.5840, 0.9193], abs=1e-4)  # Wilson, 16 of 20
    assert result["baseline"] == {"class": "hat", "accuracy": 0.5} and result["failures"] == 1
    json.dumps(result, allow_nan=False)


def test_confusion_by_class_and_sentences(confused):
    counts = figures.confusion(confused)
    assert counts.to_numpy().tolist() == [[8, 2, 0], [0, 3, 2], [0, 0, 5]]
    assert figures.most_confused(counts) == [
        "2 of 10 images of hat were called shirt.",
        "2 of 5 images of shirt were called t-shirt.",
    ]
    failures = pd.DataFrame({"relative_path": ["a/hat/1.jpg", "a/hat/2.jpg"]})
    table = figures.by_class(counts, failures)
    assert table.n.tolist() == [10, 5, 5] and table.failures.tolist() == [2, 0, 0]
    assert table.precision.tolist() == pytest.approx([1, 3 / 5, 5 / 7])
    assert table.f1.tolist() == pytest.approx([16 / 18, 0.6, 10 / 12])


def test_top3_asks_for_the_three_likeliest_and_an_unknown_class_is_wrong():
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1]] * 3)
    result = figures.metrics(probabilities, [2, 3, -1], list("abcd"))
    assert result["accuracy"] == 0 and result["top3"] == pytest.approx(1 / 3)


def test_calibrated_set_passes_and_miscalibrated_one_does_not():
    random = np.random.default_rng(1)
    confidence = np.repeat([0.55, 0.75, 0.95], 2000)
    calibrated = random.random(6000) < confidence
    ece, ece_95 = figures.calibration_error(confidence, calibrated)
    assert ece < ece_95 < 0.03
    ece, ece_95 = figures.calibration_error(confidence, random.random(6000) < confidence - 0.2)
    assert ece == pytest.approx(0.2, abs=0.02) and ece > 5 * ece_95


def test_calibration_error_by_hand():
    confidence = np.array([0.9] * 4 + [0.5] * 2)
    right = np.array([1, 1, 0, 0, 1, 1], bool)
    half_right = 0.4 * 4 / 6  # the gap between confidence and accuracy, weighted
    all_right = 0.5 * 2 / 6
    ece, _ = figures.calibration_error(confidence, right)
    assert ece == pytest.approx(half_right + all_right)
    bins = figures.calibration_bins(confidence, right)
    assert bins.n.tolist() == [2, 4] and bins.accuracy.tolist() == [1.0, 0.5]
    assert (bins.low < bins.accuracy).all() and bins.high.iloc[0] == 1.0


def test_bins_are_closed_above():
    assert figures.bins_of(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


def test_coverage_and_the_threshold_for_an_accuracy():
    table = pd.DataFrame(
        {"confidence": [0.9, 0.8, 0.8, 0.7, 0.6], "right": [True, True, True, False, True]}
    )
    curve = figures.coverage(table)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.coverage.tolist() == [0.2, 0.6, 0.8, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1, 1, 0.75, 0.8])
    row, sentence = figures.threshold_for(curve, 0.95)
    assert row is not None and row.threshold == 0.8
    assert "0.80 or more, 60% of the images" in sentence
    assert figures.threshold_for(figures.coverage(table.assign(right=False)))[0] is None


def test_planted_mislabel_is_found_first():
    rows = [("hat", "hat", 0.7)] * 5 + [("shirt", "shirt", 0.7)] * 5
    rows += [("hat", "shirt", 0.98), ("shirt", "hat", 0.75), ("shirt", "hat", 0.5)]
    found = figures.suspicious_labels(predictions_of(rows))
    # the third is less sure than is usual
    assert found.relative_path.tolist() == ["hat/10.jpg", "shirt/11.jpg"]


def test_planted_near_duplicate_is_found_with_its_distance(confused):
    random = np.random.default_rng(0)
    digits = [f"{value:016x}" for value in random.integers(0, 2**63, 25)]
    table = confused.table.assign(phash=digits[:20])
    copy = f"{int(digits[3], 16) ^ 0b1011:016x}"
    training = pd.DataFrame(
        {"relative_path": list("abcdef"), "label": "shirt", "phash": [*digits[20:], copy]}
    )
    found = duplicates.near_duplicates(table, training)
    named = found[["relative_path", "training_path", "distance"]]
    assert named.to_numpy().tolist() == [["hat/3.jpg", "f", 3]]
    assert duplicates.near_duplicates(table, training[:5]).empty
    assert duplicates.near_duplicates(table, training[:0]).empty
    assert duplicates.near_duplicates(table[:0], training).empty


def test_hashes_of_training_images_are_kept_and_survive_another_size(tmp_path, monkeypatch):
    from PIL import Image, ImageDraw

    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    for split, side in (("train", 160), ("test", 120)):
        for i, name in enumerate(CLASSES):
            picture = Image.new("RGB", (200, 200), "white")
            ImageDraw.Draw(picture).ellipse((20 + 40 * i, 20, 90 + 40 * i, 180 - 40 * i), "black")
            (tmp_path / split / name).mkdir(parents=True)
            picture.resize((side, side)).save(tmp_path / split / name / "1.jpg")
    data = ImageFolder(tmp_path / "train")
    test = ImageFolder(tmp_path / "test")
    assert duplicates.load_hashes(data_digest(data.sizes)).empty
    keep_hashes(data)
    training = duplicates.load_hashes(data_digest(data.sizes))
    assert training.relative_path.tolist() == data.paths and training.phash.is_unique
    own = [perceptual_hash(test.load(i)) for i in range(3)]
    table = pd.DataFrame({"relative_path": test.paths, "phash": own})
    found = duplicates.near_duplicates(table, training)
    assert sorted(found.relative_path) == test.paths
    assert (found.relative_path == found.training_path).all()


class Patch(nn.Module):
    """Speaks for class 1 by what is bright in the lower right quarter, for 0 by the upper left."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        self.last = nn.Identity()
        self.maps.weight.data[:] = 1 / 3
        mask = torch.zeros(2, 8, 8)
        mask[0, :4, :4] = mask[1, 4:, 4:] = 1
        self.register_buffer("mask", mask)

    def forward(self, x):
        return self.last(self.maps(x) * self.mask).mean((2, 3))


def test_grad_cam_lies_on_the_patch_that_the_model_looks_at():
    card = ModelCard("", ["a", "b"], 8, "", "", mean=[0.0] * 3, std=[1.0] * 3)
    model = Classifier(Patch(), card).eval()
    image = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    heat = attribution.grad_cam(model, image, "b")
    assert heat.shape == (8, 8) and heat.max() == 1
    assert heat[4:, 4:].sum() == pytest.approx(float(heat.sum()))
    assert heat[4:, 4:].min() > 0.9
    assert attribution.grad_cam(model, image, "a")[:4, :4].min() > 0.9
    picture = attribution.overlay(model, image, "b")
    assert picture.shape == (224, 224, 3) and picture[180, 180, 0] > picture[40, 40, 0] + 50


def test_heat_shares_of_an_even_heat_are_the_regions_areas():
    heat = torch.ones(120, 120)
    shares = [stories.heat_share(heat, region) for region in ("sides", "centre", "top")]
    assert shares == pytest.approx([0.5, 0.25, 1 / 3], abs=0.02)


SHIRTS = Story("shirts are taken for t-shirts", ("shirt",), ("t-shirt",), "sides")


@pytest.mark.parametrize("told, others, sign", [(18, 2, 1), (2, 18, -1), (3, 3, 0), (0, 0, 0)])
def test_a_story_is_judged_by_whether_its_mistakes_are_more_than_an_even_spread(told, others, sign):
    wrong = case(
        ("shirt", "t-shirt", told), ("shirt", "hat", others), ("hat", "hat", 5), ("hat", "shirt", 9)
    )
    found, sentence = stories.evidence_in_counts(SHIRTS, wrong.table, CLASSES)
    assert found == sign
    n = told + others
    assert sentence.startswith(f"{told} of {n} mistakes are of this kind; {n / 2:.1f} would")


def test_a_story_about_a_class_that_is_not_there_says_so():
    story = Story("gloves", ("glove",), ("hat",), "top")
    sign, sentence = stories.evidence_in_counts(story, case(("hat", "shirt", 3)).table, CLASSES)
    assert (sign, sentence) == (0, "The model has no class glove.")


def test_heat_supports_a_story_only_where_it_lies_as_told():
    edge = torch.zeros(8, 8)
    edge[:, 0] = 1
    middle = torch.zeros(8, 8)
    middle[:, 4] = 1
    assert stories.evidence_in_heat(SHIRTS, [edge] * 9, [middle] * 9)[0] == 1
    assert stories.evidence_in_heat(SHIRTS, [middle] * 9, [edge] * 9)[0] == -1
    assert stories.evidence_in_heat(SHIRTS, [edge] * 9, [edge] * 9)[0] == 0
    assert stories.evidence_in_heat(SHIRTS, [edge] * 2, [middle] * 9)[0] == 0


@pytest.mark.parametrize(
    "signs, words",
    [((1, 1), "supports"), ((1, 0), "settle"), ((1, -1), "settle"), ((0, -1), "against")],
)
def test_verdict(signs, words):
    assert words in stories.verdict(signs)


def write_run(folder, n: int, classes=CLASSES) -> None:
    """Parts as notebook 03 writes them, with random predictions, in two parts."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (n, len(classes))).astype(np.float32)
    names = np.array(classes, dtype=object)
    guesses = random.integers(0, len(classes), n)
    labels = names[np.where(random.random(n) < 0.7, logits.argmax(1), guesses)]
    confidence = np.exp(logits.max(1, initial=-np.inf)) / np.exp(logits).sum(1)
    paths = [f"{label}/{i}.jpg" for i, label in enumerate(labels)]
    columns = {
        "file_url": paths,
        "relative_path": paths,
        "etag": paths,
        "size": np.full(n, 9),
        "label": labels,
        "type": names[logits.argmax(1)],
        "confidence": confidence.astype(float),
        "logits": pa.array(list(logits), pa.list_(pa.float32())),
        "phash": [f"{value:016x}" for value in random.integers(0, 2**63, n)],
        "model_digest": ["d"] * n,
        "predicted_at": pa.array([0] * n, pa.timestamp("us", tz="UTC")),
    }
    (folder / "predictions").mkdir(parents=True)
    if n:
        table = pa.table(columns)
        pq.write_table(table[: n // 2], folder / "predictions" / "part-0.parquet")
        pq.write_table(table[n // 2 :], folder / "predictions" / "part-1.parquet")
    about = {"classes": list(classes), "temperature": 1.0}
    (folder / "inference.json").write_text(json.dumps(about))


@pytest.mark.parametrize("classes", [CLASSES, ["hat"]])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_few_images_one_class_and_all_failures(tmp_path, n, classes):
    write_run(tmp_path, n, classes)
    predictions = figures.load_predictions(tmp_path)
    failures = figures.load_failures(tmp_path)
    assert len(predictions.table) == len(predictions.logits) == n and failures.empty
    assert list(failures) == ["relative_path", "reason", "attempts"]
    result = figures.headline(predictions, failures)
    assert result["n"] == n and (result["accuracy"] is None) == (n == 0)
    json.dumps(result, allow_nan=False)
    counts = figures.confusion(predictions)
    assert counts.to_numpy().sum() == n and len(figures.by_class(counts, failures)) == len(classes)
    assert len(figures.coverage(predictions.table)) <= n
    assert len(figures.suspicious_labels(predictions)) <= n
    assert isinstance(figures.most_confused(counts), list)
    sentence = stories.evidence_in_counts(stories.STORIES[0], predictions.table, list(classes))
    assert sentence[0] == 0


def test_failures_are_read_with_their_reasons(tmp_path):
    (tmp_path / "failures").mkdir()
    row = {"relative_path": ["hat/1.jpg"], "reason": ["not an image"], "attempts": [1]}
    pd.DataFrame(row).to_parquet(tmp_path / "failures" / "part-0.parquet")
    assert figures.load_failures(tmp_path).reason.tolist() == ["not an image"]


def test_a_hundred_thousand_predictions_take_under_30_seconds(tmp_path):
    write_run(tmp_path, 100_000)
    started = time.perf_counter()
    predictions = figures.load_predictions(tmp_path)
    assert predictions.probabilities().max(1) == pytest.approx(
        predictions.table.confidence.to_numpy(), abs=1e-4
    )
    failures = figures.load_failures(tmp_path)
    assert figures.headline(predictions, failures)["n"] == 100_000
    assert figures.confusion(predictions).to_numpy().sum() == 100_000
    assert len(figures.coverage(predictions.table)) <= 2000
    figures.suspicious_labels(predictions)
    assert len(duplicates.near_duplicates(predictions.table, predictions.table[:3000])) == 3000
    assert time.perf_counter() - started < 30
