"""A Dask cluster on Saturn Cloud, which dask-saturn starts, on the distributed of today."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, WorkerPlugin

from helpers.cluster.elsewhere import connected, prepared


class SaturnClient(Client):
    """A client that closes its Saturn cluster with itself."""

    dashboard_link = property(lambda self: self.saturn.dashboard_link)

    def close(self, *args, **options) -> None:
        closing = self.status != "closed"
        super().close(*args, **options)
        if closing:
            with _saturn_named("did not stop the cluster, which costs as long as it runs"):
                self.saturn.close()


def saturn_cluster(n_workers: int | None, wait_s: float) -> Client:
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
        client = connected(cluster.scheduler_address, SaturnClient, security=cluster.security)
    except ConnectionError:
        cluster.close()
        raise
    client.saturn = cluster
    prepared(client, n_workers, wait_s).register_plugin(SaturnSetup())
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
