"""Inference end to end beside its ceiling, the forward pass alone, and beside the guide's pattern.

Prints a table and writes runs/bench/inference.json, all images/s. The ceiling is measured before and after each of
the project's passes over all images, on the same cores with the same model, so that a machine whose speed drifts does
not favour one of them. Each pass has a new cluster, up before the clock starts, its libraries imported; the pass counts
sending, loading and exporting the model. The guide's pattern runs on Dask's default cluster for this machine.
"""

import argparse
import io
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import dask
import requests
import torch
import torchvision
from distributed import Client, get_worker
from PIL import Image
from torchvision.transforms import functional as F

import standin
from helpers import config, model
from helpers.cluster.predictor import PASS, onnx_session
from helpers.cluster.start import start_cluster
from helpers.files import write_json
from helpers.folders import image_files
from helpers.inference.classify import classify
from helpers.snowflake import stage
from helpers.snowflake.connection import connect, run_file
from helpers.snowflake.listing import list_images, sign_urls

PHOTOGRAPHS = config.PROJECT_ROOT.parent / "shared" / "clothing-dataset-small"
DATABASE, TABLE, STAGE = "BENCH_INFERENCE", "clothing_test", "clothing_dataset"
KINDS = ("eager", "channels_last", "onnx_runtime")  # the last is what the project chose
GUIDE_BATCH, GUIDE_IMAGES = 80, 400
_process = {}  # of a ceiling process: its forward passes, and the barrier at which all of them start


def staged(folder: Path, n: int, links: Path):
    """A connection to a database whose table lists `n` images of `folder`, of every split, classes in turn."""
    classes = {}
    for path in sorted(
        p for split in folder.iterdir() if split.is_dir() for p in image_files(split)
    ):
        classes.setdefault(path.parent.name, []).append(path)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*classes.values()))
    for path in itertools.islice(filter(None, turns), n):
        link = links / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    connection = connect("local")
    run_file(connection, "sql/01_create_database.sql", database_name=DATABASE)
    for name in ("02_create_stages", "03_create_tables"):
        run_file(connection, f"sql/{name}.sql")
    stage.sync(connection, links, STAGE)
    run_file(connection, "sql/04_load_tables.sql")
    return connection


def untrained(arch: str, size: int, path: Path) -> Path:
    """A checkpoint of random weights: the speed does not depend on them."""
    torch.manual_seed(0)
    card = model.ModelCard(arch, [f"class {i}" for i in range(10)], size, "bench", "bench")
    model.save(model.Classifier(model.build(arch, 10), card), path)
    return path


class Ceiling:
    """The forward pass on images in memory, in `processes` that start together, each on `threads` cores."""

    def __init__(self, model_path: Path, processes: int, threads: int, batch_size: int):
        spawn, self.processes = multiprocessing.get_context("spawn"), processes
        arguments = (model_path, threads, batch_size, spawn.Barrier(processes))
        self.pool = spawn.Pool(processes, _prepare, arguments)

    def __call__(self, kind: str, seconds: float) -> float:
        """Images/s of all processes together."""
        return sum(self.pool.starmap(_forward_for, [(kind, seconds)] * self.processes, chunksize=1))


def _prepare(model_path: Path, threads: int, batch_size: int, barrier) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    last, first = model.load(model_path), model.load(model_path)
    first.net.to(memory_format=torch.contiguous_format)
    session = onnx_session(last, threads)
    size = last.card.image_size
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    floats = (images.float() - last.mean) / last.std
    forwards = {"eager": partial(first.net, floats), "channels_last": partial(last, images)}
    forwards["onnx_runtime"] = lambda: [
        session.run(None, {"images": part.numpy()}) for part in images.split(PASS)
    ]
    for forward in forwards.values():
        forward()
    _process.update(forwards=forwards, barrier=barrier, batch_size=batch_size)


def _forward_for(kind: str, seconds: float) -> float:
    _process["forwards"][kind]()  # what the kernel took from idle processes is there again
    _process["barrier"].wait()
    started, n = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        _process["forwards"][kind]()
        n += _process["batch_size"]
    return n / (time.perf_counter() - started)


def decode_alone(client, urls: list[str], batch_size: int) -> float:
    """Images/s of fetching and decoding, by the workers' own readers."""
    batches = [urls[i : i + batch_size] for i in range(0, len(urls), batch_size)]
    started = time.perf_counter()
    client.gather(client.map(_read, batches, pure=False))
    return len(urls) / (time.perf_counter() - started)


def _read(urls: list[str]) -> int:
    return len(get_worker().predictor.read_all(urls))


def guides_pattern(client, urls: list[str], arch: str, weights: Path) -> float:
    """Images/s of one delayed task an image, float32 tensors between tasks, the weights loaded for every batch.

    weights: a state dictionary in its file, as in the guide.
    """
    started = time.perf_counter()
    images = [dask.delayed(_guide_preprocess)(url) for url in urls]
    batches = [images[i : i + GUIDE_BATCH] for i in range(0, len(images), GUIDE_BATCH)]
    client.gather(
        client.compute(
            [dask.delayed(_guide_predict)(batch, arch, str(weights)) for batch in batches]
        )
    )
    return len(urls) / (time.perf_counter() - started)


def _import_libraries() -> None:
    """Reaching this function has imported this module, and so all of them."""


def _guide_preprocess(url: str) -> torch.Tensor:
    image = Image.open(io.BytesIO(requests.get(url, timeout=60).content)).convert("RGB")
    return F.to_tensor(F.center_crop(F.resize(image, [256]), [224]))


def _guide_predict(images: list[torch.Tensor], arch: str, weights: str) -> list[int]:
    net = torchvision.models.get_model(arch, num_classes=10)
    net.load_state_dict(torch.load(weights))
    with torch.no_grad():
        return net.eval()(torch.stack(images)).argmax(1).tolist()


def measure(options: argparse.Namespace, folder: Path) -> dict:
    connection = staged(options.images, options.n, folder / "links")
    sign = partial(sign_urls, connection, STAGE)
    frames = list(list_images(connection, TABLE, STAGE))
    paths = [path for frame in frames for path in frame["RELATIVE_PATH"]]
    model_path = untrained(options.arch, options.image_size, folder / "model.pt")
    cores = len(os.sched_getaffinity(0))
    ceilings = {
        f"{p} x {t}": Ceiling(model_path, p, t, options.batch_size)
        for p, t in {(cores, 1), (1, cores)}
    }
    for ceiling in ceilings.values():  # wait until its processes are ready
        ceiling(KINDS[0], 0)
    rates = {f"{kind}, {form}": [] for kind in KINDS for form in ceilings}
    predicted, spent = [], []

    def measure_ceilings() -> None:
        for kind, form in itertools.product(KINDS, ceilings):
            rates[f"{kind}, {form}"].append(ceilings[form](kind, options.seconds))

    for turn in range(options.rounds):
        measure_ceilings()
        with start_cluster("local") as client:
            started = time.perf_counter()
            run = folder / f"run-{turn}"
            summary = classify(client, frames, sign, run, model_path, batch_size=options.batch_size)
            predicted.append(summary["predicted"])
            spent.append(time.perf_counter() - started)
            decoded = decode_alone(client, sign(paths[: 4 * GUIDE_IMAGES]), options.batch_size)
    measure_ceilings()
    with Client(dashboard_address="127.0.0.1:0") as client:
        client.run(_import_libraries)
        weights = folder / "weights.pt"
        torch.save(
            {k: v.contiguous() for k, v in model.load(model_path).net.state_dict().items()}, weights
        )
        guide = guides_pattern(client, sign(paths[:GUIDE_IMAGES]), options.arch, weights)
    connection.close()
    means = {row: round(sum(values) / len(values), 2) for row, values in rates.items()}
    project = sum(predicted) / sum(spent)
    return {
        "arch": options.arch, "image_size": options.image_size, "n_images": predicted[0], "cores": cores,
        "ceiling": max(means.values()), "ceiling_rows": means, "this_project": round(project, 2),
        "this_project_by_round": [round(n / s, 2) for n, s in zip(predicted, spent, strict=True)],
        "guides_pattern": round(guide, 2), "decode": round(decoded, 2),
        "ratio_to_ceiling": round(project / max(means.values()), 3), "ratio_to_guide": round(project / guide, 2),
    }  # fmt: skip


def main() -> None:
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
        f"this project is {result['ratio_to_ceiling']} of the ceiling, {result['ratio_to_guide']} times the guide's"
    )
    target = config.runs_folder() / "bench"
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "inference.json", result)


if __name__ == "__main__":
    main()
