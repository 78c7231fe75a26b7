"""Open JupyterLab on notebook 01 with the stand-in running; Ctrl-C stops both."""

import os
import signal
import subprocess
import sys

import standin
from helpers import config

FIRST = "notebooks/01_set_up_snowflake.ipynb"
DASHBOARD = "127.0.0.1:8787"  # where .jupyter/ tells the Dask panel to look


def command(options: list[str]) -> list[str]:
    """JupyterLab's own command line, to be run where its files are."""
    root = (
        ["--allow-root"] if os.geteuid() == 0 else []
    )  # Jupyter refuses to run as root without it
    fixed = [
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.answer_yes=True",
    ]  # Ctrl-C asks nothing
    return [sys.executable, "-m", "jupyterlab", *root, *fixed, *options]


def environment() -> dict[str, str]:
    """This process's, with the project's settings of JupyterLab and a fixed place for the Dask dashboard."""
    paths = [str(config.PROJECT_ROOT / ".jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    settings = {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    return {"TUTORIAL_DASHBOARD": DASHBOARD} | os.environ | settings


def main(options: list[str] | None = None) -> int:
    """Exit code of JupyterLab; options go to it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain kill ends like Ctrl-C
    started_here = config.backend() == "local" and standin.status() is None
    try:
        if started_here:
            standin.ensure_running()
        return _until_it_ends(
            subprocess.Popen(command(options or []), env=environment(), cwd=config.PROJECT_ROOT)
        )
    finally:
        if started_here:
            standin.stop()


def _until_it_ends(lab: subprocess.Popen) -> int:
    try:
        return lab.wait()
    except KeyboardInterrupt:
        lab.terminate()
        lab.wait()
        return 0
