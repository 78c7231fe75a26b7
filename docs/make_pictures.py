"""Make the committed pictures from the latest run: python docs/make_pictures.py (what `make pictures` calls)."""

import json

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from helpers import config, plots
from helpers.dataset import image_files
from helpers.images import decode

FOLDER = config.PROJECT_ROOT / "docs" / "images"
MOST_BYTES = 150_000


def sample_sheet(run: dict) -> plots.Picture:
    """A test image of each drawn class."""
    files = image_files(config.images_folder() / "test")
    chosen = [path for name in run["classes"] for path in [p for p in files if p.parent.name == name][:1]]
    return plots.image_grid([decode(p.read_bytes()) for p in chosen], [p.parent.name for p in chosen], columns=5)


def save(picture: plots.Picture, name: str) -> None:
    path = FOLDER / f"{name}.png"
    for dpi in (110, 90, 75, 60):  # the finest that stays small enough for a repository
        picture.figure.savefig(path, dpi=dpi)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    plt.close(picture.figure)
    print(f"{path.relative_to(config.PROJECT_ROOT)}: {path.stat().st_size // 1000} kB")


def main() -> None:
    latest = json.loads((config.runs_folder() / "latest.json").read_text())["run"]
    folder = config.runs_folder() / latest
    run, inference = (json.loads((folder / f"{name}.json").read_text()) for name in ("run", "inference"))
    if run["data_set"] != "samples":
        raise SystemExit(
            f"Run {latest} is on {run['data_set']}. Run make tutorial first: pictures show drawn images only."
        )
    about = f"drawn samples, n = {inference['predicted']}, {inference['arch']}, local stand-in"
    counts = pd.read_csv(folder / "review" / "confusion_matrix.csv", index_col=0)
    save(sample_sheet(run), "samples")
    save(plots.confusion_matrix(counts, about), "confusion_matrix")
    history = pd.read_csv(config.trained_model().with_suffix(".history.csv"))
    save(plots.learning_curves(history), "learning_curves")


if __name__ == "__main__":
    main()
