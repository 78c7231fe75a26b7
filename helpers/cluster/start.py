"""Start a Dask cluster here, on Saturn Cloud, or take one by its address."""

import os
import re
from importlib import import_module

import dask
from dask.system import CPU_COUNT
from distributed import Client, Worker, WorkerPlugin
from distributed.deploy import Cluster

from helpers.cluster.elsewhere import connected, prepared
from helpers.cluster.saturn import saturn_cluster

WAIT_S = 1200  # for Saturn Cloud to start a worker
# tasks at once on a local worker: one batch is downloaded while another is in the forward pass
SLOTS = 2
# Bytes of freed memory that a local worker keeps for its next batch. Dask's default gives every
# freed block back to the system: PyTorch took 1.2 to 1.5 times as long for a batch. Other arenas
# than the first, which threads have, cannot keep blocks of this size.
KEPT = 2**28
KEEPING = {
    f"distributed.nanny.pre-spawn-environ.MALLOC_{name}": value
    for name, value in (("TRIM_THRESHOLD_", KEPT), ("MMAP_THRESHOLD_", KEPT), ("ARENA_MAX", 1))
}
# How often Dask looks at what its processes do. With its defaults a cluster at rest took 5 % of
# two cores, now 1 %.
SELDOM = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.tick.interval": "1s",
}
SECRET = re.compile(
    "SNOWFLAKE_|TOKEN|PASSWORD|PASSPHRASE|SECRET|CREDENTIAL|CONNECTION_STRING"
    "|(API|ACCESS|STORAGE|PRIVATE)_KEY"
)


def start_cluster(
    kind: str | Cluster = "auto", n_workers: int | None = None, wait_s: float = WAIT_S
) -> Client:
    """A client whose closing also closes the cluster that was started for it.

    kind: "local" (this machine's cores), "saturn", a scheduler's address, any other Dask cluster
    object, or "auto": DASK_SCHEDULER_ADDRESS, else Saturn Cloud where its variables are set, else
    local. n_workers: to start, or to wait for where somebody else starts them. wait_s: for them,
    where they are not local.
    Raises ConnectionError for a cluster that does not come, RuntimeError for one with other
    versions of packages.
    """
    if kind == "auto":
        on_saturn = os.environ.get("SATURN_BASE_URL") and os.environ.get("SATURN_TOKEN")
        kind = os.environ.get("DASK_SCHEDULER_ADDRESS") or ("saturn" if on_saturn else "local")
    if kind == "local":
        return _local_cluster(n_workers)
    if kind == "saturn":
        return saturn_cluster(n_workers, wait_s)
    if isinstance(kind, str) and "://" not in kind:
        raise ValueError(
            f'kind is {kind!r}. Use "auto", "local", "saturn" or an address such as '
            "tcp://host:8786."
        )
    return prepared(connected(kind), n_workers, wait_s)


def _local_cluster(n_workers: int | None) -> Client:
    cores = CPU_COUNT  # those that a container may use
    n_workers = n_workers or cores
    with dask.config.set(SELDOM | KEEPING):
        client = Client(
            n_workers=n_workers,
            threads_per_worker=SLOTS,
            # make lab sets it, for a dashboard beside the notebook
            dashboard_address=os.environ.get("TUTORIAL_DASHBOARD", "127.0.0.1:0"),
            env={"COMPUTE_THREADS": str(max(1, cores // n_workers))},
        )
    client.register_plugin(WithoutSecrets())
    # torch takes seconds to import, which the first batch would wait for
    client.run(import_module, "helpers.cluster.predictor")
    return client


class WithoutSecrets(WorkerPlugin):
    """Takes the secrets from a local worker's environment, also from one that restarts."""

    name = "without-secrets"

    def setup(self, worker: Worker) -> None:
        for name in list(os.environ):
            if SECRET.search(name):
                del os.environ[name]
