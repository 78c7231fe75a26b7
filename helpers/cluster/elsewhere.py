"""What a cluster elsewhere must have before it gets work: the same packages, and this one."""

import importlib
import io
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from distributed import Client, SchedulerPlugin, WorkerPlugin

from helpers import config

# what tasks and results are packed with, and what workers compute with
PACKAGES = (
    "python", "dask", "distributed", "msgpack", "cloudpickle", "tornado",
    "numpy", "pandas", "pyarrow", "torch", "torchvision", "pillow", "imagehash",
)  # fmt: skip


def version_skew(client: Client) -> list[str]:
    """A line for each of PACKAGES whose version, but for its patch and build, is not this process's on some node."""
    versions = client.get_versions(packages=PACKAGES[1:])
    nodes = [versions["client"], versions["scheduler"], *versions["workers"].values()]
    skew = []
    for package in PACKAGES:
        here, *there = (
            str(node["packages"][package]).split("+")[0].split(".")[:3] for node in nodes
        )
        others = Counter(".".join(version) for version in there if version[:2] != here[:2])
        skew += [
            f"{package} ({'.'.join(here)} here, {other} on {n} of {len(there)})"
            for other, n in others.items()
        ]
    return skew


def send_package(client: Client) -> None:
    """Give helpers to the scheduler and to workers, also late ones. Where it has changed it is loaded anew."""
    packed, here = io.BytesIO(), (platform.node(), os.getpid())
    with ZipFile(packed, "w") as archive:
        for path in sorted((config.PROJECT_ROOT / "helpers").rglob("*.py")):
            archive.writestr(
                ZipInfo(path.relative_to(config.PROJECT_ROOT).as_posix()), path.read_bytes()
            )
    data = packed.getvalue()

    # these are defined here since they travel by value: who receives them cannot import helpers yet
    def unpack(node) -> None:
        path = Path(node.local_directory, "helpers.zip")
        if here == (platform.node(), os.getpid()) or (path.exists() and path.read_bytes() == data):
            return
        path.write_bytes(data)
        for name in [name for name in sys.modules if name.partition(".")[0] == "helpers"]:
            del sys.modules[name]
        node.predictor = None  # of the code that was there
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
        importlib.invalidate_caches()

    class OnScheduler(SchedulerPlugin):
        name = "helpers"

        def start(self, scheduler) -> None:
            unpack(scheduler)

    class OnWorker(WorkerPlugin):
        name = "helpers"

        def setup(
            self, worker
        ) -> None:  # not async: on a late worker the plugins that need it start right after it
            unpack(worker)

    client.register_plugin(OnScheduler())
    client.register_plugin(OnWorker())


def connected(cluster, make: type[Client] = Client, **options) -> Client:
    try:
        return make(cluster, **options)
    except (OSError, TypeError, RuntimeError) as error:  # TypeError: TLS without certificates
        address = getattr(cluster, "scheduler_address", cluster)
        raise ConnectionError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}: {error}). Start it, or correct the "
            "address; tls:// needs certificates in Dask's configuration, distributed.comm.tls."
        ) from None


def prepared(client: Client, n_workers: int | None, wait_s: float) -> Client:
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
