"""Inference end to end beside its ceiling, the forward pass alone, and beside the guide's pattern.

Prints a table and writes runs/bench/inference.json, all images/s. The ceiling is measured before
and after each of the project's passes over all images, on the same cores with the same model, so
that a machine whose speed drifts does not favour one of them. Each pass has a new cluster, up
before the clock starts, its libraries imported; the pass counts sending, loading and exporting the
model. The guide's pattern runs on Dask's default cluster for this machine.
"""

import argparse
import io
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import requests
import torch
import torchvision
from common import PHOTOGRAPHS, link_in_turns, make_tables
from distributed import Client, get_worker
from PIL import Image
from snowflake.connector import SnowflakeConnection
from torch import Tensor
from torchvision.transforms import functional as F

import standin
from helpers import config, model
from helpers.cluster.predictor import PASS, onnx_session
from helpers.cluster.start import start_cluster
from helpers.files import write_json
from helpers.folders import walk
from helpers.inference.classify import classify
from helpers.inference.schedule import Sign
from helpers.snowflake.connection import connect
from helpers.snowflake.listing import list_images, sign_urls
from helpers.training.pretrained import build

DATABASE = "BENCH_INFERENCE"
TABLE = "clothing_test"
STAGE = "clothing_dataset"
KINDS = ("eager", "channels_last", "onnx_runtime")  # the last is what the project chose
GUIDE_BATCH = 80
GUIDE_IMAGES = 400
# of a ceiling process: its forward passes, and the barrier at which all of them start
_process: dict[str, Any] = {}


def staged(folder: Path, n: int, links: Path) -> SnowflakeConnection:
    """A connection to a database whose table lists `n` images of `folder`.

    They are of every split, classes in turn.
    """
    classes: dict[str, list[Path]] = {}
    splits = [path for path in folder.iterdir() if path.is_dir()]
    for path in sorted(path for split in splits for path in walk(split).files.values()):
        classes.setdefault(path.parent.name, []).append(path)
    link_in_turns(classes, n, links)
    connection = connect("local")
    make_tables(connection, links, DATABASE, [STAGE])
    return connection


def untrained(arch: str, size: int, path: Path) -> Path:
    """A checkpoint of random weights: the speed does not depend on them."""
    torch.manual_seed(0)
    card = model.ModelCard(arch, [f"class {i}" for i in range(10)], size, "bench", "bench")
    model.save(model.Classifier(build(arch, 10), card), path)
    return path


class Ceiling:
    """The forward pass on images in memory, in processes that start together.

    threads: cores for each of them.
    """

    def __init__(self, model_path: Path, processes: int, threads: int, batch_size: int):
        spawn = multiprocessing.get_context("spawn")
        self.processes = processes
        arguments = (model_path, threads, batch_size, spawn.Barrier(processes))
        self.pool = spawn.Pool(processes, _prepare, arguments)

    def __call__(self, kind: str, seconds: float) -> float:
        """Images/s of all processes together."""
        arguments = [(kind, seconds)] * self.processes
        return sum(self.pool.starmap(_forward_for, arguments, chunksize=1))


def _prepare(model_path: Path, threads: int, batch_size: int, barrier: Barrier) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    classifier = model.load(model_path)  # in channels_last
    contiguous = model.load(model_path)
    contiguous.net.to(memory_format=torch.contiguous_format)
    session = onnx_session(classifier, threads)
    size = classifier.card.image_size
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    floats = (images.float() - classifier.mean) / classifier.std

    def in_onnx_runtime() -> None:
        for part in images.split(PASS):
            session.run(None, {"images": part.numpy()})

    forwards: dict[str, Callable[[], Any]] = {
        "eager": partial(contiguous.net, floats),
        "channels_last": partial(classifier, images),
        "onnx_runtime": in_onnx_runtime,
    }
    for forward in forwards.values():
        forward()
    _process.update(forwards=forwards, barrier=barrier, batch_size=batch_size)


def _forward_for(kind: str, seconds: float) -> float:
    forward = _process["forwards"][kind]
    forward()  # what the kernel took from idle processes is there again
    _process["barrier"].wait()
    n = 0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        forward()
        n += _process["batch_size"]
    return n / (time.perf_counter() - started)


def decode_alone(client: Client, urls: list[str], batch_size: int) -> float:
    """Images/s of fetching and decoding, by the workers' own readers."""
    batches = [urls[i : i + batch_size] for i in range(0, len(urls), batch_size)]
    started = time.perf_counter()
    client.gather(client.map(_read, batches, pure=False))
    return len(urls) / (time.perf_counter() - started)


def _read(urls: list[str]) -> int:
    worker: Any = get_worker()  # its predictor is ours
    return len(worker.predictor.read_all(urls))


def guides_pattern(client: Client, urls: list[str], arch: str, weights: Path) -> float:
    """Images/s of one delayed task an image, the weights loaded for every batch.

    Between the tasks go float32 tensors. weights: a state dictionary in its file, as in the guide.
    """
    started = time.perf_counter()
    images = [dask.delayed(_guide_preprocess)(url) for url in urls]
    batches = [images[i : i + GUIDE_BATCH] for i in range(0, len(images), GUIDE_BATCH)]
    tasks = [dask.delayed(_guide_predict)(batch, arch, str(weights)) for batch in batches]
    client.gather(client.compute(tasks))
    return len(urls) / (time.perf_counter() - started)


def _import_libraries() -> None:
    """Reaching this function has imported this module, and so all of them."""


def _guide_preprocess(url: str) -> Tensor:
    image: Any = Image.open(io.BytesIO(requests.get(url, timeout=60).content)).convert("RGB")
    # these take and return PIL's images too, whatever their types say
    cropped: Any = F.center_crop(F.resize(image, [256]), [224])
    return F.to_tensor(cropped)


def _guide_predict(images: list[Tensor], arch: str, weights: str) -> list[int]:
    net = torchvision.models.get_model(arch, num_classes=10)
    net.load_state_dict(torch.load(weights))
    with torch.no_grad():
        return net.eval()(torch.stack(images)).argmax(1).tolist()


def _save_weights(model_path: Path, path: Path) -> Path:
    """The state dictionary alone, as the guide keeps it."""
    state = model.load(model_path).net.state_dict()
    torch.save({name: value.contiguous() for name, value in state.items()}, path)
    return path


def project_pass(
    frames: list[pd.DataFrame], sign: Sign, run: Path, model_path: Path, batch_size: int
) -> tuple[int, float, float]:
    """Images predicted, seconds, and images/s of fetching and decoding alone, on a new cluster."""
    with start_cluster("local") as client:
        started = time.perf_counter()
        summary = classify(client, frames, sign, run, model_path, batch_size=batch_size)
        seconds = time.perf_counter() - started
        decoded = decode_alone(client, sign(first_paths(frames, 4 * GUIDE_IMAGES)), batch_size)
    return summary["predicted"], seconds, decoded


def first_paths(frames: list[pd.DataFrame], n: int) -> list[str]:
    """The first `n` paths of the listing."""
    return pd.concat(frames)["RELATIVE_PATH"].tolist()[:n]


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Images/s of everything, by name."""
    connection = staged(options.images, options.n, folder / "links")
    sign = partial(sign_urls, connection, STAGE)
    frames = list(list_images(connection, TABLE, STAGE))
    model_path = untrained(options.arch, options.image_size, folder / "model.pt")
    cores = len(os.sched_getaffinity(0))
    ceilings = {
        f"{processes} x {threads}": Ceiling(model_path, processes, threads, options.batch_size)
        for processes, threads in {(cores, 1), (1, cores)}
    }
    for ceiling in ceilings.values():  # wait until its processes are ready
        ceiling(KINDS[0], 0)
    rates = {f"{kind}, {form}": [] for kind in KINDS for form in ceilings}

    def measure_ceilings() -> None:
        for kind, form in itertools.product(KINDS, ceilings):
            rates[f"{kind}, {form}"].append(ceilings[form](kind, options.seconds))

    passes = []
    for turn in range(options.rounds):
        measure_ceilings()
        run = folder / f"run-{turn}"
        passes.append(project_pass(frames, sign, run, model_path, options.batch_size))
    measure_ceilings()
    with Client(dashboard_address="127.0.0.1:0") as client:
        client.run(_import_libraries)
        weights = _save_weights(model_path, folder / "weights.pt")
        urls = sign(first_paths(frames, GUIDE_IMAGES))
        guide = guides_pattern(client, urls, options.arch, weights)
    connection.close()
    place = {"arch": options.arch, "image_size": options.image_size, "cores": cores}
    return place | compared(rates, passes, guide)


def compared(
    rates: dict[str, list[float]], passes: list[tuple[int, float, float]], guide: float
) -> dict:
    """The figures to write, from the rates of ceilings and guide, and the project's passes."""
    means = {row: round(sum(values) / len(values), 2) for row, values in rates.items()}
    ceiling = max(means.values())
    predicted, seconds, decoded = zip(*passes, strict=True)
    project = sum(predicted) / sum(seconds)
    return {
        "n_images": predicted[0],
        "ceiling": ceiling,
        "ceiling_rows": means,
        "this_project": round(project, 2),
        "this_project_by_round": [round(n / spent, 2) for n, spent, _ in passes],
        "guides_pattern": round(guide, 2),
        "decode": round(decoded[-1], 2),
        "ratio_to_ceiling": round(project / ceiling, 3),
        "ratio_to_guide": round(project / guide, 2),
    }


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, default=PHOTOGRAPHS, help="folder of <split>/<class>/<file>"
    )
    parser.add_argument("--n", type=int, default=1_000_000, help="at most so many images")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="images a task, as in notebook 03"
    )
    parser.add_argument("--rounds", type=int, default=2, help="passes over all images")
    parser.add_argument(
        "--seconds", type=float, default=5, help="for each ceiling row in each round"
    )
    options = parser.parse_args()
    if not options.images.is_dir():
        parser.error(
            f"{options.images} does not exist. Give --images a folder of <split>/<class>/<file>."
        )
    return options


def main() -> None:
    """Measure in a stand-in of its own, print, and write."""
    options = parsed_options()
    folder = Path(tempfile.mkdtemp())
    os.environ["TUTORIAL_SANDBOX"] = str(folder / "sandbox")
    try:
        result = measure(options, folder)
    finally:
        standin.stop(folder / "sandbox")
        shutil.rmtree(folder, ignore_errors=True)
    for row, value in result["ceiling_rows"].items():
        print(f"forward only, {row:24}{value:8.1f} images/s")
    for row in ("ceiling", "this_project", "guides_pattern", "decode"):
        print(f"{row.replace('_', ' '):38}{result[row]:8.1f} images/s")
    print(
        f"this project is {result['ratio_to_ceiling']} of the ceiling, "
        f"{result['ratio_to_guide']} times the guide's"
    )
    write_json(config.runs_folder() / "bench" / "inference.json", result)


if __name__ == "__main__":
    main()
