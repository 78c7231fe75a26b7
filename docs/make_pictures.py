"""Make the committed pictures and the quoted figures from the latest run (`make pictures`)."""

import json
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from helpers import config, folders, plots
from helpers.files import write_json
from helpers.images import decode
from helpers.review import diagrams, figures

FOLDER = config.PROJECT_ROOT / "docs" / "images"
MOST_BYTES = 150_000  # of a picture
MOST_IMAGES = 10  # in the picture of predictions
MOST_MISTAKES = 3  # among them


def predicted(folder: Path) -> plots.Picture:
    """One test image of each class with its prediction: a class's surest mistake, or its first hit.

    Ten images at most, three mistakes among them.
    """
    table = figures.load_predictions(folder).table
    table = table.sort_values(["right", "confidence"], ascending=[True, False])
    hits = table[table.right].groupby("label").head(1)
    mistakes = table[~table.right].groupby("label").head(1).head(MOST_MISTAKES)
    others = hits[~hits.label.isin(mistakes.label)]
    chosen = pd.concat([others, mistakes]).sort_values("relative_path").head(MOST_IMAGES)
    test = folders.images_folder() / "test"
    images = [decode((test / path).read_bytes()) for path in chosen.relative_path]
    titles = [titled(row) for row in chosen.itertuples()]
    return plots.image_grid(images, titles, list(chosen.right), columns=5)


def titled(row: Any) -> str:
    """The predicted class and its confidence; under a mistake the true class."""
    said = f"{row.type}, {row.confidence:.2f}"
    return f"✓ {said}" if row.right else f"✗ {said}\n(is: {row.label})"


@plots.in_style()
def save(picture: plots.Picture, name: str) -> None:
    """Write <name>.png to docs/images, in at most MOST_BYTES."""
    path = FOLDER / f"{name}.png"
    for dpi in (110, 90, 75, 60):  # the finest that stays small enough for a repository
        picture.figure.savefig(path, dpi=dpi)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    plt.close(picture.figure)
    print(f"{path.relative_to(config.PROJECT_ROOT)}: {path.stat().st_size // 1000} kB")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def confusion_counts(folder: Path) -> pd.DataFrame:
    """Counts by true class (rows) and predicted class (columns), as notebook 04 saved them."""
    return pd.read_csv(folder / "review" / "confusion_matrix.csv", index_col=0)


def measured(folder: Path) -> dict:
    """What README.md and the captions say of this run; a test compares them."""
    summary = read_json(folder / "summary.json")
    table = figures.load_predictions(folder).table
    counts = confusion_counts(folder).rename_axis(columns="type")
    errors = counts.stack().drop([(name, name) for name in counts])
    minutes = {
        name: max(0.1, round(seconds / 60, 1)) for name, seconds in summary["seconds"].items()
    }
    return {
        "arch": read_json(folder / "inference.json")["arch"],
        "cores": os.cpu_count(),
        "images": summary["images"],
        "minutes": minutes,
        "most_confused": list(errors.idxmax()),
        "pictured": {
            "images": min(MOST_IMAGES, table.label.nunique()),
            "mistakes": min(MOST_MISTAKES, table[~table.right].label.nunique()),
        },
    }


def main() -> None:
    latest = read_json(config.runs_folder() / "latest.json")["run"]
    folder = config.runs_folder() / latest
    data_set = read_json(folder / "run.json")["data_set"]
    if data_set != "samples":
        raise SystemExit(
            f"Run {latest} is on {data_set}. "
            "Run make tutorial first: pictures show drawn images only."
        )
    inference = read_json(folder / "inference.json")
    about = f"drawn samples, n = {inference['predicted']}, {inference['arch']}, local stand-in"
    save(predicted(folder), "predictions")
    save(diagrams.confusion_matrix(confusion_counts(folder), about), "confusion_matrix")
    history = pd.read_csv(config.trained_model().with_suffix(".history.csv"))
    save(plots.learning_curves(history), "learning_curves")
    write_json(FOLDER.parent / "measured.json", measured(folder))


if __name__ == "__main__":
    main()
