"""Make the card of the provided model: python docs/make_model_card.py --images DIR, photographs never trained on.

With --checkpoint and --history (one of each a stage of training, in order) it first makes model/model_provided.pt,
the last checkpoint with half-precision weights; with --further these stages follow those of the model that is there.
With --drawn it makes model/model_drawn.pt, the one for the drawn images, of another checkpoint.
Every figure on the card is computed here or read from these files.
"""

import argparse
import itertools
import json
import shlex
import tempfile
from dataclasses import fields
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from make_pictures import save
from torch.nn.functional import cross_entropy

from helpers import config, model, plots
from helpers.commands.evaluate import evaluate, predict_folder
from helpers.files import digest_of, write_json
from helpers.review import diagrams, figures
from helpers.training.dataset import ImageFolder
from helpers.training.loop import Parameters, split
from helpers.training.validation import fit_temperature, logits_of
from samples import draw_samples

MODEL = config.PROJECT_ROOT / "model" / "model_provided.pt"
HISTORY, FIGURES = MODEL.with_suffix(".history.csv"), MODEL.with_suffix(".json")
DRAWN = MODEL.with_name("model_drawn.pt")
TEMPLATE = Path(__file__).with_name("model_card.md.in")


def provide(checkpoints: list[Path], histories: list[Path], further: bool) -> None:
    """Write the last checkpoint in half precision, and the history of all stages with their commands."""
    stages = [pd.read_csv(HISTORY)] if further else []
    first = stages[0].stage.max() + 1 if further else 1
    for number, (checkpoint, history) in enumerate(zip(checkpoints, histories, strict=True), first):
        card = model.load(checkpoint).card
        settings = {"stage": number, "validation_share": card.parameters["validation_share"]}
        stages.append(
            pd.read_csv(history).assign(command=command(card, f"stage_{number}"), **settings)
        )
    table = pd.concat(stages, ignore_index=True)
    table.assign(epoch=range(1, len(table) + 1)).to_csv(HISTORY, index=False)
    model.save(model.load(checkpoints[-1]), MODEL, half=True)


def resize(folder: Path, size: int) -> None:
    """Let the provided model predict at `size` pixels, with the temperature that suits it on the images held back.

    folder: the training images. Random crops show garments larger than whole frames do, so that a network trained at
    one size predicts best at a larger one (Touvron et al. 2019).
    """
    classifier, data = model.load(MODEL), ImageFolder(folder, side=2 * size)
    trained = classifier.card.parameters
    _, held_back = split(data.labels, trained["validation_share"], trained["seed"])
    classifier.card.image_size = size
    logits, labels = logits_of(classifier, data, held_back)
    classifier.card.temperature = fit_temperature(logits, labels)
    loss = cross_entropy(logits / classifier.card.temperature, labels).item()
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    classifier.card.metrics["at_prediction_size"] = {
        "n": len(labels),
        "accuracy": accuracy,
        "calibrated_loss": loss,
    }
    model.save(classifier, MODEL, half=True)


def drawn_figures() -> dict:
    """What the model of the drawn images does with the run's 150 test images, and with 600 drawn from another seed."""
    with tempfile.TemporaryDirectory() as folder:
        others = evaluate(draw_samples(Path(folder) / "images", 1, 60, seed=1) / "test", DRAWN)
    figures = evaluate(draw_samples(config.images_folder()) / "test", DRAWN)
    del figures["images_per_s"]
    others = {name: others[name] for name in ("n", "accuracy", "accuracy_95", "ece", "ece_95")}
    return figures | {"others": others, "model_digest": digest_of(DRAWN)}


def command(card: model.ModelCard, name: str) -> str:
    """The line that trains such a checkpoint, from that of the stage before: the parameters that are not defaults."""
    chosen = {
        f.name: card.parameters[f.name]
        for f in fields(Parameters)
        if card.parameters[f.name] != f.default
    }
    images = ".samples/train" if card.data_set == "samples" else "data/clothing-dataset-small/train"
    chosen = {"images": images, "name": card.data_set, "checkpoint": f"model/{name}.pt"} | chosen
    if "weights" in chosen:
        chosen["weights"] = f"model/{Path(chosen['weights']).name}"
    options = [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in chosen.items()
    ]
    return "python -m helpers train " + " ".join(options)


def looks(earlier: list[float]) -> str:
    """How often the photographs that judge the model have been looked at, and what was seen."""
    if not earlier:
        return "looked at once, for this card"
    found = ", ".join(f"{accuracy:.3f}" for accuracy in earlier)
    return f"looked at {len(earlier) + 1} times: after earlier stages (accuracy {found}), and for this card"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    parser.add_argument("--history", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--further", action="store_true", help="the stages follow those of the model that is there"
    )
    parser.add_argument("--drawn", type=Path, help="a checkpoint trained on .samples/train")
    parser.add_argument(
        "--predict-at", type=int, help="pixels, where they are to differ from those of training"
    )
    parser.add_argument(
        "--training-images", type=Path, help="with --predict-at: the folder that it was trained on"
    )
    options = parser.parse_args()
    last = json.loads(FIGURES.read_text())
    earlier = last["earlier_looks"]  # the accuracy that each look before this one found
    if options.checkpoint:
        earlier.append(round(last["accuracy"], 4))
        provide(options.checkpoint, options.history, options.further)
    if options.predict_at:
        resize(options.training_images, options.predict_at)
    if options.drawn:
        model.save(model.load(options.drawn), DRAWN, half=True)
        write_json(DRAWN.with_suffix(".json"), drawn_figures())
    predictions, counts = predict_folder(options.images, MODEL)
    measured = figures.metrics(predictions.probabilities(), predictions.labels, predictions.classes)
    measured |= {
        "failures": counts["failures"],
        "earlier_looks": earlier,
        "model_digest": digest_of(MODEL),
    }
    write_json(FIGURES, measured)
    counts, history = figures.confusion(predictions), pd.read_csv(HISTORY)
    stages = history.drop_duplicates("stage")
    curves = plots.learning_curves(history)
    for ax, start in itertools.product(curves.figure.axes, stages.epoch[1:]):
        ax.axvline(start - 0.5, color="0.75", linewidth=1, zorder=0)
    save(curves, "model_learning_curves")
    save(
        diagrams.confusion_matrix(counts, f"validation photographs, n = {measured['n']}"),
        "model_confusion_matrix",
    )
    plt.close("all")
    classes = figures.by_class(counts, pd.DataFrame({"relative_path": []}))
    _, abstaining = figures.threshold_for(figures.coverage(predictions.table))
    drawn = json.loads(DRAWN.with_suffix(".json").read_text())
    values = measured | {
        "drawn": drawn,
        "drawn_card": (drawn_card := model.load(DRAWN).card),
        "drawn_command": command(drawn_card, "drawn"),
        "drawn_mib": DRAWN.stat().st_size / 2**20,
        "card": model.load(MODEL).card,
        "size_mib": MODEL.stat().st_size / 2**20,
        "minutes": history.seconds.sum() / 60,
        "epochs": len(history),
        "commands": "\n".join(stages.command),
        "last_stage": stages.stage.max(),
        "held_back": ", ".join(
            f"{s.validation_share:.0%} in stage {s.stage}" for s in stages.itertuples()
        ),
        "looks": looks(earlier),
        "guess": counts.sum(axis=1).max() / measured["n"],
        "classes": "\n".join(
            f"| {name} | {row.n:.0f} | {row.recall:.2f} | {row.recall_low:.2f} to {row.recall_high:.2f} "
            f"| {row.precision:.2f} |"
            for name, row in classes.iterrows()
        ),
        "confused": "\n".join(f"- {sentence}" for sentence in figures.most_confused(counts)),
        "abstaining": abstaining,
    }
    (MODEL.parent / "README.md").write_text(TEMPLATE.read_text().format(**values))
    print(
        {
            name: measured[name]
            for name in ("n", "accuracy", "accuracy_95", "top3", "macro_f1", "ece", "ece_95")
        }
    )


if __name__ == "__main__":
    main()
