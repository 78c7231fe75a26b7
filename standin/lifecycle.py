"""Starts, finds and stops the server, from any process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standin.serve import FOLDERS, PASSWORD, StartError, started_at

ROOT_VARIABLE = "TUTORIAL_SANDBOX"
PROJECT_ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.05
STOP_S = 10.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is behind no proxy


@dataclass(frozen=True)
class Server:
    """A running server."""

    host: str
    port: int
    pid: int
    root: Path


def default_root() -> Path:
    """Where the state lives.

    $TUTORIAL_SANDBOX, else .sandbox in $TUTORIAL_HOME, else .sandbox beside this package.
    """
    home = Path(os.environ.get("TUTORIAL_HOME") or PROJECT_ROOT)
    return Path(os.environ.get(ROOT_VARIABLE) or home / ".sandbox").resolve()


def status(root: Path | None = None) -> Server | None:
    """The server that runs on this folder, if one does and answers."""
    root = (root or default_root()).resolve()
    noted = _noted(root)
    if noted is None:
        return None
    try:
        url = f"http://{noted['host']}:{noted['port']}/health"
        with DIRECT.open(url, timeout=5) as response:
            answer = json.load(response)
    except (OSError, ValueError):
        return None
    if answer.get("root") != str(root) or answer.get("pid") != noted["pid"]:
        return None
    return Server(noted["host"], noted["port"], noted["pid"], root)


def ensure_running(
    root: Path | None = None, timeout_s: float = 60, port: int | None = None
) -> Server:
    """The running server; started if there is none. Raises StartError with the reason."""
    root = (root or default_root()).resolve()
    if "?" in str(root):
        raise StartError(f"{root}: DuckDB takes no ? in a path. Set TUTORIAL_SANDBOX to another.")
    server = status(root)
    if server:
        return server
    _make(root)
    with (root / "start.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Another process may have started it while this one waited for its turn.
        return status(root) or _start(root, timeout_s, port)


def connection_parameters(root: Path | None = None) -> dict[str, Any]:
    """Keyword arguments for snowflake.connector.connect; starts the server if needed.

    Sets two environment variables: no probes of cloud addresses, and no proxy on the way to
    loopback.
    """
    server = ensure_running(root)
    os.environ.setdefault("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")
    # clients differ in which of the two goes before the other, so both get what both have
    named = ",".join(os.environ.get(variable, "") for variable in ("no_proxy", "NO_PROXY"))
    direct = [name.strip() for name in named.split(",") if name.strip()]
    if "*" not in direct:  # which counts only alone, and names all hosts
        both = ",".join(dict.fromkeys([*direct, server.host]))
        os.environ |= {"no_proxy": both, "NO_PROXY": both}
    return {
        "user": "tutorial",
        "password": (server.root / PASSWORD).read_text(),
        "account": "sandbox",
        "host": server.host,
        "port": server.port,
        "protocol": "http",
        "enable_server_session_keep_alive_auto_detection": False,  # silences a FutureWarning
    }


@contextmanager
def in_use(root: Path | None = None) -> Generator[Server, None, None]:
    """The running server, for as long as this lasts.

    One that was started so ends with the last of those who use it so; one that was running stays.
    """
    root = (root or default_root()).resolve()
    _make(root)
    ends_with_users = root / "ends-with-users"
    with (root / "users.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            if status(root) is None:
                ends_with_users.touch()
            yield ensure_running(root)
        finally:
            with suppress(BlockingIOError):  # somebody else uses it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if ends_with_users.exists():
                    ends_with_users.unlink()
                    stop(root)


def stop(root: Path | None = None) -> bool:
    """Stop the server; whether there was one. Waits until it is gone."""
    root = (root or default_root()).resolve()
    noted = _noted(root)
    if noted is None:
        return False
    pid = noted["pid"]
    os.kill(pid, signal.SIGTERM)
    if not _gone(pid, noted["started"], STOP_S):
        os.kill(pid, signal.SIGKILL)
        _gone(pid, noted["started"], STOP_S)
    return True


def reset(root: Path | None = None) -> None:
    """Stop the server and delete its databases and files."""
    root = (root or default_root()).resolve()
    stop(root)
    for name in (*FOLDERS, "scratch"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in (
        "server.json",
        "server.log",
        "secret.key",
        PASSWORD,
        "lock",
        "start.lock",
        "users.lock",
    ):
        (root / name).unlink(missing_ok=True)


def _make(root: Path) -> None:
    """The folder, where it is not there yet. Raises StartError where there can be none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The stand-in's folder {root} cannot be made ({error.strerror})."
            " Set TUTORIAL_HOME to a folder that you may write to."
        ) from None


def _noted(root: Path) -> dict[str, Any] | None:
    """What the server wrote of itself, if that process still lives (a pid may be used again)."""
    try:
        noted = json.loads((root / "server.json").read_text())
        alive = started_at(int(noted["pid"])) == noted["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted if alive else None


def _gone(pid: int, started: float, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if started_at(pid) != started:
            return True
        time.sleep(POLL_S)
    return False


def _start(root: Path, timeout_s: float, port: int | None) -> Server:
    command = [sys.executable, "-m", "standin", "serve", "--root", str(root)]
    command += ["--port", str(port)] if port is not None else []
    log_file = root / "server.log"
    with log_file.open("ab") as log:
        start_of_log = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the notebook's terminal is not meant for it
            cwd=PROJECT_ROOT,  # where `-m standin` is found
        )
    # Without someone who waits for it, a stopped server stays a zombie as long as this process.
    threading.Thread(target=process.wait, daemon=True, name="reap the stand-in").start()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        server = status(root)
        if server:
            return server
        if process.poll() is not None:
            said = log_file.read_bytes()[start_of_log:].decode(errors="replace").strip()
            raise StartError(
                f"The stand-in for Snowflake did not start: {said or 'it said nothing'}"
                f" (log: {log_file})"
            )
        time.sleep(POLL_S)
    process.kill()
    raise StartError(
        f"The stand-in for Snowflake did not answer within {timeout_s:g} s (log: {log_file})."
    )
