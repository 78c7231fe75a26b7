"""Training beside its ceiling: forward and backward alone, epoch 1 over HTTP, epoch 2 from the cache, the guide's way.

Prints a table and writes runs/bench/train.json, all images/s. The four are interleaved, round by round, so that a
machine whose speed drifts does not favour one of them; each figure is the median of the rounds.
"""

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import requests
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

import standin
from helpers import config
from helpers.files import write_json
from helpers.folders import image_files
from helpers.model import device_named, has_fast_bfloat16
from helpers.snowflake import stage
from helpers.snowflake.connection import connect, run_file
from helpers.snowflake.listing import sign_urls
from helpers.training.loop import Parameters, TrainingRun
from helpers.training.snowflake_folder import SnowflakeImageFolder

PHOTOGRAPHS = config.PROJECT_ROOT.parent / "shared" / "clothing-dataset-small" / "train"
DATABASE = "BENCH_TRAIN"


def chosen_images(folder: Path, n: int, target: Path) -> Path:
    """Links to `n` images, taken from the classes in turn."""
    files = {
        path.name: image_files(folder / path.name)
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }
    turns = itertools.chain.from_iterable(itertools.zip_longest(*files.values()))
    for path in itertools.islice((p for p in turns if p), n):
        link = target / "train" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return target / "train"


def stage_images(folder: Path):
    connection = connect("local")
    run_file(connection, "sql/01_create_database.sql", database_name=DATABASE)
    for name in ("02_create_stages", "03_create_tables"):
        run_file(connection, f"sql/{name}.sql")
    stage.sync(connection, folder, "clothing_dataset_train")
    run_file(connection, "sql/04_load_tables.sql")
    return connection


def dataset(connection, cache: Path, image_size: int) -> SnowflakeImageFolder:
    return SnowflakeImageFolder(
        "clothing_train", "relative_path", "clothing_dataset_train", connection,
        side=round(1.15 * image_size), cache=cache,
    )  # fmt: skip


def compute(run: TrainingRun, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of the training step alone, on batches that lie in memory."""
    size, started = run.parameters.batch_size, time.perf_counter()
    run.model.train()
    for i in range(run.steps):
        batch = slice(i * size, (i + 1) * size)
        run.train_step(images[batch], labels[batch], list(range(size)))
    return time.perf_counter() - started


def epoch(run: TrainingRun) -> float:
    """Seconds of an epoch of the project's own training loop, without the validation after it."""
    seconds = []
    run.end_epoch = lambda elapsed, rate, report: seconds.append(elapsed)
    run.step, run.sums = 0, [0.0, 0, 0]
    run.train_epoch(lambda progress: None)
    return seconds[0]


def guide_epoch(connection, run: TrainingRun, paths: list[str], labels: torch.Tensor) -> float:
    """Seconds of the guide's pattern: one request and one PIL decoding an image, in every epoch, in float32."""
    p, started = run.parameters, time.perf_counter()
    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(p.image_size), v2.PILToTensor()])
    urls = sign_urls(connection, "clothing_dataset_train", paths)
    for i in range(run.steps):
        batch = range(i * p.batch_size, (i + 1) * p.batch_size)
        responses = [requests.get(urls[j], stream=True) for j in batch]
        images = torch.stack([transform(Image.open(r.raw).convert("RGB")) for r in responses]).to(
            run.device
        )
        run.optimizer.zero_grad()
        cross_entropy(run.model(images), labels[list(batch)].to(run.device)).backward()
        run.optimizer.step()
    return time.perf_counter() - started


def measure(arch: str, connection, options) -> dict:
    scratch = Path(tempfile.mkdtemp())
    parameters = Parameters(
        n_epochs=1000, batch_size=options.batch_size, arch=arch, image_size=options.image_size,
        augmentation=options.augmentation, validation_share=0, checkpoint_every=10**9,
    )  # fmt: skip
    seconds = {name: [] for name in ("compute", "epoch1", "epoch2", "guide")}
    data = dataset(connection, scratch / "0", options.image_size)
    run = TrainingRun(data, parameters, scratch / "m.pt", "bench")
    images, labels, _ = run.load(list(range(run.steps * parameters.batch_size)))
    first = slice(parameters.batch_size)
    run.train_step(
        images[first], labels[first], list(range(parameters.batch_size))
    )  # sets up the kernels
    for turn in range(1, options.rounds + 1):
        run.step = 0
        seconds["compute"].append(compute(run, images, labels))
        run.data = dataset(connection, scratch / str(turn), options.image_size)
        seconds["epoch1"].append(epoch(run))
        seconds["epoch2"].append(epoch(run))
        if turn <= options.guide_rounds:
            seconds["guide"].append(guide_epoch(connection, run, data.paths, data.labels))
    shutil.rmtree(scratch)
    n = run.steps * parameters.batch_size
    result = {name: round(n / statistics.median(values), 2) for name, values in seconds.items()}
    ratios = {
        f"{name}_ratio": round(result[name] / result["compute"], 3)
        for name in ("epoch1", "epoch2", "guide")
    }
    return result | ratios | {"n_images": n, "rounds": options.rounds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, default=PHOTOGRAPHS, help="folder of <class>/<file>.jpg"
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
            f"{options.images} does not exist. Give a folder with --images (make images downloads one)."
        )
    with tempfile.TemporaryDirectory() as root:
        os.environ["TUTORIAL_SANDBOX"] = root
        try:
            connection = stage_images(
                chosen_images(options.images, options.n, Path(root) / "images")
            )
            results = {arch: measure(arch, connection, options) for arch in options.archs}
            connection.close()
        finally:
            standin.stop()
    device = device_named()
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    print(f"{options.image_size} px, batch {options.batch_size}, {device}, {precision}")
    print(
        f"{'images/s':10}{'compute':>9}{'epoch 1':>9}{'epoch 2':>9}{'guide':>9}{'1/compute':>11}{'2/compute':>11}"
    )
    for arch, r in results.items():
        print(f"{arch:10}{r['compute']:9.1f}{r['epoch1']:9.1f}{r['epoch2']:9.1f}{r['guide']:9.1f}"
              f"{r['epoch1_ratio']:11.3f}{r['epoch2_ratio']:11.3f}")  # fmt: skip
    (config.runs_folder() / "bench").mkdir(parents=True, exist_ok=True)
    write_json(config.runs_folder() / "bench" / "train.json", results)


if __name__ == "__main__":
    main()
