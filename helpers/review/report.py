"""What a review leaves behind: the images it shows, the files in runs/<run>/review/, and a browser."""

import html
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from IPython.display import display
from torch import Tensor

from helpers.files import written_whole
from helpers.images import Downloader, ImageError, decode, shrink
from helpers.plots import Picture, gallery

SIDE = 320  # pixels that a shown image keeps
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title>'
    "<style>body{{font:16px sans-serif;max-width:70em;margin:auto}}td,th{{padding:.2em .7em}}</style>"
    "<h1>{0}</h1>"
)


def fetch(sign: Callable[[list[str]], list[str]], paths: Iterable[str]) -> dict[str, Tensor]:
    """(3, H, W) uint8 by path, through the signed URLs of sign(paths); images that cannot be read are left out."""
    paths, download = list(dict.fromkeys(paths)), Downloader()

    def read(url: str) -> Tensor | None:
        try:
            return shrink(decode(download(url)[0]), SIDE)
        except ImageError:  # shown as a gap
            return None

    with ThreadPoolExecutor(8) as pool:
        images = pool.map(read, sign(paths) if paths else [])
        return {path: image for path, image in zip(paths, images) if image is not None}


class Report:
    """Saves each picture as PNG with its data as CSV, each table as CSV, and all of it as one HTML file."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.parts = folder, [HEAD.format(html.escape(title))]
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self, name: str, shown: Picture | pd.DataFrame, *sentences: str
    ) -> Picture | pd.DataFrame:
        """Save under `name`, put it into the report with sentences below it, and return it for the notebook to show."""
        self.parts.append(f"<h2>{html.escape(name.replace('_', ' ').capitalize())}</h2>")
        if isinstance(shown, Picture):
            self.parts.append(shown.save(self.folder, name).html())
        else:
            with written_whole(self.folder / f"{name}.csv") as unfinished:
                shown.to_csv(unfinished, index=False)
            self.parts.append(
                shown.to_html(border=0, index=False, float_format="{:.3f}".format, na_rep="–")
            )
        self.parts += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences]
        return shown

    def write(self) -> Path:
        path = self.folder / "report.html"
        with written_whole(path) as unfinished:
            unfinished.write_text("\n".join(self.parts), encoding="utf-8")
        return path


def browser(
    table: pd.DataFrame, sign: Callable[[list[str]], list[str]], per_page: int = 12
) -> widgets.Widget:
    """Shows a page of the images and returns controls to choose others; fetches only what it shows."""
    table, names = (
        table.sort_values("confidence", ascending=False),
        sorted({*table.label, *table.type}),
    )
    label = widgets.Dropdown(options=["any", *names], description="true class")
    called = widgets.Dropdown(options=["any", *names], description="predicted")
    confidence = widgets.FloatRangeSlider(
        value=(0, 1), min=0, max=1, step=0.01, description="confidence"
    )
    page, count = widgets.BoundedIntText(1, min=1, max=1, description="page"), widgets.Label()

    def picture(*_) -> Picture:
        rows = table[table.confidence.between(*confidence.value)]
        rows = rows[rows.label.isin(names if label.value == "any" else [label.value])]
        rows = rows[rows.type.isin(names if called.value == "any" else [called.value])]
        page.max = max(1, -(-len(rows) // per_page))
        count.value = f"of {page.max}; {len(rows)} images"
        rows = rows.iloc[(page.value - 1) * per_page : page.value * per_page]
        return gallery(rows, fetch(sign, rows.relative_path), columns=6)

    handle = display(picture(), display_id=True)
    for control in (label, called, confidence, page):
        control.observe(lambda change: handle.update(picture()), "value")
    return widgets.VBox([widgets.HBox([label, called]), widgets.HBox([confidence, page, count])])
