"""Bring the model to the workers, once a process, and to those that come later."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client, LocalCluster, Worker, WorkerPlugin

from helpers.files import digest_of

if TYPE_CHECKING:
    from helpers.cluster.predictor import Predictor


def send_model(client: Client, path: Path | str) -> str:
    """Load a checkpoint on every present and future worker, once a process.

    Returns the file's SHA-256.
    """
    plugin = ModelPlugin(path, travels=not isinstance(client.cluster, LocalCluster))
    client.register_plugin(plugin)
    return plugin.digest


class ModelPlugin(WorkerPlugin):
    """Carries a checkpoint's bytes to each worker process, also to one that joins late or restarts.

    travels: False where all workers are on this machine, and read the file themselves.
    """

    name = "model"

    def __init__(self, path: Path | str, travels: bool = True):
        self.path = Path(path).resolve()
        self.digest = digest_of(self.path)
        self.data = self.path.read_bytes() if travels else None

    async def setup(self, worker: Worker) -> None:
        held = getattr(worker, "predictor", None)
        if held is None or held.digest != self.digest:
            threads = int(os.environ.get("COMPUTE_THREADS") or worker.state.nthreads)
            # in a thread: while torch loads, the worker goes on answering the scheduler
            predictor = await asyncio.to_thread(self._predictor, threads)
            worker.predictor = predictor  # ty: ignore[missing-attribute] - where tasks look for it

    def _predictor(self, threads: int) -> "Predictor | None":
        """None where a file that did not travel is not what it was, which the tasks name."""
        from helpers.cluster.predictor import Predictor  # here: the client needs no torch

        if self.data is not None:
            return Predictor(self.data, self.digest, threads)
        if not self.path.exists() or digest_of(self.path) != self.digest:
            return None
        return Predictor(self.path, self.digest, threads)


def loaded_models(client: Client) -> dict[str, str]:
    """SHA-256 of the checkpoint that each worker has loaded, by its address; "" for none."""
    # Dask hands an argument of this name the worker
    return client.run(
        lambda dask_worker: getattr(getattr(dask_worker, "predictor", None), "digest", "")
    )


def devices(client: Client) -> dict[str, str]:
    """What each worker computes on, by its address, once it has a model."""
    return client.run(lambda dask_worker: dask_worker.predictor.computes_on())
