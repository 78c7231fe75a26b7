"""start_cluster("saturn") against Saturn Cloud's interface.

A real scheduler and real workers are behind it.
"""

import json
import shutil
import sys

import pytest
import torch
from scenery.certificates import Authority
from scenery.drawing import draw_folder
from scenery.fake_saturn import FakeSaturn
from scenery.remote_cluster import RemoteCluster

import standin
from helpers import config, model, runs
from helpers.cluster.start import WithoutSecrets, start_cluster
from helpers.commands.tutorial import run_notebook
from helpers.training.pretrained import build

TOKEN = "saturn-token-of-the-test"
# what may take minutes on a busy machine is to import torch in each process
pytestmark = pytest.mark.timeout(900)
CLOSE = "POST /api/dask_clusters/c1/close"
STOP = "POST /api/dask_clusters/c1/stop"


@pytest.fixture(scope="module")
def saturn(tmp_path_factory):
    saturn = FakeSaturn(RemoteCluster(tmp_path_factory.mktemp("saturn")), TOKEN)
    yield saturn
    saturn.close()


@pytest.fixture(autouse=True)
def _on_saturn(saturn, monkeypatch):
    """The environment that Saturn Cloud gives to a resource."""
    monkeypatch.setenv("SATURN_BASE_URL", saturn.url)
    monkeypatch.setenv("SATURN_TOKEN", TOKEN)
    monkeypatch.setenv("SATURN_IS_INTERNAL", "true")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    saturn.pending = 0
    saturn.error = ""
    saturn.machines = 4
    saturn.refused.clear()
    saturn.closing = {CLOSE}
    saturn.calls.clear()


def refusal(**options) -> str:
    with pytest.raises(ConnectionError) as caught:
        start_cluster("saturn", **options)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_wrong_token_is_named_and_not_shown(saturn, monkeypatch):
    monkeypatch.setenv("SATURN_TOKEN", "not-the-token")
    message = refusal()
    for named in (saturn.url, "the token is not valid", "Check SATURN_BASE_URL", "SATURN_TOKEN"):
        assert named in message
    assert "not-the-token" not in message


@pytest.mark.parametrize("name", ["SATURN_BASE_URL", "SATURN_TOKEN"])
def test_a_missing_variable_is_named(monkeypatch, name):
    monkeypatch.delenv(name)
    assert f"Missing required environment variable {name}" in refusal()


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setenv("SATURN_BASE_URL", "http://127.0.0.1:9/")
    assert "http://127.0.0.1:9/ gives no cluster" in refusal()


def test_a_page_in_place_of_an_answer(saturn, monkeypatch):
    monkeypatch.setattr(saturn, "answer", lambda call, body: (502, b"<html>Bad gateway</html>"))
    assert f"Saturn Cloud at {saturn.url} gives no cluster" in refusal()


def test_an_error_of_the_resource_is_passed_on(saturn):
    saturn.error = "No Dask cluster is attached to this resource."
    assert "No Dask cluster is attached to this resource." in refusal()


def test_a_cluster_that_stays_pending_is_given_up(saturn):
    saturn.pending = 1000
    message = refusal(wait_s=1)
    for named in ("gives no cluster", "after 1 s", "page of your resource"):
        assert named in message
    assert saturn.calls.count("POST /api/dask_clusters") == 2 and CLOSE not in saturn.calls


def test_workers_that_never_come_are_counted_and_the_cluster_is_stopped(saturn):
    saturn.machines = 0
    message = refusal(n_workers=2, wait_s=1)
    assert f"0 of 2 workers came to the scheduler at {saturn.cluster.address} in 1 s" in message
    assert saturn.calls.count(CLOSE) == 1


def where_is_helpers(client) -> list[str]:
    """The file of the package on the scheduler and on each worker."""

    def file() -> str:
        import helpers

        return helpers.__file__

    return [client.run_on_scheduler(file), *client.run(file).values()]


@pytest.mark.slow
def test_the_life_of_a_cluster(saturn, tmp_path, monkeypatch):
    """Connect, scale, come back, close, start anew.

    Workers get this package from nobody but the client.
    """
    with start_cluster("saturn", 1, wait_s=300) as client:
        assert client.run(lambda: sys.flags.no_site) == dict.fromkeys(client.nthreads(), 1)
        assert client.dashboard_link == saturn.cluster.dashboard
        # a late worker cannot read it before it has the package
        client.register_plugin(WithoutSecrets())
        client.saturn.scale(2)
        client.wait_for_workers(2, timeout=300)
        files = where_is_helpers(client)
        assert len(files) == 3, files
        assert all(file.startswith(str(saturn.cluster.folder)) for file in files), files
        assert all("helpers.zip" in file for file in files), files

        # a kernel that restarts, with other code
        monkeypatch.setattr(config, "PROJECT_ROOT", tmp_path)
        shutil.copytree(config.__file__.removesuffix("config.py"), tmp_path / "helpers")
        (tmp_path / "helpers" / "__init__.py").write_text("CHANGED = True")

        def is_changed() -> bool:
            import helpers

            return hasattr(helpers, "CHANGED")

        again = start_cluster("auto")
        assert len(again.nthreads()) == 2 and CLOSE not in saturn.calls
        assert set(again.run(is_changed).values()) == {True}
        assert again.run_on_scheduler(is_changed)
        assert "CHANGED" not in vars(sys.modules["helpers"])
        again.close()
    assert saturn.calls.count(CLOSE) == 2 and saturn.cluster.scheduler is None

    saturn.pending = 1
    with start_cluster("saturn", 1, wait_s=300) as client:
        assert len(client.nthreads()) == 1


def test_a_cluster_is_stopped_by_todays_api(saturn):
    """It has no close, and says stop."""
    saturn.closing = {STOP}
    with start_cluster("saturn", wait_s=300):
        pass
    assert saturn.calls[-2:] == [CLOSE, STOP] and saturn.cluster.scheduler is None


def test_a_cluster_that_cannot_be_stopped_is_named(saturn):
    client = start_cluster("saturn", wait_s=300)
    saturn.refused |= {CLOSE, STOP}
    named = f"did not stop the cluster, which costs.*{CLOSE} failed"
    with pytest.raises(ConnectionError, match=named):
        client.close()
    assert client.status == "closed"


@pytest.mark.slow
def test_from_outside_of_saturn_cloud_over_tls(tmp_path, monkeypatch):
    """With a certificate that Saturn Cloud signs for this client."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("cluster")
    options = (
        "--protocol=tls",
        f"--tls-ca-file={authority.path}",
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
    )
    outside = FakeSaturn(RemoteCluster(tmp_path, options), TOKEN, authority)
    try:
        monkeypatch.setenv("SATURN_BASE_URL", outside.url)
        monkeypatch.setenv("SATURN_IS_INTERNAL", "false")
        with start_cluster("saturn", wait_s=300) as client:
            assert client.scheduler.address.startswith("tls://")
            assert client.submit(sum, [1, 2]).result() == 3
        assert "POST /api/dask_clusters/c1/csr" in outside.calls
    finally:
        outside.close()


@pytest.mark.slow
def test_notebook_03_runs_through_it(saturn, tmp_path, monkeypatch):
    """From its first cell to its last, on workers that have neither this folder nor the model's."""
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(tmp_path / ".sandbox"))
    for split, n in (("train", 4), ("test", 5)):
        draw_folder(tmp_path / "garments" / split, n=n)
    (tmp_path / "garments" / "test" / "hat" / "broken.jpg").write_text("no image")
    try:
        images = {"backend": "local", "images": str(tmp_path / "garments")}
        run_notebook("01_set_up_snowflake", tmp_path / "notebooks", images)
        run = runs.open_run("latest", "local", "CLOTHING")
        card = model.ModelCard("resnet18", run.classes, 32, run.data_set, run.data_digest)
        torch.manual_seed(0)
        net = build("resnet18", len(run.classes))
        model.save(model.Classifier(net, card), tmp_path / "model.pt")
        chosen = {
            "backend": "local",
            "model_path": str(tmp_path / "model.pt"),
            "cluster": "saturn",
            "n_workers": 2,
        }
        run_notebook("03_run_inference", tmp_path / "notebooks", chosen)
    finally:
        standin.stop(tmp_path / ".sandbox")
    run = runs.open_run("latest", "local", "CLOTHING")
    counts = json.loads((run.folder / "inference.json").read_text())
    assert (counts["listed"], counts["predicted"], counts["failed"]) == (16, 15, 1)
    assert saturn.cluster.log().count("Starting Worker plugin model") == 2
    assert saturn.calls.count(CLOSE) == 1 and saturn.cluster.scheduler is None
