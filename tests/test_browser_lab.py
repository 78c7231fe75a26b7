"""The notebooks in JupyterLab, as a reader meets them.

Opened, run, stepped through, restarted, and ended by Ctrl-C.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page
from scenery.browsing import chromium, keep_screenshot
from scenery.lab import (
    PANEL,
    TOKEN,
    CellError,
    LabPage,
    copy_notebooks,
    end,
    free_port,
    running_lab,
)
from scenery.surroundings import readers_machine

import standin
from helpers import config
from helpers.commands.lab import command as lab_command
from helpers.commands.tutorial import NOTEBOOKS, run_notebook
from helpers.snowflake.connection import connect, execute

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
MAKE_LAB = [sys.executable, "-m", "helpers", "lab"]  # what `make lab` runs
TRAINING = {"n_epochs": 4, "batch_size": 8, "image_size": 64, "augmentation": 0}
DASK_TAB = "li.lm-TabBar-tab[data-id='dask-dashboard-launcher']"
# what the outputs must show, so many at least, and say
SHOWN = {
    "01_set_up_snowflake": {"pictures": 1},
    "02_train_model": {"pictures": 2, "bars": 1},
    "03_run_inference": {"bars": 1},
    # no picture of near-duplicates or doubtful labels, of which these images have none
    "04_review_results": {"pictures": 7, "controls": 4},
    "05_write_back": {},
    "06_clean_up": {},
}
SAID = {
    "01_set_up_snowflake": ["Connected to the local stand-in", "36 added", "12 added"],
    "02_train_model": [
        "36 images, classes: hat",
        "epoch 4/4",
        "left, held back",
        "model_trained.pt: efficientnet_lite0",
    ],
    "03_run_inference": ["LocalCluster", "Connection method", "12/12", "No image failed."],
    "04_review_results": ["accuracy_95", "report.html", "true class"],
    "05_write_back": ["12 predictions, 12 staged: 12 updated", "nothing to change"],
    "06_clean_up": ["12 rows in", "Database CLOTHING is dropped.", "still exists: False"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reader's machine on which nothing has run yet."""
    dashboard = f"127.0.0.1:{free_port()}"  # 8787 may be taken on a busy machine
    folder = tmp_path_factory.mktemp("home")
    with readers_machine(folder, train=12, test=4, TUTORIAL_DASHBOARD=dashboard) as home:
        images = {"images": str(home / "garments")}
        copy_notebooks(home, {"01_set_up_snowflake": images, "02_train_model": TRAINING})
        # as a reader's own settings, which go before the project's
        settings = home / ".jupyter" / "settings"
        whole = {"windowingMode": "none"}  # cells out of sight stay in the page
        write_settings(settings / "@jupyterlab" / "notebook-extension", "tracker", whole)
        panel = {"defaultURL": f"http://{dashboard}"}
        write_settings(settings / "dask-labextension", "plugin", panel)
        yield home


def write_settings(folder: Path, plugin: str, values: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def lab(home):
    """What `make lab` starts, on a copy of the notebooks with small data."""
    with running_lab(home, MAKE_LAB, {}) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def open_notebook(browser, lab):
    """Opens notebooks, each in a page of its own; pages and kernels end with the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield lambda name: LabPage(context.new_page(), lab, name)
    context.close()
    lab.close_kernels()


@pytest.fixture
def prepared(home):
    """The state that notebooks 01 and 02 leave, whichever tests ran before."""
    connection = connect("local")
    names = [row[1] for row in execute(connection, "show databases")]
    connection.close()
    if "CLOTHING" not in names:
        parameters = {"backend": "local", "images": str(home / "garments")}
        run_notebook("01_set_up_snowflake", home / "prepared", parameters)
    if not config.trained_model().exists():
        run_notebook("02_train_model", home / "prepared", {"backend": "local"} | TRAINING)


def test_lab_opens_on_the_first_notebook(browser, lab, home):
    assert standin.status(home / ".sandbox"), "the stand-in is not running"
    page = browser.new_page()
    page.goto(f"{lab.address}/?token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-MarkdownCell h1", timeout=120_000)
    assert "Set up Snowflake" in page.locator(".jp-NotebookPanel h1").first.inner_text()
    assert page.locator("li.lm-TabBar-tab[title^='Table of Contents']").count() == 1
    page.close()
    lab.close_kernels()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_shows_what_the_notebook_promises(open_notebook, name):
    notebook = open_notebook(name)
    notebook.run_all()
    shown = notebook.shown()
    notebook.keep_screenshot(f"lab-{name}")
    assert shown["drawings"] >= 1, "the picture at the top is missing"
    for kind, n in SHOWN[name].items():
        assert shown[kind] >= n, shown
    said = shown["text"].replace("\u2007", " ")
    assert not [text for text in SAID[name] if text not in said], said
    if name == "02_train_model":  # its bar is seen as one, with the time that is left beside it
        bar = notebook.page.locator(".widget-hprogress").last
        assert bar.bounding_box()["width"] >= 100


def test_stepping_through_inference_connects_the_dask_panel(open_notebook, prepared):
    notebook = open_notebook("03_run_inference")
    notebook.begin_stepping()
    n_cells = notebook.page.locator(f"{PANEL} .jp-Cell").count()
    for _ in range(n_cells):
        notebook.step()
        if "loaded_models(client)" in notebook.last_run():
            connect_dask_panel(notebook.page)
            keep_screenshot(notebook.page, "lab-dask-panel")
            notebook.page.locator(DASK_TAB).click()  # fold it again
    numbers = [cell["number"] for cell in notebook.cells() if cell["source"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "No image failed." in notebook.shown()["text"]


def connect_dask_panel(page: Page) -> None:
    """The panel finds the cluster by itself, and one of its plots opens beside the notebook."""
    page.locator(DASK_TAB).click()
    page.locator("#dask-dashboard-launcher button:has-text('Task Stream'):enabled").click()
    frame = page.frame_locator("iframe[src*='individual-task-stream']")
    frame.locator(".bk-Figure, .bk-GridBox, [class*='bk-']").first.wait_for()
    page.locator("li.lm-TabBar-tab[title*='03_run_inference.ipynb']").click()


def test_kernel_restart_in_the_middle_loses_nothing(open_notebook, prepared, lab):
    notebook = open_notebook("03_run_inference")
    notebook.begin_stepping()
    while "= start_cluster(" not in notebook.last_run():
        notebook.step()
    assert workers(lab.process), "the cluster has no processes to lose"
    notebook.restart_kernel()
    notebook.run_all()
    assert "No image failed." in notebook.shown()["text"]
    gone_within(30, lambda: workers(lab.process))


def workers(process: Popen) -> list[psutil.Process]:
    """The Dask processes below a process."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def gone_within(seconds: float, remaining: Callable[[], list]) -> None:
    """Fails if some still remain after so many seconds."""
    deadline = time.monotonic() + seconds
    left = remaining()
    while left:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.2)
        left = remaining()


def test_planted_error_is_noticed(open_notebook, home):
    planted = home / "notebooks" / "planted.ipynb"
    cells = [new_code_cell("1 + 1"), new_code_cell("int('planted')"), new_code_cell("2 + 2")]
    write_notebook(planted, cells)
    with pytest.raises(CellError, match=r"invalid literal.*planted"):
        open_notebook("planted").run_all(timeout_s=60)


def write_notebook(path: Path, cells: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)


CLUSTER = """\
from helpers.cluster.start import start_cluster
from helpers.snowflake.connection import connect
connection = connect("local")
client = start_cluster("local", 1)
"ready" if connection else None"""


@pytest.mark.parametrize("command", [MAKE_LAB, lab_command([])], ids=["make lab", "jupyter lab"])
def test_ctrl_c_stops_all_that_was_started(browser, tmp_path, command):
    """With `make lab` also the stand-in; the one that a plain JupyterLab started goes on."""
    root = tmp_path / ".sandbox"
    environment = {
        "TUTORIAL_HOME": str(tmp_path),
        "TUTORIAL_SANDBOX": str(root),
        "TUTORIAL_BACKEND": "local",
    }
    write_notebook(tmp_path / "notebooks" / "cluster.ipynb", [new_code_cell(CLUSTER)])
    try:
        with running_lab(tmp_path, command, environment) as lab:
            assert (standin.status(root) is not None) == (command is MAKE_LAB)
            notebook = LabPage(browser.new_page(), lab, "cluster")
            notebook.run_all()
            assert "ready" in notebook.shown()["text"] and workers(lab.process)
            server = standin.status(root)
            assert server
            children = psutil.Process(lab.process.pid).children(recursive=True)
            started = [process for process in children if process.pid != server.pid]
            status = end(lab.process)
        assert status == 0
        gone_within(30, lambda: [process for process in started if process.is_running()])
        assert (standin.status(root) is None) == (command is MAKE_LAB)
    finally:
        standin.stop(root)
