"""Make both provided models and their card anew (`make model IMAGES=DIR`).

The photographs' network is judged by five folds of train/: five trainings on four fifths each,
every image predicted by the one that has not seen it. These predictions give the temperature as
well. Then it is trained on all of train/, and validation/ is looked at once. Every figure on the
card is computed here. A fold that was trained before with the same settings is taken as it is.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from make_pictures import save
from torch import Tensor

from helpers import config, model, networks, plots
from helpers.commands.evaluate import evaluate, predict_folder
from helpers.commands.train import print_progress
from helpers.files import digest_of, write_json
from helpers.folders import images_folder, split_folders
from helpers.labels import data_digest
from helpers.review import diagrams, duplicates, figures
from helpers.training.hashes import keep_hashes
from helpers.training.image_folder import ImageFolder
from helpers.training.loop import Parameters, fit
from helpers.training.validation import fit_temperature, logits_of
from samples import draw_samples

FOLDER = config.PROJECT_ROOT / "model"
PROVIDED = FOLDER / "model_provided.pt"
DRAWN = FOLDER / "model_drawn.pt"
TEMPLATE = Path(__file__).with_name("model_card.md.in")
N_FOLDS = 5
# all images train; which epoch is kept and the temperature come from elsewhere
SETTINGS = Parameters(batch_size=32, validation_share=0)


@dataclass(frozen=True)
class Judged:
    """Logits (N, C) and labels (N,) of images that the network was not trained on, by fold."""

    logits: list[Tensor]
    labels: list[Tensor]
    seconds: float  # of all trainings

    @property
    def temperature(self) -> float:
        """What suits all of them."""
        return fit_temperature(torch.cat(self.logits), torch.cat(self.labels))

    def metrics(self, classes: list[str]) -> dict:
        """How good the predictions are, each fold scaled by the temperature of the others."""
        probabilities = []
        for fold, logits in enumerate(self.logits):
            others = [i for i in range(len(self.logits)) if i != fold]
            temperature = fit_temperature(
                torch.cat([self.logits[i] for i in others]),
                torch.cat([self.labels[i] for i in others]),
            )
            probabilities.append((logits / temperature).softmax(1).numpy())
        labels = torch.cat(self.labels).numpy()
        found = figures.metrics(np.concatenate(probabilities), labels, classes)
        folds = [
            (logits.argmax(1) == labels).float().mean().item()
            for logits, labels in zip(self.logits, self.labels, strict=True)
        ]
        return found | {"folds": folds}


def folds_of(labels: Tensor) -> list[list[int]]:
    """Indices of the images of each fold, every class spread evenly over them."""
    folds: list[list[int]] = [[] for _ in range(N_FOLDS)]
    generator = torch.Generator().manual_seed(0)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)].tolist()
        for place, member in enumerate(members):
            folds[place % N_FOLDS].append(member)
    return [sorted(fold) for fold in folds]


def judge(data: ImageFolder, parameters: Parameters, scratch: Path) -> Judged:
    """Train on four fifths, predict the last one; five times."""
    logits, labels = [], []
    started = time.perf_counter()
    for number, fold in enumerate(folds_of(data.labels), 1):
        others = sorted(set(range(len(data))) - set(fold))
        path = scratch / f"fold_{number}.pt"
        trained = train(data.subset(others), parameters, path)
        found = logits_of(trained, data, fold)
        logits.append(found[0])
        labels.append(found[1])
        accuracy = (found[0].argmax(1) == found[1]).float().mean().item()
        print(f"fold {number} of {N_FOLDS}: {accuracy:.4f} of {len(fold)} images", flush=True)
    return Judged(logits, labels, time.perf_counter() - started)


def train(data: ImageFolder, parameters: Parameters, path: Path) -> model.Classifier:
    """The checkpoint `path`, trained if it is not there yet with these settings on these images."""
    if not path.exists() or not _is_of(path, data, parameters):
        fit(data, parameters, path, data.folder.parent.name, print_progress)
    return model.load(path)


def _is_of(path: Path, data: ImageFolder, parameters: Parameters) -> bool:
    card = model.read_card(path)
    return card.parameters == asdict(parameters) and card.data_digest == data_digest(data.sizes)


def dataset(folder: Path, parameters: Parameters) -> ImageFolder:
    """The images, with a cache."""
    side = round(1.15 * parameters.image_size)
    return ImageFolder(folder, side=side, cache=config.cache_folder())


def provide(trained: model.Classifier, temperature: float, judged: dict, path: Path) -> None:
    """Write the model with its temperature, in half precision."""
    trained.card.temperature = temperature
    trained.card.metrics = {"validation": judged}
    model.save(trained, path, half=True)


def held_back(found: dict, labels: Tensor, classes: list[str]) -> dict:
    """What the checkpoint says of images that it was not trained on."""
    counts = torch.bincount(labels)
    most = int(counts.argmax())
    share = counts[most].item() / len(labels)
    judged = {name: found[name] for name in ("n", "accuracy")}
    return judged | {"most_frequent": classes[most], "baseline": share}


def photographs(images: Path, scratch: Path) -> dict:
    """Make the photographs' model; what was found, for the card."""
    train_folder, test_folder = split_folders(images)
    data = dataset(train_folder, SETTINGS)
    judged = judge(data, SETTINGS, scratch)
    found = judged.metrics(data.classes)
    path = scratch / "photographs.pt"
    started = time.perf_counter()
    trained = train(data, SETTINGS, path)
    seconds = time.perf_counter() - started
    labels = torch.cat(judged.labels)
    provide(trained, judged.temperature, held_back(found, labels, data.classes), PROVIDED)
    shutil.copy(path.with_suffix(".history.csv"), PROVIDED.with_suffix(".history.csv"))
    keep_hashes(data, duplicates.provided_hashes(data_digest(data.sizes)))
    predictions, counts = predict_folder(test_folder, PROVIDED)
    looked = figures.metrics(predictions.probabilities(), predictions.labels, predictions.classes)
    del counts["images_per_s"]
    drawn_from = {"seconds": seconds, "seconds_of_folds": judged.seconds}
    result = looked | counts | drawn_from | {"folds": found, "model_digest": digest_of(PROVIDED)}
    write_json(PROVIDED.with_suffix(".json"), result)
    _pictures(predictions)
    return result


def _pictures(predictions: figures.Predictions) -> None:
    counts = figures.confusion(predictions)
    title = f"validation photographs, n = {len(predictions.table)}"
    save(diagrams.confusion_matrix(counts, title), "model_confusion_matrix")
    history = pd.read_csv(PROVIDED.with_suffix(".history.csv"))
    save(plots.learning_curves(history), "model_learning_curves")
    plt.close("all")


def drawings(scratch: Path) -> dict:
    """Make the drawn images' model; what was found, for the card."""
    folder = draw_samples(images_folder())
    data = dataset(folder / "train", SETTINGS)
    trained = train(data, SETTINGS, scratch / "drawn.pt")
    with tempfile.TemporaryDirectory() as place:
        for_temperature = draw_samples(Path(place) / "second", 1, 60, seed=2)
        others = ImageFolder(for_temperature / "test")
        logits, labels = logits_of(trained, others, list(range(len(others))))
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        found = {"n": len(labels), "accuracy": accuracy}
        judged = held_back(found, labels, data.classes)
        provide(trained, fit_temperature(logits, labels), judged, DRAWN)
        first = evaluate(draw_samples(Path(place) / "first", 1, 60, seed=1) / "test", DRAWN)
    keep_hashes(data, duplicates.provided_hashes(data_digest(data.sizes)))
    result = evaluate(folder / "test", DRAWN)
    del result["images_per_s"]
    others = {name: first[name] for name in ("n", "accuracy", "accuracy_95", "ece", "ece_95")}
    result |= {"others": others, "model_digest": digest_of(DRAWN)}
    write_json(DRAWN.with_suffix(".json"), result)
    return result


def processor() -> str:
    """The name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def card_values(found: dict, drawn: dict, test_folder: Path) -> dict:
    """What the template of the card shows."""
    predictions, _ = predict_folder(test_folder, PROVIDED)
    counts = figures.confusion(predictions)
    classes = figures.by_class(counts, pd.DataFrame({"relative_path": []}))
    _, abstaining = figures.threshold_for(figures.coverage(predictions.table))
    history = pd.read_csv(PROVIDED.with_suffix(".history.csv"))
    recall = found["folds"]["recall"]
    return found | {
        "card": model.read_card(PROVIDED),
        "drawn": drawn,
        "drawn_card": model.read_card(DRAWN),
        "drawn_mib": DRAWN.stat().st_size / 2**20,
        "size_mib": PROVIDED.stat().st_size / 2**20,
        "minutes": history.seconds.sum() / 60,
        "minutes_of_folds": found["seconds_of_folds"] / 60,
        "processor": processor(),
        "each_fold": ", ".join(f"{accuracy:.3f}" for accuracy in found["folds"]["folds"]),
        "least_recall": min(recall.values()),
        "least_class": min(recall, key=recall.get),
        "guess": counts.sum(axis=1).max() / found["n"],
        "classes": "\n".join(
            f"| {name} | {row.n:.0f} | {row.recall:.2f} | {row.recall_low:.2f} to "
            f"{row.recall_high:.2f} | {row.precision:.2f} | {recall[name]:.2f} |"
            for name, row in classes.iterrows()
        ),
        "confused": "\n".join(f"- {sentence}" for sentence in figures.most_confused(counts)),
        "abstaining": abstaining,
        "package": networks.known(model.read_card(PROVIDED).arch).package,
    }


def write_card(images: Path) -> None:
    """Write model/README.md from the figures of both models."""
    found = json.loads(PROVIDED.with_suffix(".json").read_text())
    drawn = json.loads(DRAWN.with_suffix(".json").read_text())
    _, test_folder = split_folders(images)
    values = card_values(found, drawn, test_folder)
    (FOLDER / "README.md").write_text(TEMPLATE.read_text().format(**values))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="the data set of photographs")
    parser.add_argument(
        "--only", choices=("photographs", "drawings", "card"), help="one part of the work"
    )
    options = parser.parse_args(arguments)
    scratch = config.runs_folder() / "model"
    try:
        if options.only in (None, "drawings"):
            drawings(scratch)
        if options.only in (None, "photographs"):
            photographs(options.images, scratch)
        write_card(options.images)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Models and card: {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
