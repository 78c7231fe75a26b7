"""Make the committed pictures and quoted figures from the latest run: docs/make_pictures.py (`make pictures`)."""

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from helpers import config, plots
from helpers.images import decode
from helpers.review import diagrams, figures

FOLDER = config.PROJECT_ROOT / "docs" / "images"
MOST_BYTES = 150_000


def predicted(folder: Path) -> plots.Picture:
    """One test image of each class with its prediction: the surest mistake of a class, else its first image."""
    table = figures.load_predictions(folder).table.sort_values(
        ["right", "confidence"], ascending=[True, False]
    )
    chosen = table[table.right].groupby("label").head(1)
    wrong = table[~table.right].groupby("label").head(1).head(3)
    chosen = (
        pd.concat([chosen[~chosen.label.isin(wrong.label)], wrong])
        .sort_values("relative_path")
        .head(10)
    )
    images = [
        decode((config.images_folder() / "test" / path).read_bytes())
        for path in chosen.relative_path
    ]
    titles = [
        f"{'✓' if row.right else '✗'} {row.type}, {row.confidence:.2f}"
        + ("" if row.right else f"\n(is: {row.label})")
        for row in chosen.itertuples()
    ]
    return plots.image_grid(images, titles, list(chosen.right), columns=5)


def save(picture: plots.Picture, name: str) -> None:
    path = FOLDER / f"{name}.png"
    for dpi in (110, 90, 75, 60):  # the finest that stays small enough for a repository
        picture.figure.savefig(path, dpi=dpi)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    plt.close(picture.figure)
    print(f"{path.relative_to(config.PROJECT_ROOT)}: {path.stat().st_size // 1000} kB")


def measured(folder: Path) -> dict:
    """What README.md and the captions say of this run; a test compares them."""
    summary, inference = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "inference")
    )
    table = figures.load_predictions(folder).table
    counts = pd.read_csv(folder / "review" / "confusion_matrix.csv", index_col=0).rename_axis(
        columns="type"
    )
    errors = counts.stack().drop([(name, name) for name in counts])
    return {
        "arch": inference["arch"],
        "cores": os.cpu_count(),
        "images": summary["images"],
        "minutes": {
            name: max(0.1, round(seconds / 60, 1)) for name, seconds in summary["seconds"].items()
        },
        "most_confused": list(errors.idxmax()),
        "pictured": {
            "images": min(10, table.label.nunique()),
            "mistakes": min(3, table[~table.right].label.nunique()),
        },
    }


def main() -> None:
    latest = json.loads((config.runs_folder() / "latest.json").read_text())["run"]
    folder = config.runs_folder() / latest
    run, inference = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("run", "inference")
    )
    if run["data_set"] != "samples":
        raise SystemExit(
            f"Run {latest} is on {run['data_set']}. Run make tutorial first: pictures show drawn images only."
        )
    about = f"drawn samples, n = {inference['predicted']}, {inference['arch']}, local stand-in"
    counts = pd.read_csv(folder / "review" / "confusion_matrix.csv", index_col=0)
    save(predicted(folder), "predictions")
    save(diagrams.confusion_matrix(counts, about), "confusion_matrix")
    history = pd.read_csv(config.trained_model().with_suffix(".history.csv"))
    save(plots.learning_curves(history), "learning_curves")
    (FOLDER.parent / "measured.json").write_text(json.dumps(measured(folder), indent=2) + "\n")


if __name__ == "__main__":
    main()
