"""Training beside its ceiling and the guide's way.

Forward and backward alone, epoch 1 over HTTP, epoch 2 from the cache, and the guide's pattern.
Prints a table and writes runs/bench/train.json, all images/s. The four are interleaved, round by
round, so that a machine whose speed drifts does not favour one of them; each figure is the median
of the rounds.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import requests
import torch
from common import PHOTOGRAPHS, link_in_turns, make_tables
from PIL import Image
from snowflake.connector import SnowflakeConnection
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

import standin
from helpers import config
from helpers.files import write_json
from helpers.folders import walk
from helpers.labels import label_of
from helpers.model import device_named, has_fast_bfloat16
from helpers.snowflake.connection import connect
from helpers.snowflake.listing import sign_urls
from helpers.training.loop import Parameters, TrainingRun
from helpers.training.snowflake_folder import SnowflakeImageFolder

DATABASE = "BENCH_TRAIN"
TABLE = "clothing_train"
STAGE = "clothing_dataset_train"


def staged(folder: Path, n: int, links: Path) -> SnowflakeConnection:
    """A connection to a database whose table lists `n` images of `folder`, classes in turn."""
    classes: dict[str, list[Path]] = {}
    for path, file in walk(folder).files.items():
        classes.setdefault(label_of(path), []).append(file)
    link_in_turns(classes, n, links)
    connection = connect("local")
    make_tables(connection, links, DATABASE, [STAGE])
    return connection


def dataset(connection: SnowflakeConnection, cache: Path, image_size: int) -> SnowflakeImageFolder:
    """The staged images, which nobody has downloaded yet where `cache` is empty."""
    side = round(1.15 * image_size)
    return SnowflakeImageFolder(TABLE, "relative_path", STAGE, connection, side=side, cache=cache)


def compute(run: TrainingRun, images: Tensor, labels: Tensor) -> float:
    """Seconds of the training step alone, on batches that lie in memory."""
    size = run.parameters.batch_size
    started = time.perf_counter()
    run.model.train()
    for i in range(run.n_steps):
        batch = slice(i * size, (i + 1) * size)
        run.train_step(images[batch], labels[batch], list(range(size)))
    return time.perf_counter() - started


def epoch(run: TrainingRun) -> float:
    """Seconds of an epoch of the project's own training loop, without the validation after it."""
    run.train_epoch(lambda run: None)
    return run.at.history[-1]["seconds"]


def guide_epoch(
    connection: SnowflakeConnection, run: TrainingRun, paths: list[str], labels: Tensor
) -> float:
    """Seconds of the guide's pattern, in float32.

    It requests and decodes, by PIL, every image in every epoch.
    """
    size = run.parameters.batch_size
    crop = v2.CenterCrop(run.parameters.image_size)
    started = time.perf_counter()
    transform = v2.Compose([v2.Resize(256), crop, v2.PILToTensor()])
    urls = sign_urls(connection, STAGE, paths)
    for i in range(run.n_steps):
        batch = slice(i * size, (i + 1) * size)
        responses = [requests.get(url, stream=True) for url in urls[batch]]
        decoded = [transform(Image.open(response.raw).convert("RGB")) for response in responses]
        images = torch.stack(decoded).to(run.device)
        run.optimizer.zero_grad()
        cross_entropy(run.model(images), labels[batch].to(run.device)).backward()
        run.optimizer.step()
    return time.perf_counter() - started


def measure(arch: str, connection: SnowflakeConnection, options: argparse.Namespace) -> dict:
    """Images/s of the four, and three of them as shares of the first."""
    scratch = Path(tempfile.mkdtemp())
    parameters = Parameters(
        n_epochs=1000,
        batch_size=options.batch_size,
        arch=arch,
        weights="none",
        image_size=options.image_size,
        augmentation=options.augmentation,
        validation_share=0,
        save_every_s=10**9,
    )
    seconds = {name: [] for name in ("compute", "epoch1", "epoch2", "guide")}
    data = dataset(connection, scratch / "0", options.image_size)
    run = TrainingRun(data, parameters, scratch / "m.pt", "bench")
    images, labels, _ = run.load(list(range(run.n_steps * parameters.batch_size)))
    first = range(parameters.batch_size)
    run.train_step(images[: len(first)], labels[: len(first)], list(first))  # sets up the kernels
    for turn in range(1, options.rounds + 1):
        run.at.step = 0
        seconds["compute"].append(compute(run, images, labels))
        run.at.step = 0
        run.data = dataset(connection, scratch / str(turn), options.image_size)
        seconds["epoch1"].append(epoch(run))
        seconds["epoch2"].append(epoch(run))
        if turn <= options.guide_rounds:
            seconds["guide"].append(guide_epoch(connection, run, data.paths, data.labels))
    shutil.rmtree(scratch)
    n = run.n_steps * parameters.batch_size
    result = {name: round(n / statistics.median(values), 2) for name, values in seconds.items()}
    ratios = {
        f"{name}_ratio": round(result[name] / result["compute"], 3)
        for name in ("epoch1", "epoch2", "guide")
    }
    return result | ratios | {"n_images": n, "rounds": options.rounds}


def print_table(results: dict[str, dict]) -> None:
    """A row for each network."""
    headings = ("compute", "epoch 1", "epoch 2", "guide")
    ratios = ("1/compute", "2/compute")
    print(
        f"{'images/s':10}",
        *(f"{heading:>9}" for heading in headings),
        *(f"{ratio:>11}" for ratio in ratios),
        sep="",
    )
    for arch, figures in results.items():
        print(
            f"{arch:10}",
            *(f"{figures[name]:9.1f}" for name in ("compute", "epoch1", "epoch2", "guide")),
            *(f"{figures[name]:11.3f}" for name in ("epoch1_ratio", "epoch2_ratio")),
            sep="",
        )


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, default=PHOTOGRAPHS / "train", help="folder of <class>/<file>.jpg"
    )
    parser.add_argument("--n", type=int, default=256, help="images")
    parser.add_argument("--archs", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guide-rounds", type=int, default=1)
    parser.add_argument(
        "--augmentation", type=float, default=0.0, help="part of every row, also of compute"
    )
    options = parser.parse_args()
    if not options.images.is_dir():
        raise SystemExit(
            f"{options.images} does not exist. "
            "Give a folder with --images (make images downloads one)."
        )
    return options


def main() -> None:
    """Measure in a stand-in of its own, print, and write."""
    options = parsed_options()
    with tempfile.TemporaryDirectory() as root:
        os.environ["TUTORIAL_SANDBOX"] = root
        try:
            connection = staged(options.images, options.n, Path(root) / "images" / "train")
            results = {arch: measure(arch, connection, options) for arch in options.archs}
            connection.close()
        finally:
            standin.stop()
    device = device_named()
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    print(f"{options.image_size} px, batch {options.batch_size}, {device}, {precision}")
    print_table(results)
    write_json(config.runs_folder() / "bench" / "train.json", results)


if __name__ == "__main__":
    main()
