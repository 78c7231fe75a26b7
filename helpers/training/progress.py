"""How long a training will take, and how far it is, for the notebook."""

import tempfile
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from helpers.images import ImageError
from helpers.training.dataset import LabelledImages
from helpers.training.loop import Parameters, TrainingRun

LOOK = 1 / 3  # of the time of training on an image that it takes to look at one
LONG_S = 600  # a training that takes longer gets advice
BAR = "{desc}{percentage:3.0f}% |{bar}| {remaining} left{postfix}"


class TrainingBar(AbstractContextManager):
    """A bar over all steps of a training, to be given to `fit` as `report`: it is there at once."""

    bar: tqdm | None = None

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, run: TrainingRun) -> None:
        n_epochs = run.parameters.n_epochs
        done = run.at.epoch * run.n_steps + run.at.step
        if self.bar is None:
            self.bar = tqdm(
                total=n_epochs * run.n_steps, initial=done, bar_format=BAR, mininterval=0.5
            )
        self.bar.set_description(f"epoch {min(run.at.epoch + 1, n_epochs)}/{n_epochs}", False)
        loss = [f"loss {run.at.loss:.2f}"] if run.at.images else []
        held_back = [f"held back {row['validation_accuracy']:.3f}" for row in run.at.history[-1:]]
        self.bar.set_postfix_str(", ".join(loss + held_back), refresh=False)
        self.bar.update(done - self.bar.n)


def forecast(data: LabelledImages, parameters: Parameters) -> str:
    """How long a training will take here, in words, and what would be quicker if it is long.

    A few steps are tried, of which nothing is kept. Raises ImageError where no image can be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run = TrainingRun(data, parameters, Path(scratch) / "model.pt", "")
        # the first of which some can be read
        batch = next((each for each in map(run.load, run.batches()) if each[2]), None)
        if batch is None:
            raise ImageError(f"No image could be read: {next(iter(data.broken.items()))}")
        run.model.train()
        run.train_step(*batch)  # prepares much, and is not counted
        started = time.perf_counter()
        run.train_step(*batch)
        run.train_step(*batch)
        step_s = (time.perf_counter() - started) / 2
    looks = LOOK * len(run.validation) / len(batch[2])  # as many steps as they are worth
    seconds = round(parameters.n_epochs * (run.n_steps + looks) * step_s)
    said = f"This training will take about {timedelta(seconds=seconds)} (h:mm:ss) on this machine."
    if seconds < LONG_S:
        return said
    return (
        f"{said} Quicker: fewer epochs (n_epochs), a smaller image_size, a share of the images "
        "(downsample_to), or a GPU. Or skip it: notebook 03 takes a model that is there already."
    )


def finished_history(path: Path) -> pd.DataFrame:
    """The history that a finished training left beside its checkpoint, a row an epoch.

    Raises FileNotFoundError where none has finished.
    """
    beside = path.with_suffix(".history.csv")
    if not beside.exists():
        raise FileNotFoundError(
            "No training has finished here yet. Run the cell that trains to its end, or go on with "
            "notebook 03_run_inference, which takes a model that comes with the repository."
        )
    return pd.read_csv(beside)
