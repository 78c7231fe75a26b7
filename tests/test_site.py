"""What the pages make of an executed notebook, and of figures that are there or missing."""

import base64
import importlib.util
import io
import json
import re
import sys
from types import ModuleType

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from helpers.config import PROJECT_ROOT


def load(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, PROJECT_ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


site_notebooks = load("site_notebooks")
site_figures = load("site_figures")


def page(tmp_path, *outputs, states: dict | None = None, count: int | None = 1):
    """The one cell of a notebook with these outputs, as the pages show it."""
    notebook = new_notebook(
        cells=[new_code_cell("1", execution_count=count, outputs=list(outputs))]
    )
    if states:
        notebook.metadata["widgets"] = {
            "application/vnd.jupyter.widget-state+json": {"state": states}
        }
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    shown = site_notebooks.page(tmp_path / "executed.ipynb", [tmp_path])
    assert "widgets" not in shown.metadata
    return shown.cells[0]


def png(size: int) -> str:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 90).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_failed_or_unrun_cell_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"cell 0: ValueError\. Pages are made from a finished run"
    ):
        page(tmp_path, new_output("error", ename="ValueError", evalue="no"))
    with pytest.raises(ValueError, match="cell 0: it was not run"):
        page(tmp_path, count=None)


def test_progress_bar_becomes_its_last_words_and_controls_say_what_they_need(tmp_path):
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "box"},
        "text/plain": "  0%|",
    }
    html = {"model_name": "HTMLModel"}
    bar = {"model_name": "FloatProgressModel", "state": {}}
    states = {
        "box": {
            "model_name": "HBoxModel",
            "state": {"children": ["IPY_MODEL_left", "IPY_MODEL_bar", "IPY_MODEL_right"]},
        },
        "left": html | {"state": {"value": "epoch 2/2:\u2007100%"}},
        "bar": bar,
        "right": html | {"state": {"value": "9/9 [00:01&lt;00:00]"}},
    }
    cell = page(tmp_path, new_output("display_data", widget), states=states)
    assert cell.outputs[0].data == {"text/plain": "epoch 2/2: 100% 9/9 [00:01<00:00]"}
    controls = {"box": states["box"] | {"state": {}}}
    cell = page(tmp_path, new_output("display_data", widget), states=controls)
    assert "need a running kernel" in cell.outputs[0].data["text/plain"]


def test_folders_and_dead_links_are_cut_and_headings_leave_the_outline_alone(tmp_path):
    link = '<a href="http://127.0.0.1:8787/status" target="_blank">8787</a>'
    html = f'<h3 style="x">Client</h3>{link}<button>Go</button>'
    cell = page(
        tmp_path,
        new_output("stream", name="stdout", text=f"{tmp_path}/runs/1"),
        new_output("execute_result", {"text/html": html, "text/plain": str(tmp_path)}),
    )
    assert cell.outputs[0].text == "…/runs/1" and cell.outputs[1].data["text/plain"] == "…"
    assert cell.outputs[1].data["text/html"] == '<strong style="x">Client</strong>8787'


def test_picture_needs_a_text_and_is_made_smaller_only_when_large(tmp_path):
    with pytest.raises(ValueError, match="cell 0: a picture has no alt text"):
        page(tmp_path, new_output("display_data", {"image/png": png(8)}))
    described = {"image/png": {"alt": "Noise in grey."}}
    small = page(tmp_path, new_output("display_data", {"image/png": png(8)}, metadata=described))
    large = page(tmp_path, new_output("display_data", {"image/png": png(600)}, metadata=described))
    assert set(small.outputs[0].data) == {"image/png"}
    assert set(large.outputs[0].data) == {"image/jpeg"}
    assert len(large.outputs[0].data["image/jpeg"]) < len(png(600))
    assert small.metadata.mystnb.image.alt == large.metadata.mystnb.image.alt == "Noise in grey."


def test_figures_come_from_the_files_and_missing_ones_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    run = tmp_path / "runs" / "monday"
    content = {
        "run": {"data_set": "drawn", "images": {"train": 7, "test": 3}},
        "summary": {
            "predictions": 3,
            "failures": 0,
            "rows_written_back": 3,
            "seconds": {"total": 1.5},
        },
        "review": {
            "n": 3,
            "accuracy": 2 / 3,
            "accuracy_95": [0.2, 0.9],
            "top3": 1,
            "macro_f1": 0.5,
            "ece": 0.1,
            "baseline": {"accuracy": 1 / 3},
        },
    }
    run.mkdir(parents=True)
    for name, facts in content.items():
        (run / f"{name}.json").write_text(json.dumps(facts))
    bench = tmp_path / "runs" / "bench"
    bench.mkdir()
    (bench / "train.json").write_text('{"ceiling": 12.5, "rounds": {"first": [1, 2]}}')
    (bench / "scale.json").write_text('{"1000": {"rows_per_s": 9, "rounds": [8, 9]}}')
    text = site_figures.figures(run)
    assert "| accuracy | 0.667 (95 % interval 0.200 to 0.900, n = 3) |" in text
    assert "| total | 1.5 |" in text
    assert "| ceiling | 12.5 |" in text and "| rounds: first | [1, 2] |" in text
    assert "| rows | rows_per_s |" in text and "| 1000 | 9 |" in text
    assert text.count("Not measured") == 2 and "`make bench-inference` measures it" in text


def test_every_module_is_in_its_room_and_rooms_are_in_reading_order():
    api = site_figures.api(PROJECT_ROOT / "helpers")
    rooms = re.findall(r"^## helpers\.?(.*)$", api, re.M)
    there = {path.parent.name for path in PROJECT_ROOT.glob("helpers/*/__init__.py")}
    assert rooms == ["", "snowflake", "training", "cluster", "inference", "review", "commands"]
    assert set(rooms) == there | {""}
    room_of = {}
    for section in re.split(r"^## ", api, flags=re.M)[1:]:
        for module in re.findall(r"automodule:: (\S+)\n", section):
            assert module not in room_of, module
            room_of[module] = section.partition("\n")[0]
    for path in PROJECT_ROOT.glob("helpers/**/*.py"):
        folders = path.relative_to(PROJECT_ROOT).parent.parts
        if path.name == "__main__.py":
            continue
        module = ".".join(folders if path.name == "__init__.py" else [*folders, path.stem])
        assert room_of.pop(module) == ".".join(folders[:2]), module
    assert not room_of, "these are no modules"


def test_every_sql_file_has_its_place():
    sql = site_figures.sql_files(PROJECT_ROOT / "sql")
    assert sql.count("literalinclude") == len(list((PROJECT_ROOT / "sql").glob("*.sql"))) > 0


def test_docstrings_keep_their_code_and_their_stars():
    as_rst = load("conf").as_rst
    assert as_rst("`name`_FAILURES of train/*.jpg") == "\\ ``name``\\ \\_FAILURES of train/\\*.jpg"
    with pytest.raises(ValueError, match="A backtick has no partner"):
        as_rst("`name")
