"""The server's process: one folder, one lock, one port.

One process owns the DuckDB files, since DuckDB lets no second one open them; every kernel, worker
and script talks HTTP to it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from standin.whole import written_whole

HOST = "127.0.0.1"
PASSWORD = "password"  # the file of what whoever logs in must know
FOLDERS = ("db", "stages", "external", "parts")
IDLE_S = 60.0
LOCK_WAIT_S = 90.0
BODY_S = 30.0  # for which a client that has begun a request may be silent
RESULTS_S = 6 * 3600.0  # for which Snowflake's addresses of a large result's rows are good


class StartError(OSError):
    """The server could not start; the message says why and what to do."""


def serve(root: Path, port: int | None) -> None:
    """Run until told to stop. port: None for the last one if it is free, else any."""
    try:
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)  # its files are its user's
    except OSError as error:
        raise StartError(
            f"The stand-in's folder {root} cannot be used ({error.strerror})."
            " Make room or get the rights there, or set TUTORIAL_HOME to another folder."
        ) from None
    with folder_lock(root), listening_socket(root, port) as listener:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        _run(root, listener)


@contextmanager
def folder_lock(root: Path) -> Generator[None, None, None]:
    """One server a folder; the system releases the lock even of a killed one."""
    with (root / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise StartError(
                f"A stand-in already runs on {root} (pid {pid}). Use it, or stop it first:"
                f" python -m standin stop --root {root}"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def listening_socket(root: Path, port: int | None) -> Generator[socket.socket, None, None]:
    """A bound socket on loopback. Raises StartError if the wanted port is in use."""
    # named protocol: only then does asyncio turn off Nagle's delay of 40 ms an answer
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        _bind(listener, port, _last_port(root))
        yield listener
    finally:
        listener.close()


def _bind(listener: socket.socket, port: int | None, last: int) -> None:
    if port is not None:
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise StartError(
                f"Port {port} on {HOST} cannot be used ({error.strerror})."
                " Choose another, or leave out --port."
            ) from None
        return
    try:
        listener.bind((HOST, last))
    except OSError:
        listener.bind((HOST, 0))


def _last_port(root: Path) -> int:
    """The port of the last server, so that its signed URLs keep working; 0 if there was none."""
    try:
        return int(json.loads((root / "server.json").read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _run(root: Path, listener: socket.socket) -> None:
    # uploads that a killed server left, and the folder that fakesnow makes when it is imported
    for name in ("parts", "scratch"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    tempfile.tempdir = str(root / "scratch")
    if hasattr(signal, "SIGHUP"):  # a terminal that closes ends it in order, too
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # Imported here, and in this order: `import standin` stays quick for the client, which runs
    # nothing of this, and fakesnow, which build imports, must find the connector's names in place.
    from standin import compat

    compat.install_connector_names()
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Hangs up on who has sent no whole head of a request when the time is over."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(BODY_S, lambda: self.cycle or transport.close())

    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    from standin.build import application

    port = listener.getsockname()[1]
    about = {
        "pid": os.getpid(),
        "host": HOST,
        "port": port,
        "root": str(root),
        "started": started_at(os.getpid()),
    }
    idle_s = _seconds("TUTORIAL_SANDBOX_IDLE_S", IDLE_S)
    lock_wait_s = _seconds("TUTORIAL_SANDBOX_LOCK_S", LOCK_WAIT_S)
    results_s = _seconds("TUTORIAL_SANDBOX_RESULTS_S", RESULTS_S)
    app = application(root, about, idle_s, lock_wait_s, results_s)
    config = uvicorn.Config(
        app, http=Impatient, log_level="warning", access_log=False, timeout_graceful_shutdown=3
    )
    listener.listen(128)
    # Only now, when requests are taken: whoever waits for the server reads this file.
    with written_whole(root / "server.json", root / "server.json.part") as file:
        file.write(json.dumps(about).encode())
    uvicorn.Server(config).run(sockets=[listener])


def _seconds(variable: str, default: float) -> float:
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        raise StartError(
            f"{variable} is '{os.environ[variable]}', not a number of seconds."
        ) from None


def started_at(pid: int) -> float | None:
    """Seconds from the machine's start to a process's; None if there is none, or its remains.

    Both times move with a clock that is set: their difference does not.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        since_boot = round(process.create_time() - psutil.boot_time(), 2)
        return None if process.status() == psutil.STATUS_ZOMBIE else since_boot
    except psutil.NoSuchProcess:
        return None


def main(root: Path, port: int | None) -> int:
    """For the process itself: 0 stopped, 3 not started."""
    try:
        serve(root, port)
    except StartError as error:
        print(f"{time.strftime('%H:%M:%S')} {error}", file=sys.stderr)
        return 3
    return 0
