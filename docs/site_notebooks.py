"""Executed notebooks as pages.

Outputs that need a kernel become text, pictures get their alt text, paths are cut.
"""

import base64
import io
import re
from html import unescape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATES = "application/vnd.jupyter.widget-state+json"
LARGE = 150_000  # bytes; larger pictures become JPEG
NO_KERNEL = "These controls need a running kernel: open the notebook in JupyterLab."


def page(path: Path, folders: list[Path]) -> NotebookNode:
    """The executed notebook at `path` without widgets and the names of `folders`, where it ran.

    Raises ValueError if a cell was not run or failed, and if a picture has no alt text.
    """
    notebook = nbformat.read(path, as_version=4)
    widgets = notebook.metadata.pop("widgets", {})
    states = widgets.get(WIDGET_STATES, {}).get("state", {})
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        fault = _fault(cell)
        if fault:
            raise ValueError(
                f"{path}, cell {number}: {fault}. "
                "Pages are made from a finished run: make tutorial."
            )
        for folder in folders:  # papermill writes the parameters into a cell
            cell.source = cell.source.replace(str(folder), "…")
        cell.outputs = [_static(output, states, folders) for output in cell.outputs]
        _describe_pictures(cell, f"{path}, cell {number}")
    return notebook


def _fault(cell: NotebookNode) -> str:
    """Why the cell cannot be shown; "" if it can."""
    errors = [output.ename for output in cell.outputs if output.output_type == "error"]
    if errors:
        return errors[0]
    if cell.source and not cell.execution_count:
        return "it was not run"
    return ""


def _static(output: NotebookNode, states: dict, folders: list[Path]) -> NotebookNode:
    """The output without what only a kernel or a reader of this machine's disk can follow."""
    data = output.get("data", output)
    if WIDGET in data:
        data["text/plain"] = widget_text(data.pop(WIDGET)["model_id"], states)
    for kind in {"text", "text/plain", "text/html"} & data.keys():
        for folder in folders:
            data[kind] = data[kind].replace(str(folder), "…")
    if "text/html" in data:
        data["text/html"] = _quiet(data["text/html"])
    n_bytes = len(data.get("image/png", "")) * 3 // 4  # base64 has 4 characters for 3 bytes
    if n_bytes > LARGE:
        data["image/jpeg"] = _jpeg(data.pop("image/png"))
        output.metadata["image/jpeg"] = output.metadata.pop("image/png", {})
    return output


def widget_text(model: str, states: dict) -> str:
    """What a progress bar says in the end; that others need a kernel."""
    state = states.get(model, {}).get("state", {})
    parts = [states[child.removeprefix("IPY_MODEL_")] for child in state.get("children", [])]
    if not any(part["model_name"] == "FloatProgressModel" for part in parts):
        return NO_KERNEL
    said = [part["state"]["value"] for part in parts if part["model_name"] == "HTMLModel"]
    return unescape(" ".join(said)).replace("\u2007", " ")  # figure spaces do not wrap


def _quiet(text: str) -> str:
    """HTML without headings, which would enter the page's outline.

    And without links and buttons of a cluster that is gone.
    """
    text = re.sub(r"<(/?)h[1-6]\b", r"<\1strong", text)
    text = re.sub(r"<button\b.*?</button>", "", text, flags=re.DOTALL)
    text = re.sub(r'<a href="https?://(?:127\.0\.0\.1|localhost)[^>]*>(.*?)</a>', r"\1", text)
    return re.sub(r"(?<![-\w])color: #9D9D9D;?", "", text)  # Dask's grey is too faint to read


def _jpeg(png: str) -> str:
    """The picture as JPEG; both in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _describe_pictures(cell: NotebookNode, where: str) -> None:
    """myst-nb takes alt texts from the cell only, so those of its outputs move there."""
    texts = []
    for output in cell.outputs:
        kinds = [kind for kind in output.get("data", {}) if "image/" in kind]
        texts += [output.metadata.get(kind, {}).get("alt") for kind in kinds]
    if not all(texts):
        raise ValueError(f"{where}: a picture has no alt text. Show a helpers.plots.Picture.")
    if texts:
        cell.metadata["mystnb"] = {"image": {"alt": " ".join(texts)}}
