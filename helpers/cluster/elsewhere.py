"""What a cluster elsewhere must have before it gets work: the same packages, and this one."""

import importlib
import io
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile, ZipInfo

from distributed import Client, Scheduler, SchedulerPlugin, Worker, WorkerPlugin
from distributed.deploy import Cluster

from helpers import config

# what tasks and results are packed with, and what workers compute with
PACKAGES = (
    "python",
    "dask",
    "distributed",
    "msgpack",
    "cloudpickle",
    "tornado",
    "numpy",
    "pandas",
    "pyarrow",
    "torch",
    "torchvision",
    "timm",
    "pillow",
    "imagehash",
)
AT_HOME = "commands"  # the room of helpers that no worker calls: what a user starts


def connected(cluster: str | Cluster, make: type[Client] = Client, **options: Any) -> Client:
    """A client of a cluster that runs; `options` are for `make`.

    Raises ConnectionError.
    """
    try:
        return make(cluster, **options)
    except (OSError, TypeError, RuntimeError) as error:  # TypeError: TLS without certificates
        raise ConnectionError(
            f"No Dask scheduler answers at {getattr(cluster, 'scheduler_address', cluster)} "
            f"({type(error).__name__}: {error}). "
            "Start it, or correct the address; tls:// needs certificates in Dask's "
            "configuration, distributed.comm.tls."
        ) from None


def prepared(client: Client, n_workers: int | None, wait_s: float) -> Client:
    """The client of a cluster that others started, once its workers are there with this package.

    Raises ConnectionError if they do not come, RuntimeError if they have other versions; then the
    client is closed.
    """
    wanted = n_workers or 1
    try:
        client.wait_for_workers(wanted, timeout=wait_s)
        skew = version_skew(client)
        if skew:
            raise RuntimeError(
                f"Client and cluster differ in {'; '.join(skew)}. "
                "Install requirements.txt on both, or run the client in the image of the workers."
            )
        send_package(client)
    except BaseException as error:  # an interrupt too: the caller has no client to close
        came = f"{len(client.nthreads())} of {wanted} workers came"
        address = cast(Any, client.scheduler).address
        client.close()
        if isinstance(error, TimeoutError):
            raise ConnectionError(
                f"{came} to the scheduler at {address} in {wait_s:g} s. "
                "Look into its log, start workers there, or ask for fewer with n_workers."
            ) from None
        raise
    return client


def version_skew(client: Client) -> list[str]:
    """What differs: a line for each of PACKAGES and each version of it that other nodes have.

    Patches and builds may differ: get_versions(check=True) would want them equal.
    """
    versions = cast(dict, client.get_versions(packages=PACKAGES[1:]))  # "python" is always there
    others = [versions["scheduler"], *versions["workers"].values()]
    here = {package: _release(versions["client"], package) for package in PACKAGES}
    there = Counter((package, _release(node, package)) for package in PACKAGES for node in others)
    return [
        f"{package} ({'.'.join(here[package])} here, "
        f"{'.'.join(release)} on {count} of {len(others)})"
        for (package, release), count in there.items()
        if release[:2] != here[package][:2]
    ]


def _release(node: dict, package: str) -> tuple[str, ...]:
    """As ("2", "13", "0") for 2.13.0+cpu; ("None",) for a package that is not there."""
    return tuple(str(node["packages"][package]).partition("+")[0].split(".")[:3])


def send_package(client: Client) -> None:
    """Give helpers to the scheduler and to workers, also late ones. A changed one is loaded anew.

    Not by distributed's own means: upload_file reloads the package's top module only, and
    UploadDirectory(mode="all") fails in distributed 2026.8.0.
    """
    data = _packed(config.PROJECT_ROOT / "helpers")
    here = (platform.node(), os.getpid())

    # the next three travel by value: who receives them cannot import helpers yet
    def unpack(node: Any) -> None:
        path = Path(node.local_directory, "helpers.zip")
        # a node inside of this process has the package, and must keep its modules
        at_home = here == (platform.node(), os.getpid())
        if at_home or (path.exists() and path.read_bytes() == data):
            return
        path.write_bytes(data)
        for name in [name for name in sys.modules if name.partition(".")[0] == "helpers"]:
            del sys.modules[name]
        node.predictor = None  # of the code that was there
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
        importlib.invalidate_caches()

    class OnScheduler(SchedulerPlugin):
        async def start(self, scheduler: Scheduler) -> None:
            unpack(scheduler)

    class OnWorker(WorkerPlugin):
        # not async: on a late worker the plugins that need the package start right after it
        def setup(self, worker: Worker) -> None:
            unpack(worker)

    client.register_plugin(OnScheduler(), name="helpers")
    client.register_plugin(OnWorker(), name="helpers")


def _packed(package: Path) -> bytes:
    """A zip of the package's modules, but for AT_HOME; equal modules give equal bytes."""
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        for path in sorted(package.rglob("*.py")):
            if path.relative_to(package).parts[0] != AT_HOME:
                undated = ZipInfo(path.relative_to(package.parent).as_posix())
                archive.writestr(undated, path.read_bytes())
    return packed.getvalue()
