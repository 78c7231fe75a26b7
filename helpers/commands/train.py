"""Train from a plain folder of images, without Snowflake, Dask or pandas."""

import argparse
import time
from dataclasses import fields
from pathlib import Path

from helpers import config
from helpers.training.image_folder import ImageFolder
from helpers.training.loop import Parameters, TrainingRun, fit


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done."""
    options = vars(_parser().parse_args(arguments))
    images = options.pop("images")
    checkpoint = options.pop("checkpoint")
    name = options.pop("name") or images.resolve().parent.name
    cache = options.pop("cache")
    parameters = Parameters(**options)
    data = ImageFolder(images, side=round(1.15 * parameters.image_size), cache=cache)
    print(f"{len(data)} images, {len(data.classes)} classes, {parameters}", flush=True)
    started = time.perf_counter()
    fit(data, parameters, checkpoint, name, print_progress)
    print(f"model: {checkpoint}, {time.perf_counter() - started:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers train",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/<file>.jpg")
    parser.add_argument(
        "--checkpoint", type=Path, default=config.trained_model(), help="where the model goes"
    )
    parser.add_argument("--name", default="", help="the data set's name; default: the folder's")
    parser.add_argument(
        "--cache", type=Path, default=config.cache_folder(), help="folder for decoded images"
    )
    for field in fields(Parameters):  # which converts what it is given
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default)
    return parser


def print_progress(run: TrainingRun) -> None:
    """A line for a terminal, as `report` of `fit`."""
    at = run.at
    if at.step:
        place = f"epoch {at.epoch + 1}/{run.parameters.n_epochs} step {at.step}/{run.n_steps}"
        print(f"{place} loss {at.loss:.3f} accuracy {at.hits / at.images:.3f}", flush=True)
    elif at.history:
        last = at.history[-1]
        said = "validation loss {validation_loss:.3f} accuracy {validation_accuracy:.3f}"
        print(f"epoch {last['epoch']} done: {said.format(**last)}", flush=True)
