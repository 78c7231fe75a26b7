"""JupyterLab for the browser tests: a server on a copy of the notebooks, a page that runs them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Page, TimeoutError
from scenery.browsing import keep_screenshot

from helpers.config import PROJECT_ROOT

TOKEN = "for-the-tests"
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
# Lab marks an exception's text as stderr, too; what tells it from a warning is the traceback
CELLS = """panel => [...document.querySelectorAll(`${panel} .jp-CodeCell`)].map(cell => ({
    number: +(cell.querySelector('.jp-InputPrompt')?.textContent.match(/\\[(\\d+)\\]/)?.[1] ?? 0),
    source: cell.querySelector('.cm-content')?.textContent.trim() ?? '',
    error: [...cell.querySelectorAll("[data-mime-type='application/vnd.jupyter.stderr']")]
        .map(output => output.textContent)
        .find(text => /Traceback \\(most recent/.test(text)) ?? '',
}))"""
SHOWN = """panel => {
    const all = selector => [...document.querySelectorAll(`${panel} ${selector}`)];
    const output = '.jp-OutputArea-output';
    return {
        pictures: all(`${output} img`).filter(image => image.naturalWidth).length,
        drawings: all('.jp-MarkdownCell img').filter(image => image.naturalWidth).length,
        bars: all('.widget-hprogress').length,
        controls: all(`${output} :is(select, input, .noUi-handle)`).length,
        text: all(output).map(shown => shown.innerText).join('\\n'),
    };
}"""


class CellError(Exception):
    """A cell of a notebook that showed a traceback, or did not finish in time."""


def copy_notebooks(folder: Path, parameters: dict[str, dict]) -> None:
    """Lay notebooks and their drawings out in `folder`.

    parameters: other values for the parameter cells, by notebook.
    """
    for path in [*PROJECT_ROOT.glob("notebooks/*.ipynb"), *PROJECT_ROOT.glob("docs/images/*")]:
        target = folder / path.relative_to(PROJECT_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name, values in parameters.items():
        path = folder / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        for parameter, value in values.items():
            line = f"{parameter} = {value!r}"
            text, found = re.subn(rf"^{parameter} = .*$", line, tagged[0].source, flags=re.M)
            assert found == 1, f"{name} has no parameter {parameter}"
            tagged[0].source = text
        nbformat.write(notebook, path)


@dataclass
class Lab:
    """A running server."""

    process: subprocess.Popen
    address: str

    def api(self, path: str, method: str = "GET") -> Any:
        """The JSON that the server answers; None where it answers with nothing."""
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(
            f"{self.address}/api/{path}", method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer) if answer.status == 200 else None

    def close_kernels(self) -> None:
        """End every session, and its kernel."""
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def _places(root: Path) -> dict[str, str]:
    """The environment in which JupyterLab keeps all its own below `root`."""
    jupyter = root / ".jupyter"
    return {
        "JUPYTER_CONFIG_DIR": str(jupyter / "config"),
        "JUPYTER_RUNTIME_DIR": str(jupyter / "runtime"),
        "JUPYTER_DATA_DIR": str(jupyter / "data"),
        "JUPYTERLAB_WORKSPACES_DIR": str(jupyter / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(jupyter / "settings"),
        "IPYTHONDIR": str(root / ".ipython"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@contextmanager
def running_lab(
    root: Path, command: list[str], environment: dict[str, str]
) -> Generator[Lab, None, None]:
    """A server of the files in `root`, started by `command`; ended by Ctrl-C if it still runs."""
    port = free_port()
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}",
    ]
    with (root / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=root,
            env=os.environ | _places(root) | environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        lab = Lab(process, f"http://127.0.0.1:{port}")
        _wait_until_it_answers(lab, root / "lab.log")
        yield lab
    finally:
        end(process)


def end(process: subprocess.Popen) -> int:
    """What Ctrl-C in a terminal does: SIGINT to the whole group. Returns the exit status."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def _wait_until_it_answers(lab: Lab, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert lab.process.poll() is None, log.read_text()
        with suppress(OSError):
            lab.api("status")
            return
        time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not answer: {log.read_text()}")


class LabPage:
    """One notebook, open in the browser."""

    def __init__(self, page: Page, lab: Lab, notebook: str):
        self.page = page
        self.notebook = notebook
        page.set_default_timeout(120_000)
        place = f"workspaces/{notebook}/tree/notebooks/{notebook}.ipynb"
        page.goto(f"{lab.address}/lab/{place}?token={TOKEN}&reset")
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        page.wait_for_selector(f"{PANEL} .jp-Notebook .jp-Cell")
        self.wait_for_kernel()

    def wait_for_kernel(self) -> None:
        """Before the kernel is idle, running a cell opens a dialog instead."""
        self.page.wait_for_function(
            "/\\| Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText ?? '')"
        )

    def menu(self, menu: str, command: str) -> None:
        """Click a command of a menu."""
        self.page.click(f"li.lm-MenuBar-item:has-text('{menu}')")
        self.page.click(f"li.lm-Menu-item[data-command='{command}']")

    def cells(self) -> list[dict]:
        """Number (0: not run), source and traceback of each code cell."""
        return self.page.evaluate(CELLS, PANEL)

    def shown(self) -> dict:
        """What the outputs show: pictures, progress bars, controls and text."""
        return self.page.evaluate(SHOWN, PANEL)

    def clear(self) -> None:
        """Forget the outputs and numbers that an autosave kept: none must pass for a new one."""
        self.menu("Edit", "editmenu:clear-all")
        self.wait(lambda cells: not any(cell["number"] for cell in cells), timeout_s=30)

    def run_all(self, timeout_s: float = 400) -> None:
        """Run All Cells, and wait for every cell. Raises CellError."""
        self.clear()
        self.menu("Run", "runmenu:run-all")
        self.wait(lambda cells: all(cell["number"] for cell in cells if cell["source"]), timeout_s)

    def begin_stepping(self) -> None:
        """Select the first cell in command mode, where Shift-Enter goes from cell to cell."""
        self.clear()
        self.page.locator(f"{PANEL} .jp-Cell").first.click()
        self.page.keyboard.press("Escape")

    def last_run(self) -> str:
        """Source of the cell that ran last, "" if none has."""
        ran = [cell for cell in self.cells() if cell["number"]]
        return max(ran, key=lambda cell: cell["number"])["source"] if ran else ""

    def step(self, timeout_s: float = 240) -> None:
        """Shift-Enter on the selected cell; waits until it has run, if it is code.

        Raises CellError.
        """
        selected = self.page.locator(f"{PANEL} .jp-Cell.jp-mod-selected").first
        is_code = "jp-CodeCell" in (selected.get_attribute("class") or "")
        highest = max(cell["number"] for cell in self.cells())
        self.page.keyboard.press("Shift+Enter")
        if is_code:
            self.wait(lambda cells: max(cell["number"] for cell in cells) > highest, timeout_s)

    def wait(self, finished: Callable[[list[dict]], bool], timeout_s: float) -> None:
        """Until `finished` is true of the cells and the kernel rests. Raises CellError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            cells = self.cells()
            for cell in cells:
                if cell["error"]:
                    raise CellError(f"{self.notebook}: {cell['error']}")
            if finished(cells) and self._idle():
                return
            self.page.wait_for_timeout(200)
        keep_screenshot(self.page, f"{self.notebook}-timeout")
        waiting = [cell["source"][:60] for cell in self.cells() if not cell["number"]]
        raise CellError(f"{self.notebook}: not done after {timeout_s:g} s; not run: {waiting}")

    def _idle(self) -> bool:
        indicator = self.page.locator(f"{PANEL} .jp-Notebook-ExecutionIndicator")
        return indicator.get_attribute("data-status") == "idle"

    def restart_kernel(self) -> None:
        """Restart it from the menu, and wait until it is there again."""
        self.menu("Kernel", "kernelmenu:restart")
        with suppress(TimeoutError):
            self.page.click(".jp-Dialog button.jp-mod-warn", timeout=10_000)
        self.wait_for_kernel()

    def keep_screenshot(self, name: str) -> None:
        """The whole notebook, not only the part that fits a window."""
        notebook = self.page.locator(f"{PANEL} .jp-WindowedPanel-outer").first
        height = notebook.evaluate("notebook => notebook.scrollHeight")
        self.page.set_viewport_size({"width": 1400, "height": min(height + 200, 12_000)})
        # Lab lays the cells out anew, and scrolls to the selected one
        self.page.wait_for_timeout(1000)
        notebook.evaluate("notebook => { notebook.scrollTop = 0 }")
        self.page.wait_for_timeout(500)
        keep_screenshot(self.page, name)
        self.page.set_viewport_size({"width": 1400, "height": 1000})
