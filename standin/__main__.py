"""python -m standin start|stop|status|reset"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from standin import lifecycle, serve

NOT_RUNNING = 1


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done; 1 not running (status, stop); 3 could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m standin", description="The local stand-in for Snowflake."
    )
    parser.add_argument("command", choices=["start", "stop", "status", "reset", "serve"])
    parser.add_argument(
        "--root", type=Path, help=f"its folder (default: ${lifecycle.ROOT_VARIABLE}, or .sandbox)"
    )
    parser.add_argument(
        "--port", type=int, help="its port (default: the last one, or any free one)"
    )
    given = parser.parse_args(arguments)
    root = (given.root or lifecycle.default_root()).resolve()
    if given.command == "serve":
        return serve.main(root, given.port)
    try:
        return COMMANDS[given.command](root, given.port)
    except lifecycle.StartError as error:
        print(error, file=sys.stderr)
        return 3


def _start(root: Path, port: int | None) -> int:
    running = lifecycle.status(root)
    if running and port not in (None, running.port):
        raise lifecycle.StartError(
            f"A stand-in already runs on {root} (pid {running.pid}, port {running.port})."
        )
    if running:
        print(f"Already running: {_described(running)}")
    else:
        print(f"Started: {_described(lifecycle.ensure_running(root, port=port))}")
    return 0


def _stop(root: Path, port: int | None) -> int:
    if lifecycle.stop(root):
        print(f"Stopped the stand-in on {root}.")
        return 0
    print(f"No stand-in runs on {root}.")
    return NOT_RUNNING


def _status(root: Path, port: int | None) -> int:
    server = lifecycle.status(root)
    if server is None:
        print(f"No stand-in runs on {root}.")
        return NOT_RUNNING
    print(f"Running: {_described(server)}")
    return 0


def _reset(root: Path, port: int | None) -> int:
    lifecycle.reset(root)
    print(f"Deleted the databases and files of the stand-in in {root}.")
    return 0


def _described(server: lifecycle.Server) -> str:
    return f"http://{server.host}:{server.port}, pid {server.pid}, state in {server.root}"


COMMANDS = {"start": _start, "stop": _stop, "status": _status, "reset": _reset}

if __name__ == "__main__":
    sys.exit(main())
