"""Start a Dask cluster, here or on Saturn Cloud, and bring the model to its workers."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from distributed import Client, WorkerPlugin

from helpers import config

SLOTS = 2  # tasks at once on a local worker: one batch is downloaded while another is in the forward pass
WAIT_S = 1200  # for Saturn Cloud to start a worker


def start_cluster(kind: str = "auto", n_workers: int | None = None) -> Client:
    """A client whose closing also closes the cluster that was started for it.

    kind: "local" (this machine's cores), "saturn", the address of a scheduler, or "auto": DASK_SCHEDULER_ADDRESS,
    else Saturn Cloud where its variables are set, else local. n_workers: of a local or Saturn cluster.
    """
    if kind == "auto":
        on_saturn = os.environ.get("SATURN_BASE_URL") and os.environ.get("SATURN_TOKEN")
        kind = os.environ.get("DASK_SCHEDULER_ADDRESS") or ("saturn" if on_saturn else "local")
    if kind == "local":
        return _local(n_workers)
    if kind != "saturn" and "://" not in kind:
        raise ValueError(f'kind is {kind!r}. Use "auto", "local", "saturn" or an address such as tcp://host:8786.')
    client = _saturn(n_workers) if kind == "saturn" else _connected(kind)
    with tempfile.TemporaryDirectory() as folder:  # remote workers, late ones too, get this package
        client.upload_file(shutil.make_archive(f"{folder}/helpers", "zip", config.PROJECT_ROOT, "helpers"))
    return client


def _local(n_workers: int | None) -> Client:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_workers = n_workers or cores
    return Client(
        n_workers=n_workers,
        threads_per_worker=SLOTS,
        dashboard_address="127.0.0.1:0",
        env={"COMPUTE_THREADS": str(max(1, cores // n_workers))},
    )


def _connected(address: str) -> Client:
    try:
        return Client(address)
    except OSError as error:
        raise ConnectionError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}). Start it, or correct the address."
        ) from None


class SaturnClient(Client):
    """A client that closes its Saturn cluster with itself."""

    dashboard_link = property(lambda self: self.saturn.dashboard_link)

    def close(self, *args, **options) -> None:
        closing = self.status != "closed"
        super().close(*args, **options)
        if closing:
            self.saturn.close()


def _saturn(n_workers: int | None) -> Client:
    import dask_saturn  # here: it sets up logging when imported

    class SaturnSetup(dask_saturn.SaturnSetup, WorkerPlugin):
        """dask-saturn's own plugin, as a type that distributed takes since 2023.3."""

    cluster = dask_saturn.SaturnCluster(n_workers=n_workers)
    # by address: a client made from SaturnCluster itself cannot wait for workers
    client = SaturnClient(cluster.scheduler_address, security=cluster.security)
    client.saturn = cluster
    client.wait_for_workers(n_workers or 1, timeout=WAIT_S)
    client.register_plugin(SaturnSetup())
    return client


class ModelPlugin(WorkerPlugin):
    """Carries a checkpoint's bytes to each worker process, also to one that joins late or restarts."""

    name = "model"

    def __init__(self, path: Path | str):
        self.data = Path(path).read_bytes()
        self.digest = hashlib.sha256(self.data).hexdigest()

    async def setup(self, worker) -> None:
        from helpers.runtime import Predictor  # here: the client needs no torch

        if getattr(worker, "predictor", None) is None or worker.predictor.digest != self.digest:
            threads = int(os.environ.get("COMPUTE_THREADS") or worker.state.nthreads)
            worker.predictor = await asyncio.to_thread(Predictor, self.data, self.digest, threads)


def send_model(client: Client, path: Path | str) -> str:
    """Load a checkpoint on every present and future worker, once a process. Returns the file's SHA-256."""
    plugin = ModelPlugin(path)
    client.register_plugin(plugin)
    return plugin.digest


def loaded_models(client: Client) -> dict[str, str]:
    """SHA-256 of the checkpoint that each worker has loaded, "" for none, by the worker's address."""
    return client.run(lambda dask_worker: getattr(getattr(dask_worker, "predictor", None), "digest", ""))
