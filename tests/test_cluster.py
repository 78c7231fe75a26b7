"""start_cluster and send_model on real schedulers and worker processes.

test_saturn.py has Saturn Cloud.
"""

import os
import select
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import dask
import pytest
import torch
from distributed import Client, LocalCluster
from scenery.certificates import Authority
from scenery.remote_cluster import RemoteCluster

from helpers import model as models
from helpers.cluster.elsewhere import version_skew
from helpers.cluster.loading import devices, loaded_models, send_model
from helpers.cluster.predictor import Predictor
from helpers.cluster.start import SLOTS, start_cluster
from helpers.cluster.task import Batch, classify_batch
from helpers.files import digest_of
from helpers.training.pretrained import build

# what may take minutes on a busy machine is to import torch in each process
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        card = models.ModelCard("resnet18", ["hat", "shoes"], 64, "drawn", "digest")
        paths.append(tmp_path_factory.mktemp("models") / "model.pt")
        models.save(models.Classifier(build("resnet18", 2), card), paths[-1])
    return paths


@pytest.fixture(scope="module")
def remote():
    """A scheduler with one worker, as an operator starts them: with Dask's own settings."""
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster:
        yield cluster


@pytest.fixture
def no_cluster_named(monkeypatch):
    for name in ("DASK_SCHEDULER_ADDRESS", "SATURN_BASE_URL", "SATURN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_importing_the_client_side_loads_no_torch():
    modules = "sys, helpers.cluster.start, helpers.cluster.loading"
    code = f"import {modules}; sys.exit('torch' in sys.modules or 'dask_saturn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_local_cluster_fills_the_cores_once_and_closes_with_its_client(
    no_cluster_named, checkpoints
):
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
        assert first == digest_of(checkpoints[0]) and set(loaded_models(client).values()) == {first}
        assert set(devices(client).values()) == {str(models.device_named())}
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


def test_a_gpu_that_pytorch_does_not_find_is_said(checkpoints, tmp_path, monkeypatch):
    """As where its driver is older than PyTorch's CUDA: the work costs a GPU, and has none."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = Predictor(checkpoints[0], "digest", 1).computes_on()
    on_cpu = models.device_named().type == "cpu"
    assert said == ("cpu, for PyTorch finds no CUDA on the GPU" if on_cpu else "cuda")


def test_a_damaged_model_is_refused(remote, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    with start_cluster(remote.scheduler_address) as client:
        with pytest.raises(ValueError, match="cannot be read"):
            send_model(client, tmp_path / "model.pt")
        client.unregister_worker_plugin("model")


@pytest.mark.slow
def test_a_restarted_local_worker_takes_the_model_that_was_sent_and_no_other(checkpoints, tmp_path):
    path = Path(shutil.copy(checkpoints[0], tmp_path / "model.pt"))
    with start_cluster("local", 1) as client:
        digest = send_model(client, path)
        client.restart(timeout=300)
        assert list(loaded_models(client).values()) == [digest]
        os.replace(shutil.copy(checkpoints[1], tmp_path / "new.pt"), path)
        client.restart(timeout=300)
        assert list(loaded_models(client).values()) == [""]
        named = "send_model before classify, and again if its file has changed"
        with pytest.raises(RuntimeError, match=named):
            client.submit(classify_batch, Batch([], [], digest)).result()
        path.unlink()
        client.restart(timeout=300)
        assert list(loaded_models(client).values()) == [""]


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ValueError, match=r"'dask'.*tcp://"):
        start_cluster("dask")


def test_a_silent_address_is_named(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    code = "from helpers.cluster.start import start_cluster; start_cluster('tcp://127.0.0.1:9')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in said


@pytest.mark.slow
def test_local_workers_do_not_inherit_secrets(no_cluster_named, monkeypatch):
    secrets = {
        "SNOWFLAKE_USER": "s3cret-1",
        "SNOWFLAKE_PRIVATE_KEY_FILE_PWD": "s3cret-2",
        "SATURN_TOKEN": "s3cret-3",
        "AZURE_STORAGE_KEY": "s3cret-5",
        "AZURE_STORAGE_CONNECTION_STRING": "s3cret-6",
    }
    kept = {"COMPUTE_THREADS", "PATH", "TUTORIAL_BACKEND"}
    monkeypatch.setenv("TUTORIAL_BACKEND", "local")
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with start_cluster("local", 1) as client:
        (before,) = client.run(lambda: dict(os.environ)).values()
        monkeypatch.setenv("MY_API_KEY", "s3cret-4")  # a worker that restarts is born later
        client.restart(timeout=300)
        (after,) = client.run(lambda: dict(os.environ)).values()
    assert kept <= before.keys() and kept <= after.keys()
    assert "s3cret" not in str(before) + str(after)
    assert all(os.environ[name] == value for name, value in secrets.items())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A scheduler and a worker that share nothing with this process."""
    cluster = RemoteCluster(tmp_path_factory.mktemp("elsewhere")).start(1)
    yield cluster
    cluster.close()


def test_a_cluster_object_is_taken_as_it_is(remote):
    """As those of Kubernetes, Coiled and SSH are.

    This one's scheduler is in this process, which keeps its modules.
    """
    package = sys.modules["helpers"]
    path = list(sys.path)
    with start_cluster(remote) as client:
        assert version_skew(client) == []
        files = client.run(lambda: __import__("helpers").__file__).values()
        assert all("helpers.zip" in file for file in files)
    assert sys.modules["helpers"] is package and sys.path == path
    assert remote.scheduler.status.name == "running"


def test_workers_get_what_they_need_and_no_programs(elsewhere):
    with start_cluster(elsewhere.address, wait_s=300) as client:
        assert all(client.run(lambda: find_spec("helpers.cluster.predictor") is not None).values())
        assert all(client.run(lambda: find_spec("helpers.commands") is None).values())


def test_other_versions_on_a_worker_are_named_before_it_gets_work(elsewhere, tmp_path):
    """A worker on which another torch is installed."""
    other_torch = tmp_path / "torch-1.0.0.dist-info"
    other_torch.mkdir()
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 1.0.0\n"
    (other_torch / "METADATA").write_text(metadata)
    path = elsewhere.environment["PYTHONPATH"]
    elsewhere.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), path])
    with Client(elsewhere.address) as client:
        client.wait_for_workers(1, timeout=300)
        before = list(client.nthreads())
    elsewhere.scale(2)
    elsewhere.environment["PYTHONPATH"] = path
    here = torch.__version__.split("+")[0]
    with pytest.raises(RuntimeError, match=rf"torch \({here} here, 1.0.0 on 1 of 3\)"):
        start_cluster(elsewhere.address, 2, wait_s=300)
    with Client(elsewhere.address) as client:
        (other,) = set(client.nthreads()) - set(before)
        assert "helpers" not in client.run(lambda: set(sys.modules))[other]
    elsewhere.scale(1)


def test_another_python_is_named(elsewhere, monkeypatch):
    another = SimpleNamespace(**vars(sys) | {"version_info": (3, 99, 1, "final", 0)})
    monkeypatch.setattr("distributed.versions.sys", another)
    named = r"python \(3\.99\.1 here, 3\.\d+\.\d+ on 2 of 2\).*requirements.txt"
    with pytest.raises(RuntimeError, match=named):
        start_cluster(elsewhere.address)


def test_a_scheduler_without_workers_is_named(elsewhere):
    named = f"of 9 workers came to the scheduler at {elsewhere.address} in 0.1 s"
    with pytest.raises(ConnectionError, match=named):
        start_cluster(elsewhere.address, 9, wait_s=0.1)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """A scheduler and a worker that speak TLS, and the authority that they trust."""
    folder = tmp_path_factory.mktemp("encrypted")
    authority = Authority(folder)
    certificate, key = map(str, authority.issue("cluster"))
    trust = ("--protocol", "tls", "--tls-ca-file", str(authority.path))
    cluster = RemoteCluster(folder, (*trust, "--tls-cert", certificate, "--tls-key", key)).start(1)
    yield cluster, authority
    cluster.close()


def configured(authority: Authority) -> dict:
    """What a client's configuration has for TLS."""
    certificate, key = authority.issue("client")
    files = {"ca-file": authority.path, "client.cert": certificate, "client.key": key}
    return {f"distributed.comm.tls.{name}": str(path) for name, path in files.items()}


def test_tls_is_used_where_it_is_configured(encrypted, monkeypatch):
    cluster, authority = encrypted
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
    assert cluster.address.startswith("tls://")
    with dask.config.set(configured(authority)), start_cluster("auto", wait_s=300) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_tls_without_certificates_or_with_foreign_ones_is_named(encrypted, tmp_path):
    cluster, _ = encrypted
    named = rf"at {cluster.address} \(TypeError.*distributed\.comm\.tls"
    with pytest.raises(ConnectionError, match=named):
        start_cluster(cluster.address)
    foreign = configured(Authority(tmp_path)) | {"distributed.comm.timeouts.connect": "2s"}
    with (
        dask.config.set(foreign),
        pytest.raises(ConnectionError, match=f"No Dask scheduler answers at {cluster.address}"),
    ):
        start_cluster(cluster.address)


USER = """
import os, sys, torch
from helpers.cluster.predictor import gpu_turn

os.umask(0o077)
os.seteuid(int(sys.argv[1]))
print("asks", flush=True)
with gpu_turn(torch.device("cuda", 0)):
    print("computes", flush=True)
    sys.stdin.readline()
"""


class User:
    """A process of a user of this machine, who takes a turn at the GPU until told to end."""

    def __init__(self, user_id: int, temporary: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(user_id)],
            env=os.environ | {"TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def says(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def is_silent_for(self, seconds: float) -> bool:
        stdout = self.process.stdout
        assert stdout
        ready, _, _ = select.select([stdout], [], [], seconds)
        return not ready

    def end(self) -> int:
        self.process.communicate("\n")
        return self.process.returncode


@pytest.fixture
def open_to_all():
    """A temporary folder as /tmp is."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_user_takes_turns_at_a_gpu_and_never_meets_the_lock_of_another(open_to_all):
    with User(1001, open_to_all) as first:
        assert first.says() == "asks" and first.says() == "computes"
        with User(1001, open_to_all) as second, User(1002, open_to_all) as other:
            assert second.says() == "asks" and second.is_silent_for(seconds=0.5)
            assert other.says() == "asks" and other.says() == "computes" and other.end() == 0
            assert first.end() == 0
            assert second.says() == "computes" and second.end() == 0
