"""Start a Dask cluster, here or on Saturn Cloud, and bring the model to its workers."""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from helpers.shipping import send_package, version_skew

SLOTS = 2  # tasks at once on a local worker: one batch is downloaded while another is in the forward pass
# how often Dask looks at what its processes do; with its defaults a cluster at rest took 5 % of two cores, now 1 %
SELDOM = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.tick.interval": "1s",
}
KEPT = 2**28  # bytes of freed memory that a local worker keeps for its next batch
WAIT_S = 1200  # for Saturn Cloud to start a worker
SECRET = re.compile(
    "SNOWFLAKE_|TOKEN|PASSWORD|PASSPHRASE|SECRET|CREDENTIAL|CONNECTION_STRING|(API|ACCESS|STORAGE|PRIVATE)_KEY"
)


def start_cluster(kind="auto", n_workers: int | None = None, wait_s: float = WAIT_S) -> Client:
    """A client whose closing also closes the cluster that was started for it.

    kind: "local" (this machine's cores), "saturn", a scheduler's address, any other Dask cluster object, or "auto":
    DASK_SCHEDULER_ADDRESS, else Saturn Cloud where its variables are set, else local. n_workers: to start, or to wait
    for where somebody else starts them. wait_s: for them, where they are not local.
    Raises ConnectionError for a cluster that does not come, RuntimeError for one with other versions of packages.
    """
    if kind == "auto":
        on_saturn = os.environ.get("SATURN_BASE_URL") and os.environ.get("SATURN_TOKEN")
        kind = os.environ.get("DASK_SCHEDULER_ADDRESS") or ("saturn" if on_saturn else "local")
    if kind == "local":
        return _local(n_workers)
    if kind == "saturn":
        return _saturn(n_workers, wait_s)
    if isinstance(kind, str) and "://" not in kind:
        raise ValueError(f'kind is {kind!r}. Use "auto", "local", "saturn" or an address such as tcp://host:8786.')
    return _prepared(_connected(kind), n_workers, wait_s)


def _local(n_workers: int | None) -> Client:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_workers = n_workers or cores
    # Dask's default gives every freed block back to the system: PyTorch took 1.2 to 1.5 times as long for a batch.
    # Other arenas than the first, which threads have, cannot keep blocks of this size.
    kept = {"TRIM_THRESHOLD_": KEPT, "MMAP_THRESHOLD_": KEPT, "ARENA_MAX": 1}
    settings = {f"distributed.nanny.pre-spawn-environ.MALLOC_{name}": value for name, value in kept.items()}
    with dask.config.set(SELDOM | settings):
        client = Client(
            n_workers=n_workers,
            threads_per_worker=SLOTS,
            dashboard_address=os.environ.get("TUTORIAL_DASHBOARD", "127.0.0.1:0"),  # make lab sets it
            env={"COMPUTE_THREADS": str(max(1, cores // n_workers))},
        )
    client.register_plugin(WithoutSecrets())
    client.run(import_module, "helpers.runtime")  # torch takes seconds, which would come before the first batch
    return client


class WithoutSecrets(WorkerPlugin):
    """Takes from a local worker, also from one that restarts, the secrets in the environment it was born with."""

    name = "without-secrets"

    def setup(self, worker) -> None:
        for name in filter(SECRET.search, list(os.environ)):
            del os.environ[name]


def _connected(cluster, make: type[Client] = Client, **options) -> Client:
    try:
        return make(cluster, **options)
    except (OSError, TypeError, RuntimeError) as error:  # TypeError: TLS without certificates
        address = getattr(cluster, "scheduler_address", cluster)
        raise ConnectionError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}: {error}). Start it, or correct the "
            "address; tls:// needs certificates in Dask's configuration, distributed.comm.tls."
        ) from None


def _prepared(client: Client, n_workers: int | None, wait_s: float) -> Client:
    """The client of a cluster that others started, once its workers are there and have this package."""
    try:
        client.wait_for_workers(n_workers or 1, timeout=wait_s)
        if skew := version_skew(client):
            raise RuntimeError(
                f"Client and cluster differ in {'; '.join(skew)}. Install requirements.txt on both, or run the "
                "client in the image of the workers."
            )
        send_package(client)
    except BaseException as error:  # an interrupt too: the caller has no client to close
        came, address = len(client.nthreads()), client.scheduler.address
        client.close()
        if isinstance(error, TimeoutError):
            raise ConnectionError(
                f"{came} of {n_workers or 1} workers came to the scheduler at {address} in {wait_s:g} s. Look into "
                "its log, start workers there, or ask for fewer with n_workers."
            ) from None
        raise
    return client


class SaturnClient(Client):
    """A client that closes its Saturn cluster with itself."""

    dashboard_link = property(lambda self: self.saturn.dashboard_link)

    def close(self, *args, **options) -> None:
        closing = self.status != "closed"
        super().close(*args, **options)
        if closing:
            with _saturn_named("did not stop the cluster, which costs as long as it runs"):
                self.saturn.close()


def _saturn(n_workers: int | None, wait_s: float) -> Client:
    import dask_saturn  # here: it sets up logging when imported

    class Cluster(dask_saturn.SaturnCluster):
        """One that does not try what distributed has dropped."""

        def register_default_plugin(self) -> None:
            """Below, in the way that distributed takes since 2023.3."""

        def __del__(self) -> None:
            """Without asking Saturn Cloud for its status."""

    class SaturnSetup(dask_saturn.SaturnSetup, WorkerPlugin):
        """dask-saturn's own plugin, as a type that distributed takes."""

    with _saturn_named("gives no cluster"):
        cluster = Cluster(n_workers=n_workers, scheduler_service_wait_timeout=wait_s)
    try:  # by address: a client made from SaturnCluster itself cannot wait for workers
        client = _connected(cluster.scheduler_address, SaturnClient, security=cluster.security)
    except ConnectionError:
        cluster.close()
        raise
    client.saturn = cluster
    _prepared(client, n_workers, wait_s).register_plugin(SaturnSetup())
    return client


@contextmanager
def _saturn_named(failure: str) -> Iterator[None]:
    """Turns what dask-saturn raises into an error that says where it asked, and what to look at."""
    started = time.monotonic()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConnectionError(
            f"Saturn Cloud at {os.environ.get('SATURN_BASE_URL', 'SATURN_BASE_URL, which is not set,')} {failure} "
            f"({error}, after {time.monotonic() - started:.0f} s). Check SATURN_BASE_URL, SATURN_TOKEN, and the Dask "
            "cluster on the page of your resource there."
        ) from None


class ModelPlugin(WorkerPlugin):
    """Carries a checkpoint's bytes to each worker process, also to one that joins late or restarts.

    travels: False where all workers are on this machine, and read the file themselves.
    """

    name = "model"

    def __init__(self, path: Path | str, travels: bool = True):
        self.path, self.digest = Path(path).resolve(), _digest(Path(path))
        self.data = self.path.read_bytes() if travels else None

    async def setup(self, worker) -> None:
        if getattr(worker, "predictor", None) is None or worker.predictor.digest != self.digest:
            threads = int(os.environ.get("COMPUTE_THREADS") or worker.state.nthreads)
            worker.predictor = await asyncio.to_thread(self._predictor, threads)

    def _predictor(self, threads: int):
        """None where a file that did not travel is not what it was, which the tasks name."""
        from helpers.runtime import Predictor  # here: the client needs no torch

        if self.data is None and (not self.path.exists() or _digest(self.path) != self.digest):
            return None
        return Predictor(self.data or self.path, self.digest, threads)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def send_model(client: Client, path: Path | str) -> str:
    """Load a checkpoint on every present and future worker, once a process. Returns the file's SHA-256."""
    plugin = ModelPlugin(path, travels=not isinstance(client.cluster, LocalCluster))
    client.register_plugin(plugin)
    return plugin.digest


def loaded_models(client: Client) -> dict[str, str]:
    """SHA-256 of the checkpoint that each worker has loaded, "" for none, by the worker's address."""
    return client.run(lambda dask_worker: getattr(getattr(dask_worker, "predictor", None), "digest", ""))
