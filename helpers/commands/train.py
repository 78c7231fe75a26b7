"""Train from a plain folder of images; needs only torch, torchvision and numpy."""

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path

from helpers import config
from helpers.training.dataset import ImageFolder
from helpers.training.loop import Parameters, Progress, fit


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m helpers train",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/<file>.jpg")
    parser.add_argument(
        "--checkpoint", type=Path, default=config.trained_model(), help="where the model goes"
    )
    parser.add_argument(
        "--name", default="", help="the data set's name in the checkpoint; default: the folder's"
    )
    parser.add_argument(
        "--cache", type=Path, default=config.cache_folder(), help="folder for decoded images"
    )
    for field in fields(Parameters):
        kind = (
            field.type
            if field.type is not bool
            else lambda text: text.lower() in ("1", "true", "yes")
        )
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args(arguments))
    images, checkpoint, name, cache = (
        options.pop(key) for key in ("images", "checkpoint", "name", "cache")
    )
    parameters = Parameters(**options)
    try:
        data = ImageFolder(images, side=round(1.15 * parameters.image_size), cache=cache)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(data)} images, {len(data.classes)} classes, {parameters}", flush=True)
    started = time.perf_counter()
    try:
        fit(data, parameters, checkpoint, name or images.resolve().parent.name, print_progress)
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        return 130
    print(f"model: {checkpoint}, {time.perf_counter() - started:.0f} s")
    return 0


def print_progress(p: Progress) -> None:
    line = f"epoch {p.epoch} step {p.step}/{p.steps} loss {p.loss:.3f} accuracy {p.accuracy:.3f}"
    line += f" {p.images_per_s:.0f} images/s, {p.seconds_left / 60:.0f} min left"
    if p.validation:
        line += " | validation loss {loss:.3f} accuracy {accuracy:.3f}".format(**p.validation)
    print(line, flush=True)
