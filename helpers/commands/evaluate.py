"""Evaluate a checkpoint on a plain folder of images."""

import argparse
import json
import time
from pathlib import Path

import pandas as pd

from helpers import config, model
from helpers.review.figures import Predictions, metrics
from helpers.training.image_folder import ImageFolder
from helpers.training.validation import logits_of

UNSHRUNK = 10**6  # pixels: each image is prepared from the whole of it, as on a worker


def predict_folder(
    images: Path, checkpoint: Path, device: str = "auto"
) -> tuple[Predictions, dict]:
    """Predictions of the images in <class>/<file>, without paths and hashes; and two counts.

    The counts are failures (files) and images_per_s. Raises ValueError if the folder has a class
    that the checkpoint does not know.
    """
    classifier = model.load(checkpoint, model.device_named(device))
    classes = classifier.card.classes
    data = ImageFolder(images, side=UNSHRUNK)
    unknown = sorted(set(data.classes) - set(classes))
    if unknown:
        raise ValueError(
            f"{images} has classes {', '.join(unknown)}, which {checkpoint} does not know "
            f"({', '.join(classes)}). Remove those folders, or train a model on these classes."
        )
    started = time.perf_counter()
    logits, labels = logits_of(classifier, data, list(range(len(data))))
    seconds = time.perf_counter() - started
    called = classifier.probabilities(logits).max(1)
    table = pd.DataFrame(
        {
            "label": [data.classes[index] for index in labels],
            "type": [classes[index] for index in called.indices],
            "confidence": called.values.numpy(),
        }
    )
    table["right"] = table.label == table.type
    predictions = Predictions(table, logits.numpy(), classes, classifier.card.temperature)
    return predictions, {"failures": len(data.broken), "images_per_s": len(labels) / seconds}


def evaluate(images: Path, checkpoint: Path, device: str = "auto") -> dict:
    """What `metrics` says of the images in <class>/<file>, with failures and images_per_s.

    Unreadable files count as failures. Raises ValueError as `predict_folder`.
    """
    predictions, counts = predict_folder(images, checkpoint, device)
    found = metrics(predictions.probabilities(), predictions.labels, predictions.classes)
    return found | counts


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done."""
    parser = argparse.ArgumentParser(prog="python -m helpers evaluate", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/<file>.jpg")
    parser.add_argument(
        "--checkpoint", type=Path, default=config.trained_model(), help="default: the trained model"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON instead of one number a line"
    )
    options = parser.parse_args(arguments)
    result = evaluate(options.images, options.checkpoint, options.device)
    lines = [f"{name:>14}  {value}" for name, value in result.items()]
    print(json.dumps(result) if options.json else "\n".join(lines))
    return 0
