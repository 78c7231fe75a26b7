"""A Dask cluster on Saturn Cloud, which dask-saturn starts, on the distributed of today."""

import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import requests
from distributed import Client, WorkerPlugin

from helpers.cluster.elsewhere import connected, prepared


def saturn_cluster(n_workers: int | None, wait_s: float) -> Client:
    """A client of the resource's cluster, which is started if need be and closes with the client.

    Raises ConnectionError for a cluster that does not come, RuntimeError for one with other
    versions of packages.
    """
    import dask_saturn  # here: it sets up logging when imported

    class Cluster(dask_saturn.SaturnCluster):
        """One that does not try what distributed has dropped."""

        def register_default_plugin(self) -> None:
            """Below, in the way that distributed takes since 2023.3."""

        def __del__(self, _warn: Any = None) -> None:
            """Without asking Saturn Cloud for its status."""

        def close(self) -> None:
            """By today's API too, which says stop for close."""
            try:
                super().close()
            except (ValueError, KeyError):  # of an answer that dask-saturn cannot read
                stop = f"{self.cluster_url}stop"
                if not requests.post(stop, headers=self.settings.headers, timeout=60).ok:
                    raise

    class SaturnSetup(dask_saturn.SaturnSetup, WorkerPlugin):
        """dask-saturn's own plugin, as a type that distributed takes."""

    with _saturn_named("gives no cluster"):
        cluster = Cluster(n_workers=n_workers, scheduler_service_wait_timeout=math.ceil(wait_s))
    address = cluster.scheduler_address  # a client made from the cluster cannot wait for workers
    try:
        client = cast(SaturnClient, connected(address, SaturnClient, security=cluster.security))
    except ConnectionError:
        cluster.close()
        raise
    client.saturn = cluster
    prepared(client, n_workers, wait_s)
    client.register_plugin(SaturnSetup())
    return client


class SaturnClient(Client):
    """A client that closes its Saturn cluster with itself."""

    saturn: Any  # the SaturnCluster

    @property
    def dashboard_link(self) -> str:
        return self.saturn.dashboard_link

    def close(self, *args: Any, **options: Any) -> None:
        was_open = self.status != "closed"
        super().close(*args, **options)
        if was_open:
            with _saturn_named("did not stop the cluster, which costs as long as it runs"):
                self.saturn.close()


@contextmanager
def _saturn_named(failure: str) -> Generator[None, None, None]:
    """Turns what dask-saturn raises into an error that says where it asked, and what to look at."""
    started = time.monotonic()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        asked = os.environ.get("SATURN_BASE_URL", "SATURN_BASE_URL, which is not set,")
        raise ConnectionError(
            f"Saturn Cloud at {asked} {failure} ({error}, "
            f"after {time.monotonic() - started:.0f} s). Check SATURN_BASE_URL, "
            "SATURN_TOKEN, and the Dask cluster on the page of your "
            "resource there."
        ) from None
