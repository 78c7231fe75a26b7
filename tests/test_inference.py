"""classify on a real cluster of processes, against an image server with faults."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scenery.faulty_server import FaultyServer

from helpers import model as models
from helpers.cluster.loading import ModelPlugin, loaded_models, send_model
from helpers.cluster.predictor import Predictor, onnx_session
from helpers.cluster.start import start_cluster
from helpers.files import digest_of, owned
from helpers.images import decode
from helpers.inference.classify import classify, plan
from helpers.inference.schedule import SIGNED_AT_MOST
from helpers.inference.schedule import batches as batches_of
from helpers.inference.worklist import Worklist
from helpers.training.pretrained import build

CLASSES = ["dress", "hat", "pants"]
N_EACH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(N_EACH):
            pixels = noise.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    card = models.ModelCard("resnet18", CLASSES, 64, "drawn", "digest", temperature=1.5)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    models.save(models.Classifier(build("resnet18", 3), card), path)
    return path


@pytest.fixture(scope="module")
def client():
    with start_cluster("local", 2) as started:
        yield started


def table(folder: Path, etag: str = "e1") -> pd.DataFrame:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    urls = [f"https://account/{path}" for path in paths]
    return pd.DataFrame({"FILE_URL": urls, "RELATIVE_PATH": paths, "SIZE": 1000, "ETAG": etag})


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions").sort_values("relative_path", ignore_index=True)


def run_calmly(client, folder, model_path, run, frame=None, **options) -> dict:
    with FaultyServer(folder) as server:
        frames = [table(folder) if frame is None else frame]
        return classify(client, frames, server.sign, run, model_path, progress=False, **options)


@pytest.fixture(scope="module")
def calm(client, folder, model_path, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("calm")
    run_calmly(client, folder, model_path, run, batch_size=5)
    return run


def assert_same_predictions(run: Path, calm: Path) -> None:
    ours = predictions(run)
    theirs = predictions(calm)
    for column in ("relative_path", "type", "phash"):
        assert ours[column].tolist() == theirs[column].tolist()
    np.testing.assert_allclose(np.stack(ours["logits"]), np.stack(theirs["logits"]), atol=1e-4)


def assert_secret_nowhere(run: Path) -> None:
    for path in run.rglob("*.*"):
        assert FaultyServer.SECRET.encode() not in path.read_bytes(), path


def test_predictions_are_the_models_own(calm, folder, model_path):
    rows = predictions(calm)
    model = models.load(model_path)
    assert rows["label"].tolist() == [Path(path).parent.name for path in rows["relative_path"]]
    files = [folder / path for path in rows["relative_path"]]
    images = torch.stack([model.prepare(decode(file.read_bytes())) for file in files])
    with torch.inference_mode():
        logits = model(images)
    confidence, index = model.probabilities(logits).max(1)
    np.testing.assert_allclose(np.stack(rows["logits"]), logits, atol=1e-4)
    np.testing.assert_allclose(rows["confidence"], confidence, atol=1e-5)
    assert rows["type"].tolist() == [CLASSES[i] for i in index]
    assert rows["phash"].str.fullmatch("[0-9a-f]{16}").all()
    assert set(rows["model_digest"]) == {digest_of(model_path)}
    assert str(rows["predicted_at"].dtype) == "datetime64[us, UTC]"


def test_summary_and_report(calm):
    summary = json.loads((calm / "inference.json").read_text())
    assert (summary["listed"], summary["predicted"], summary["failed"]) == (24, 24, 0)
    assert summary["classes"] == CLASSES and summary["temperature"] == 1.5
    assert summary["images_per_s"] > 0
    assert "<html" in (calm / "dask-report.html").read_text()
    assert_secret_nowhere(calm)


def test_faulty_server_loses_nothing(client, folder, model_path, calm, tmp_path, capfd):
    bad = tmp_path / "images"
    bad.mkdir()
    for name in CLASSES:
        (bad / name).symlink_to(folder / name)
    (bad / "bad").mkdir()
    whole = (folder / "hat/0.jpg").read_bytes()
    (bad / "bad/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (bad / "bad/text.jpg").write_text("not an image")
    Image.new("RGB", (1, 1)).save(bad / "bad/pixel.jpg")
    Image.new("1", (30_000, 30_000)).save(bad / "bad/bomb.jpg", "PNG")
    Image.new("L", (10_000, 6_000)).save(bad / "bad/large.jpg")
    names = ("bomb", "large", "missing", "pixel", "text", "truncated")
    broken = [f"bad/{name}.jpg" for name in names]
    frame = pd.concat([table(folder), table(folder).head(6).assign(RELATIVE_PATH=broken)])
    run = tmp_path / "run"
    with FaultyServer(bad, busy=0.2, cut=0.2) as server:
        summary = classify(
            client, [frame], server.sign, run, model_path, batch_size=4, progress=False
        )
        assert server.statuses[503] and server.statuses["cut"]
    assert (summary["listed"], summary["predicted"], summary["failed"]) == (30, 24, 6)
    assert_same_predictions(run, calm)
    failures = pd.read_parquet(run / "failures").sort_values("relative_path")
    assert failures["relative_path"].tolist() == broken
    assert "50000000" in failures["reason"].iloc[1] and "404" in failures["reason"].iloc[2]
    assert_secret_nowhere(run)
    assert FaultyServer.SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("n", [0, 1, 40, 160, 161, 200])
def test_batches_shrink_at_the_end_and_are_signed_late(n):
    paths = [f"hat/{i}.jpg" for i in range(n)]
    rows = pd.DataFrame({"FILE_URL": paths, "RELATIVE_PATH": paths, "SIZE": 1000, "ETAG": "e"})
    work = Worklist([rows], predicted=np.zeros(0, np.uint64))
    signed = []

    def sign(paths):
        signed.append(paths)
        return [f"signed/{path}" for path in paths]

    batches = []
    for batch in batches_of(work, sign, "digest", 16, chunk=80, slots=2):
        batches.append(batch)
        chunks_begun = math.ceil(sum(len(b.rows) for b in batches) / 80)
        assert sum(map(len, signed)) <= chunks_begun * 80
    assert [row[1] for batch in batches for row in batch.rows] == paths
    assert [url for batch in batches for url in batch.urls] == [f"signed/{path}" for path in paths]
    sizes = [len(batch.rows) for batch in batches]
    assert set(sizes[: max(0, n // 80 * 5 - 5)]) <= {16}  # all but the last chunk's
    if n % 80 >= 40 or n == 160:
        assert sizes[-5:] == sorted(sizes[-5:], reverse=True) and sizes[-1] <= 2


def test_expired_urls_are_signed_anew(client, folder, model_path, calm, tmp_path):
    with FaultyServer(folder) as server:

        def sign(paths):
            server.url_seconds = -1 if server.signed < 24 else 60
            return server.sign(paths)

        summary = classify(
            client, [table(folder)], sign, tmp_path, model_path, batch_size=4, progress=False
        )
        assert server.signed > 24 and server.statuses[403] == 24
    assert summary["predicted"] == 24
    assert_same_predictions(tmp_path, calm)


def test_urls_that_never_work_end_as_failures(client, folder, model_path, tmp_path):
    with FaultyServer(folder, url_seconds=-1) as server:
        frames = [table(folder).head(3)]
        summary = classify(client, frames, server.sign, tmp_path, model_path, progress=False)
        assert server.signed == 3 * SIGNED_AT_MOST
    assert (summary["predicted"], summary["failed"]) == (0, 3)
    assert set(pd.read_parquet(tmp_path / "failures")["attempts"]) == {SIGNED_AT_MOST}


def test_duplicates_count_once_within_and_across_frames(client, folder, model_path, tmp_path):
    frame = table(folder).head(6)
    with FaultyServer(folder) as server:
        frames = [pd.concat([frame, frame.head(2)]), frame.tail(3)]
        summary = classify(
            client, frames, server.sign, tmp_path, model_path, chunk=4, progress=False
        )
    assert (summary["listed"], summary["predicted"], summary["duplicates"]) == (6, 6, 5)


def test_empty_table(client, folder, model_path, tmp_path):
    assert run_calmly(client, folder, model_path, tmp_path, table(folder).head(0))["listed"] == 0
    assert json.loads((tmp_path / "inference.json").read_text())["predicted"] == 0


def test_a_rerun_does_only_what_is_missing(client, folder, model_path, calm, tmp_path):
    run_calmly(client, folder, model_path, tmp_path, table(folder).head(10))
    with FaultyServer(folder) as server:
        summary = classify(
            client, [table(folder)], server.sign, tmp_path, model_path, progress=False
        )
        assert sum(server.requests.values()) == 14
    assert (summary["listed"], summary["predicted"], summary["predicted_before"]) == (24, 24, 10)
    assert_same_predictions(tmp_path, calm)


def test_failures_are_tried_again(client, folder, model_path, calm, tmp_path):
    with FaultyServer(folder, url_seconds=-1) as server:
        classify(client, [table(folder)], server.sign, tmp_path, model_path, progress=False)
    summary = run_calmly(client, folder, model_path, tmp_path)
    assert (summary["predicted"], summary["failed"]) == (24, 0)
    assert_same_predictions(tmp_path, calm)


def test_changed_and_vanished_images_leave_no_stale_row(client, folder, model_path, tmp_path):
    run_calmly(client, folder, model_path, tmp_path)
    frame = table(folder).head(20)
    frame.loc[3, "ETAG"] = "e2"
    summary = run_calmly(client, folder, model_path, tmp_path, frame, complete=True)
    assert (summary["listed"], summary["predicted"], summary["predicted_before"]) == (20, 20, 19)
    assert predictions(tmp_path)["relative_path"].is_unique
    assert predictions(tmp_path)["etag"].tolist().count("e2") == 1


def test_a_listing_of_some_images_leaves_the_predictions_of_the_others(
    client, folder, model_path, calm, tmp_path
):
    run_calmly(client, folder, model_path, tmp_path)
    changed = table(folder).head(2)
    changed.loc[1, "ETAG"] = "e2"
    for frame in (table(folder).head(0), changed, changed.tail(1)):
        summary = run_calmly(client, folder, model_path, tmp_path, frame)
        assert summary["listed"] == summary["predicted"] == 24
        assert predictions(tmp_path)["relative_path"].is_unique
    assert predictions(tmp_path)["etag"].tolist().count("e2") == 1
    assert_same_predictions(tmp_path, calm)


def test_a_second_process_in_one_run_is_told_at_once(client, folder, model_path, tmp_path):
    with owned(tmp_path / "run", ""), pytest.raises(BlockingIOError, match="start another run"):
        run_calmly(client, folder, model_path, tmp_path / "run")
    assert run_calmly(client, folder, model_path, tmp_path / "run")["predicted"] == 24


def test_predictions_of_another_model_are_refused(client, folder, model_path, calm, tmp_path):
    other = tmp_path / "other.pt"
    models.save(models.load(model_path), other, half=True)
    with pytest.raises(ValueError, match="Start another run"):
        classify(client, [table(folder)], lambda paths: paths, calm, other, progress=False)
    assert len(predictions(calm)) == 24


def test_killed_and_late_workers(client, folder, model_path, calm, tmp_path):
    def sign(paths):
        if server.signed == 8:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            client.cluster.scale(3)
        return server.sign(paths)

    try:
        with FaultyServer(folder) as server:
            frames = [table(folder)]
            summary = classify(
                client,
                frames,
                sign,
                tmp_path,
                model_path,
                chunk=4,
                batch_size=2,
                progress=False,
                report=False,
            )
        client.wait_for_workers(3, timeout=200)
        assert set(loaded_models(client).values()) == {digest_of(model_path)}
    finally:
        client.cluster.scale(2)
    assert summary["predicted"] == 24
    assert_same_predictions(tmp_path, calm)


class DeadlyModel(ModelPlugin):
    """A model whose worker dies when it is given one path, as by a fault in a decoder."""

    def __init__(self, model_path: Path, deadly: str):
        super().__init__(model_path)
        self.deadly = deadly

    async def setup(self, worker) -> None:
        await super().setup(worker)
        read = worker.predictor.read

        def read_or_die(url: str):
            if self.deadly in url:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(url)

        worker.predictor.read = read_or_die


@pytest.mark.slow
@pytest.mark.timeout(600)  # four deaths, each followed by a worker's start
def test_an_image_that_kills_workers_is_one_failure(folder, model_path, calm, tmp_path):
    deadly = table(folder)["RELATIVE_PATH"][3]
    # each death takes a worker's start
    one_retry = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with one_retry, FaultyServer(folder) as server, start_cluster("local", 2) as client:
        client.register_plugin(DeadlyModel(model_path, deadly))
        frames = [table(folder)]
        summary = classify(
            client, frames, server.sign, tmp_path, model_path, batch_size=4, progress=False
        )
    assert (summary["listed"], summary["predicted"], summary["failed"]) == (24, 23, 1)
    failures = pd.read_parquet(tmp_path / "failures")
    assert failures["relative_path"].tolist() == [deadly] and "died" in failures["reason"][0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_faults_at_once(client, model_path, tmp_path):
    """600 images, 2 % of them broken; URLs that live 1 s; a worker is killed.

    Of the requests 20 % get a 503, and 5 % are cut off.
    """
    images = tmp_path / "images"
    noise = np.random.default_rng(1)
    for i in range(600):
        path = images / CLASSES[i % 3] / f"{i:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
        if i % 50 == 7:
            path.write_bytes(path.read_bytes()[: 100 if i % 100 == 7 else 2000])
    frame = table(images)
    run_calmly(client, images, model_path, tmp_path / "calm", frame)
    killed = []

    def sign(paths):
        if server.signed > 200 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)
        return server.sign(paths)

    with FaultyServer(images, busy=0.2, cut=0.05, url_seconds=1) as server:
        run = tmp_path / "run"
        summary = classify(
            client, [frame], sign, run, model_path, chunk=100, batch_size=8, progress=False
        )
        assert killed and server.statuses[403]
        assert server.statuses[503] > 50 and server.statuses["cut"] > 10
    assert (summary["listed"], summary["predicted"], summary["failed"]) == (600, 588, 12)
    assert_same_predictions(run, tmp_path / "calm")
    reasons = pd.read_parquet(run / "failures").set_index("relative_path")["reason"]
    assert sorted(int(Path(path).stem) for path in reasons.index) == list(range(7, 600, 50))
    assert reasons.str.contains("decoded|not a readable").all()


PROGRAM = """
    import sys
    sys.path[:0] = {path!r}
    import pandas as pd
    from pathlib import Path
    from scenery.faulty_server import FaultyServer
    from helpers.cluster.start import start_cluster
    from helpers.inference.classify import classify
    if __name__ == "__main__":
        server = FaultyServer(Path({folder!r}), delay_s=0.2)
        with server, start_cluster("local", 1) as client:
            print(client.scheduler.address, flush=True)
            sys.stdin.readline()
            classify(client, [pd.read_parquet({frame!r})], server.sign, {run!r}, {model!r},
                     batch_size=2, part_seconds=0, progress=False)
"""


@pytest.fixture
def other_process(folder, model_path, tmp_path):
    """A process with a cluster, which classifies slowly once it is sent a line; its address."""
    table(folder).to_parquet(tmp_path / "table.parquet")
    values = {
        "path": sys.path,
        "folder": str(folder),
        "frame": str(tmp_path / "table.parquet"),
        "run": str(tmp_path / "run"),
        "model": str(model_path),
    }
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM.format(**values)))
    process = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_killed_client_can_resume(client, folder, model_path, calm, other_process, tmp_path):
    process, _ = other_process
    process.stdin.write("\n")
    process.stdin.flush()
    run = tmp_path / "run"
    deadline = time.monotonic() + 60
    while not list(run.glob("predictions/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(predictions(run))
    assert 0 < before < 24 and not (run / "inference.json").exists()
    summary = run_calmly(client, folder, model_path, run)
    assert (summary["predicted"], summary["predicted_before"]) == (24, before)
    assert_same_predictions(run, calm)


def test_a_client_that_is_closed_is_told_from_work_to_do(model_path, tmp_path):
    client = start_cluster("local", n_workers=1)
    client.close()
    with pytest.raises(ConnectionError, match="start a cluster and call again"):
        classify(client, [], list, tmp_path / "run", model_path)


@pytest.mark.slow
def test_lost_scheduler_is_named_and_parts_are_kept(folder, model_path, other_process, tmp_path):
    process, address = other_process
    run = tmp_path / "run"
    with FaultyServer(folder) as server, start_cluster(address) as client:

        def sign(paths):
            if len(list(run.glob("predictions/part-*"))) >= 2:
                process.kill()
            return server.sign(paths)

        with pytest.raises(ConnectionError, match=address):
            classify(
                client,
                [table(folder)],
                sign,
                run,
                model_path,
                chunk=2,
                batch_size=2,
                part_seconds=0,
                progress=False,
            )
    assert 0 < len(predictions(run)) < 24
    assert predictions(run)["relative_path"].is_unique


def test_onnx_runtime_agrees_with_pytorch(model_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    assert_runtimes_agree(model_path.read_bytes(), images)


def test_onnx_runtime_agrees_on_photographs(model_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    photographs = sorted(
        Path(__file__).parents[2].glob("shared/clothing-dataset-small/validation/*/*.jpg")
    )[::17]
    if not photographs:
        pytest.skip("../shared/clothing-dataset-small is not there")
    model = models.load(model_path)
    images = torch.stack([model.prepare(decode(path.read_bytes())) for path in photographs])
    assert_runtimes_agree(model_path.read_bytes(), images)


def assert_runtimes_agree(checkpoint: bytes, images: torch.Tensor) -> None:
    _, expected = Predictor(checkpoint, "", 1, export_at=10**9).predict(images)
    exported = Predictor(checkpoint, "", 1, export_at=0)
    _, probabilities = exported.predict(images)
    assert exported.session is not None
    torch.testing.assert_close(probabilities, expected, atol=1e-3, rtol=0)


def test_the_exporter_is_there_and_warns_of_nothing_new(model_path):
    """It will be dropped: on that day this fails, where a predictor would only become slower."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnx_session(models.load(model_path), threads=1)


def test_a_model_that_cannot_be_exported_is_computed_in_pytorch(model_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    checkpoint = model_path.read_bytes()
    _, expected = Predictor(checkpoint, "", 1, export_at=10**9).predict(images)
    attempts = []

    def export(*args, **options):
        attempts.append(args)
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr("torch.onnx.export", export)
    predictor = Predictor(checkpoint, "", 1, export_at=0)
    with pytest.warns(UserWarning, match=r"resnet18 is computed in PyTorch.*'dynamo'"):
        _, probabilities = predictor.predict(images)
    assert torch.equal(probabilities, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, probabilities = predictor.predict(images)
    assert torch.equal(probabilities, expected) and len(attempts) == 1


def test_send_model_names_a_missing_file(client, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        send_model(client, tmp_path / "none.pt")


def test_plan_is_computed_from_the_run():
    summary = {"predicted": 10, "images_per_s": 20.0}
    predictions = pd.DataFrame({"size": [40_000, 60_000]})
    assert plan(summary, predictions, 2, 5_000.0, n=7200, hours=1) == [
        "10.0 images/s a worker: 7,200 images are 0 worker-hours, 0 such workers for 1 hours.",
        "Together they read 0 MB/s from the stage.",
        "The client signed 5,000 URLs/s and 2 are needed: the workers stay the bottleneck.",
    ]
    workers, _, signing = plan(summary, predictions, 2, 100.0)
    assert workers.endswith("2,778 worker-hours, 347 such workers for 8 hours.")
    assert "3,472 are needed: signing is the next bottleneck" in signing
    nothing = {"predicted": 0, "images_per_s": 0.0}
    assert "nothing to work out" in plan(nothing, predictions, 2, 0.0)[0]


def test_scheduler_needs_no_torch():
    """Dask's scheduler imports the module of the task and of what is sent to it."""
    modules = "sys, helpers.cluster.task, helpers.cluster.start"
    code = f"import {modules}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
