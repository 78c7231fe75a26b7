"""How long a training will take, and how far it is: for notebooks and terminals."""

import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.training.dataset import LabelledImages
from helpers.training.loop import Parameters, Progress, TrainingRun

TRIED_STEPS = 3  # of which the first, which prepares much, is not counted
LONG_S = 600  # a training that takes longer gets advice

BAR = "{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}"


class TrainingBar:
    """A bar over all steps of a training, to be given to `fit` as `report`: it stands there at
    once.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.validated = ""

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, progress: Progress) -> None:
        done = (progress.epoch - 1) * progress.steps + progress.step
        if self.bar is None:
            total = progress.n_epochs * progress.steps
            self.bar = tqdm(total=total, initial=done, bar_format=BAR, mininterval=0.5)
        if progress.validation:
            self.validated = f", held back {progress.validation['accuracy']:.3f}"
        self.bar.set_description(f"epoch {progress.epoch}/{progress.n_epochs}", refresh=False)
        if progress.step:
            shown = f"loss {progress.loss:.2f}, right {progress.accuracy:.2f}{self.validated}"
            self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update(done - self.bar.n)


def finished_history(path: Path) -> pd.DataFrame:
    """The history that a finished training left beside its checkpoint, a row an epoch.

    Raises FileNotFoundError where none has finished.
    """
    beside = path.with_suffix(".history.csv")
    if not beside.exists():
        raise FileNotFoundError(
            "No training has finished here yet. Run the cell that trains to its end, or go on "
            "with notebook 03_run_inference, which takes a model that comes with the repository."
        )
    return pd.read_csv(beside)


def estimate_s(data: LabelledImages, parameters: Parameters) -> float:
    """Seconds that a training will take here, from a few steps and a look at held-back images.

    Reads the images of those steps; nothing is kept.
    """
    with tempfile.TemporaryDirectory() as scratch:
        run = TrainingRun(data, parameters, Path(scratch) / "model.pt", "")
        size = min(parameters.batch_size, len(run.training))
        batch = run.load(run.training[:size])
        run.model.train()
        run.train_step(*batch)
        started = time.perf_counter()
        for _ in range(TRIED_STEPS - 1):
            run.train_step(*batch)
        step_s = (time.perf_counter() - started) / (TRIED_STEPS - 1)
        image_s = 0.0
        if run.validation:
            images = torch.zeros(size, 3, parameters.image_size, parameters.image_size)
            run.model.eval()
            started = time.perf_counter()
            with torch.inference_mode():
                run.model(images.to(run.device))
            image_s = (time.perf_counter() - started) / size
    epoch_s = run.steps * step_s + len(run.validation) * image_s
    return parameters.n_epochs * epoch_s


def forecast(data: LabelledImages, parameters: Parameters) -> str:
    """How long a training will take here, in words, and what would be quicker if it is long."""
    seconds = estimate_s(data, parameters)
    said = f"This training will take about {clock(seconds)} (h:mm:ss) on this machine."
    if seconds < LONG_S:
        return said
    return (
        f"{said} Quicker: fewer epochs (n_epochs), a smaller image_size, a share of the images "
        "(downsample_to), or a GPU. Or skip it: notebook 03 takes a model that is there already."
    )


def clock(seconds: float) -> str:
    """A time as h:mm:ss.

    >>> clock(75.4), clock(3675)
    ('0:01:15', '1:01:15')
    """
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"
