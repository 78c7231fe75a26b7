"""Open JupyterLab on notebook 01 with the stand-in running; Ctrl-C stops both."""

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext

import standin
from helpers import config

FIRST = "notebooks/01_set_up_snowflake.ipynb"
DASHBOARD = "127.0.0.1:8787"  # where .jupyter/ tells the Dask panel to look


def command(options: list[str]) -> list[str]:
    """JupyterLab's own command line, to be run where its files are."""
    # Ctrl-C asks nothing
    fixed = [f"--LabApp.default_url=/lab/tree/{FIRST}", "--ServerApp.answer_yes=True"]
    if os.geteuid() == 0:
        fixed.append("--allow-root")  # Jupyter refuses to run as root without it
    return [sys.executable, "-m", "jupyterlab", *fixed, *options]


def environment() -> dict[str, str]:
    """This process's, with the project's settings of JupyterLab and a place for Dask's dashboard.

    A TUTORIAL_DASHBOARD or JUPYTER_CONFIG_PATH of the reader's own stays in force.
    """
    paths = [str(config.PROJECT_ROOT / ".jupyter")]
    if os.environ.get("JUPYTER_CONFIG_PATH"):
        paths.append(os.environ["JUPYTER_CONFIG_PATH"])
    settings = {"JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}
    return {"TUTORIAL_DASHBOARD": DASHBOARD} | os.environ | settings


def main(arguments: list[str] | None = None) -> int:
    """Exit code of JupyterLab, which gets the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers lab", description=__doc__, allow_abbrev=False
    )
    options = parser.parse_known_args(arguments)[1]
    with standin.in_use() if config.backend() == "local" else nullcontext():
        lab = subprocess.Popen(command(options), env=environment(), cwd=config.PROJECT_ROOT)
        return _until_it_ends(lab)


def _until_it_ends(lab: subprocess.Popen) -> int:
    """Its exit code; 0 after Ctrl-C, which is how it is meant to end."""
    try:
        return lab.wait()
    except KeyboardInterrupt:
        lab.terminate()
        lab.wait()
        return 0
