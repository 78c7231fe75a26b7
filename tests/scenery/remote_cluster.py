"""A Dask cluster as on other machines.

Its processes share neither folder, environment nor package with the tests.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

LIMIT_S = 120


class RemoteCluster:
    """A scheduler and workers, each in a folder of its own below `folder`.

    -S leaves out the .pth files of the environment, and with them the editable install of this
    repository; what else is installed is found by PYTHONPATH. options: for scheduler and workers.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = ()):
        self.folder = folder
        self.options = options
        self.n_started = 0
        installed = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(installed),
            "OMP_NUM_THREADS": "1",
        }
        self.scheduler: subprocess.Popen | None = None
        self.workers: list[subprocess.Popen] = []
        self.address = ""
        self.dashboard = ""

    def start(self, n_workers: int) -> "RemoteCluster":
        listening = self.folder / f"scheduler-{self.n_started}.json"
        listen = ("--host=127.0.0.1", "--port=0", "--dashboard-address=127.0.0.1:0")
        self.scheduler = self._run("dask_scheduler", *listen, "--scheduler-file", str(listening))
        info = self._read(listening, self.scheduler)
        self.address = info["address"]
        self.dashboard = f"http://127.0.0.1:{info['services']['dashboard']}/status"
        self.scale(n_workers)
        return self

    def scale(self, n: int) -> None:
        """Starts or stops workers; as in a cloud, those that start come later."""
        while len(self.workers) < n:
            options = ("--nworkers=1", "--nthreads=2", "--no-dashboard", "--host=127.0.0.1")
            self.workers.append(self._run("dask_worker", self.address, *options))
        while len(self.workers) > n:
            _stop(self.workers.pop())

    def close(self) -> None:
        self.scale(0)
        if self.scheduler:
            _stop(self.scheduler)
        self.scheduler = None

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _run(self, command: str, *arguments: str) -> subprocess.Popen:
        self.n_started += 1
        own = self.folder / f"{command}-{self.n_started}"
        own.mkdir(parents=True)
        module = [sys.executable, "-S", "-m", f"distributed.cli.{command}"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*module, *arguments, *self.options],
                cwd=own,
                env=self.environment | {"DASK_TEMPORARY_DIRECTORY": str(own)},
                stdout=log,
                stderr=log,
            )

    def _read(self, path: Path, writer: subprocess.Popen) -> dict:
        """What the process writes there, as JSON."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline and writer.poll() is None:
            try:
                return json.loads(path.read_text())
            except (FileNotFoundError, ValueError):  # not there, or half written
                time.sleep(0.05)
        raise RuntimeError(f"The scheduler did not start:\n{self.log()}")


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
