"""What a review shows and leaves behind: images, files in runs/<run>/review/, and a browser."""

import base64
import html
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import display
from snowflake.connector import SnowflakeConnection
from torch import Tensor

from helpers.files import written_whole
from helpers.images import Downloader, ImageError, decode, shrink
from helpers.plots import Picture
from helpers.review.galleries import gallery
from helpers.snowflake.connection import backend_of, connect
from helpers.snowflake.listing import sign_urls

SIDE = 320  # pixels that a shown image keeps
THREADS = 8  # downloads at a time
ANY = "any"  # class, in the browser
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title>'
    "<style>body{{font:16px sans-serif;max-width:70em;margin:auto}}"
    "td,th{{padding:.2em .7em}}</style>"
    "<h1>{0}</h1>"
)


def fetch(sign: Callable[[list[str]], list[str]], paths: Iterable[str]) -> dict[str, Tensor]:
    """(3, H, W) uint8 by path, through the signed URLs of sign(paths).

    Images that cannot be read are left out.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        return {}
    download = Downloader()

    def read(url: str) -> Tensor | None:
        try:
            data, _ = download(url)
            return shrink(decode(data), SIDE)
        except ImageError:  # shown as a gap
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(read, sign(paths)))
    return {path: image for path, image in zip(paths, images) if image is not None}


def _element(picture: Picture) -> str:
    """An image element that holds the picture itself."""
    source = "data:image/png;base64," + base64.b64encode(picture.png()).decode()
    return f'<img src="{source}" alt="{html.escape(picture.alt)}" style="max-width:100%">'


def signing_anew(connection: SnowflakeConnection, stage: str) -> Callable[[list[str]], list[str]]:
    """Paths to signed URLs, on a connection like this one that is opened for each call.

    So it goes on working when the notebook's own connection is closed.
    """
    backend = backend_of(connection)
    database = connection.database or ""

    def sign(paths: list[str]) -> list[str]:
        with connect(backend, database) as own:
            return sign_urls(own, stage, paths)

    return sign


def rounded(figures: dict) -> pd.DataFrame:
    """A row a figure, with its value as text: each number in it to three digits.

    >>> rounded({"n": 20, "accuracy_95": [0.58397, 0.91933]}).value.tolist()
    ['20', '[0.584, 0.919]']
    """
    values = [str(_round(value)) for value in figures.values()]
    return pd.DataFrame({"figure": list(figures), "value": values})


def _round(value: Any) -> Any:
    """Three digits for each float, however deep it lies in lists and dicts."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [_round(item) for item in value]
    if isinstance(value, dict):
        return {name: _round(item) for name, item in value.items()}
    return value


class Report:
    """Saves pictures as PNG, their data and tables as CSV, and all of it as one HTML file."""

    def __init__(self, folder: Path, title: str):
        self.folder = folder
        self.parts = [HEAD.format(html.escape(title))]
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self, name: str, shown: Picture | pd.DataFrame | None, *sentences: str
    ) -> Picture | pd.DataFrame | None:
        """Save under `name` and put into the report, with sentences below.

        Returns what it was given, for the notebook to show; None where there is nothing to show.
        """
        self.parts.append(f"<h2>{html.escape(name.replace('_', ' ').capitalize())}</h2>")
        if isinstance(shown, Picture):
            self.parts.append(_element(shown.save(self.folder, name)))
        elif shown is not None:
            with written_whole(self.folder / f"{name}.csv") as unfinished:
                shown.to_csv(unfinished, index=False)
            digits = "{:.3f}".format
            self.parts.append(shown.to_html(border=0, index=False, float_format=digits, na_rep="–"))
        self.parts += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences]
        return shown

    def write(self) -> Path:
        """The report as one file without links, so that it can be sent as it is."""
        path = self.folder / "report.html"
        with written_whole(path) as unfinished:
            unfinished.write_text("\n".join(self.parts), encoding="utf-8")
        return path


def browser(
    table: pd.DataFrame, sign: Callable[[list[str]], list[str]], per_page: int = 12
) -> widgets.VBox:
    """Shows a page of the images and returns controls to choose others.

    Fetches only what it shows; the surest predictions come first.
    """
    table = table.sort_values("confidence", ascending=False)
    names = [ANY, *sorted({*table.label, *table.type})]
    label = widgets.Dropdown(options=names, description="true class")
    called = widgets.Dropdown(options=names, description="predicted")
    confidence = widgets.FloatRangeSlider(
        value=(0, 1), min=0, max=1, step=0.01, description="confidence"
    )
    page = widgets.BoundedIntText(1, min=1, max=1, description="page")
    count = widgets.Label()

    def picture() -> Picture:
        rows = table[table.confidence.between(*confidence.value)]
        if label.value != ANY:
            rows = rows[rows.label == label.value]
        if called.value != ANY:
            rows = rows[rows.type == called.value]
        page.max = max(1, math.ceil(len(rows) / per_page))  # brings page.value back into range
        count.value = f"of {page.max}; {len(rows)} images"
        start = (page.value - 1) * per_page
        rows = rows.iloc[start : start + per_page]
        return gallery(rows, fetch(sign, rows.relative_path), columns=6)

    def show(_: dict) -> None:
        count.value = "fetching …"
        try:
            handle.update(picture())
        except Exception as error:  # what is raised here would be in a log that nobody sees
            count.value = f"cannot be shown: {error}"

    handle = display(picture(), display_id=True)
    for control in (label, called, confidence, page):
        control.observe(show, "value")
    return widgets.VBox([widgets.HBox([label, called]), widgets.HBox([confidence, page, count])])
