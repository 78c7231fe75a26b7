"""Bring the model to the workers, once a process, and to those that come later."""

import asyncio
import os
from pathlib import Path

from distributed import Client, LocalCluster, WorkerPlugin

from helpers.files import digest_of


class ModelPlugin(WorkerPlugin):
    """Carries a checkpoint's bytes to each worker process, also to one that joins late or restarts.

    travels: False where all workers are on this machine, and read the file themselves.
    """

    name = "model"

    def __init__(self, path: Path | str, travels: bool = True):
        self.path, self.digest = Path(path).resolve(), digest_of(Path(path))
        self.data = self.path.read_bytes() if travels else None

    async def setup(self, worker) -> None:
        if getattr(worker, "predictor", None) is None or worker.predictor.digest != self.digest:
            threads = int(os.environ.get("COMPUTE_THREADS") or worker.state.nthreads)
            worker.predictor = await asyncio.to_thread(self._predictor, threads)

    def _predictor(self, threads: int):
        """None where a file that did not travel is not what it was, which the tasks name."""
        from helpers.cluster.predictor import Predictor  # here: the client needs no torch

        if self.data is None and (not self.path.exists() or digest_of(self.path) != self.digest):
            return None
        return Predictor(self.data or self.path, self.digest, threads)


def send_model(client: Client, path: Path | str) -> str:
    """Load a checkpoint on every present and future worker, once a process. Returns the file's SHA-256."""
    plugin = ModelPlugin(path, travels=not isinstance(client.cluster, LocalCluster))
    client.register_plugin(plugin)
    return plugin.digest


def loaded_models(client: Client) -> dict[str, str]:
    """SHA-256 of the checkpoint that each worker has loaded, "" for none, by the worker's address."""
    return client.run(
        lambda dask_worker: getattr(getattr(dask_worker, "predictor", None), "digest", "")
    )
