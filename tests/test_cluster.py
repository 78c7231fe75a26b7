"""start_cluster and send_model on real schedulers and worker processes, Saturn's interface included."""

import gc
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster

from helpers import model as models
from helpers.cluster import SLOTS, loaded_models, send_model, start_cluster

TOKEN = "saturn-token-of-the-test"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        card = models.ModelCard("resnet18", ["hat", "shoes"], 64, "drawn", "digest")
        paths.append(tmp_path_factory.mktemp("models") / "model.pt")
        models.save(models.Classifier(models.build("resnet18", 2), card), paths[-1])
    return paths


@pytest.fixture(scope="module")
def remote():
    """A scheduler with one worker, as an operator starts them: given by address, with Dask's own settings."""
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture
def no_cluster_named(monkeypatch):
    for name in ("DASK_SCHEDULER_ADDRESS", "SATURN_BASE_URL", "SATURN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_importing_the_client_side_loads_no_torch():
    code = "import sys, helpers.cluster; sys.exit('torch' in sys.modules or 'dask_saturn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_local_cluster_fills_the_cores_once_and_closes_with_its_client(no_cluster_named, checkpoints):
    with start_cluster() as client:
        cores = len(os.sched_getaffinity(0))
        assert list(client.nthreads().values()) == [SLOTS] * cores
        send_model(client, checkpoints[0])
        threads = client.run(lambda dask_worker: dask_worker.predictor.compute_threads)
        assert sum(threads.values()) == cores
        address = client.scheduler.address
    with pytest.raises(OSError, match="Timed out"):
        Client(address, timeout="0.5s")


def test_auto_takes_the_address_in_the_environment(no_cluster_named, monkeypatch, remote):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", remote.scheduler_address)
    with start_cluster("auto") as client:
        assert client.scheduler.address == remote.scheduler_address
    with Client(remote) as client:  # it was not ours to close
        assert client.submit(int, 3).result() == 3


def test_a_model_is_loaded_once_and_replaced_by_another(remote, checkpoints):
    with start_cluster(remote.scheduler_address) as client:
        first = send_model(client, checkpoints[0])
        assert first == models.digest(checkpoints[0]) and set(loaded_models(client).values()) == {first}
        loaded = client.run(lambda dask_worker: id(dask_worker.predictor))
        send_model(client, checkpoints[0])
        assert client.run(lambda dask_worker: id(dask_worker.predictor)) == loaded
        second = send_model(client, checkpoints[1])
        assert second != first and set(loaded_models(client).values()) == {second}


def test_a_late_worker_has_the_model(remote, checkpoints):
    with start_cluster(remote.scheduler_address) as client:
        digest = send_model(client, checkpoints[0])
        remote.scale(2)
        client.wait_for_workers(2, timeout=120)
        assert list(loaded_models(client).values()) == [digest] * 2


def test_a_damaged_model_is_refused(remote, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    with start_cluster(remote.scheduler_address) as client:
        with pytest.raises(ValueError, match="cannot be read"):
            send_model(client, tmp_path / "model.pt")
        client.unregister_worker_plugin("model")


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ValueError, match=r"'dask'.*tcp://"):
        start_cluster("dask")


def test_a_silent_address_is_named(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    code = "from helpers.cluster import start_cluster; start_cluster('tcp://127.0.0.1:9')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in said


@pytest.fixture
def saturn(remote, monkeypatch):
    """Saturn Cloud's interface, as far as dask-saturn asks it, in front of a real scheduler."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            path = self.path.partition("?")[0].rstrip("/")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            calls.append((self.command, path, self.headers["Authorization"]))
            info = {"dashboard_link": "https://dashboard.example", "scheduler_address": remote.scheduler_address}
            sizes = {"server_options": {"size": []}}
            answers = {
                "/api/dask_clusters": {"status": "ready", "id": "one"},
                "/api/dask_clusters/info": sizes,
                "/api/dask_clusters/one/info": info,
                "/api/dask_clusters/one/status": {"status": "closed"},
            }
            body = json.dumps(answers.get(path, {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("SATURN_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setenv("SATURN_TOKEN", TOKEN)
    monkeypatch.setenv("SATURN_IS_INTERNAL", "true")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    yield calls
    server.shutdown()
    server.server_close()


def test_saturn_cluster_is_used_and_closed_with_its_client(saturn, checkpoints, remote):
    with start_cluster("auto") as client:
        assert client.dashboard_link == "https://dashboard.example"
        digest = send_model(client, checkpoints[0])
        assert set(loaded_models(client).values()) == {digest}
        assert ("POST", "/api/dask_clusters/one/close", f"token {TOKEN}") not in saturn
    client.saturn = None  # while its interface still answers: it asks for its status when collected
    gc.collect()
    assert [call[1] for call in saturn].count("/api/dask_clusters/one/close") == 1
