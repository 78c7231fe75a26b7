"""What a review shows and leaves behind: images, files in runs/<run>/review/, and a browser."""

import base64
import csv
import html
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import display
from torch import Tensor

from helpers.files import written_whole
from helpers.images import Downloader, ImageError, decode, shrink
from helpers.plots import Picture, image_grid
from helpers.snowflake.connection import connect
from helpers.snowflake.listing import sign_urls

SIDE = 320  # pixels that a shown image keeps
THREADS = 8  # downloads at a time
# what makes a spreadsheet compute a cell, as ASCII and in full width
FORMULA = r"^(?=[=+\-@\t\r＝＋－＠])"
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
    download = Downloader()

    def read(url: str) -> Tensor | None:
        try:
            return shrink(decode(download(url)[0]), SIDE)
        except ImageError:  # shown as a gap
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(read, sign(paths)))
    return {path: image for path, image in zip(paths, images) if image is not None}


def sign_anew(backend: str, database: str, stage: str, paths: list[str]) -> list[str]:
    """Signed URLs by a connection of their own, when the notebook's is closed."""
    with connect(backend, database) as own:
        return sign_urls(own, stage, paths)


def caption(row: Any) -> str:
    """Right or wrong, confidence, predicted and true class, and the end of the path, a line each.

    row: of a table of predictions, as its `itertuples` gives it.
    """
    verdict = "✓ right" if row.right else "✗ wrong"
    return (
        f"{verdict}, {row.confidence:.2f}\n"
        f"predicted {row.type}\n"
        f"true {row.label}\n"
        f"…{row.relative_path[-18:]}"
    )


def gallery(
    table: pd.DataFrame, images: dict[str, Tensor], columns: int = 4, by_class: bool = False
) -> Picture:
    """The table's images (by relative_path in `images`) under their captions.

    by_class starts a row for each label, with at most `columns` of its images.
    """
    rows: list[Any] = list(table.itertuples())
    if by_class:
        table = table.groupby("label").head(columns).sort_values("label", kind="stable")
        rows = []
        for _, group in table.groupby("label"):
            rows += [*group.itertuples(), *[None] * (columns - len(group))]
    picture = image_grid(
        [images.get(row.relative_path) if row else None for row in rows],
        [caption(row) if row else "" for row in rows],
        [bool(row and row.right) for row in rows],
        columns,
    )
    return Picture(picture.figure, picture.alt, table.drop(columns="phash"))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table for pandas and for spreadsheets, whole or not at all.

    A text or name of a column that a spreadsheet would compute has an apostrophe before it.
    """
    safe = table.replace(FORMULA, "'", regex=True)
    names = [re.sub(FORMULA, "'", name) for name in table]
    with written_whole(path) as unfinished:
        # quoted, a text may hold a lone carriage return
        safe.to_csv(unfinished, index=False, header=names, quoting=csv.QUOTE_NONNUMERIC)


class Report:
    """Saves pictures as PNG, their data and tables as CSV, and all of it as one HTML file."""

    def __init__(self, folder: Path, title: str):
        self.folder = folder
        self.parts = [HEAD.format(html.escape(title))]

    def add(
        self, name: str, shown: Picture | pd.DataFrame | None, *sentences: str
    ) -> Picture | pd.DataFrame | None:
        """Save under `name` and put into the report, with sentences below.

        Returns what it was given, for the notebook to show; None where there is nothing to show.
        """
        self.parts.append(f"<h2>{name.replace('_', ' ').capitalize()}</h2>")
        if isinstance(shown, Picture):
            png = shown.png()
            with written_whole(self.folder / f"{name}.png") as unfinished:
                unfinished.write_bytes(png)
            write_csv(shown.data, self.folder / f"{name}.csv")
            source = base64.b64encode(png).decode()
            self.parts.append(
                f'<img src="data:image/png;base64,{source}" alt="{html.escape(shown.alt)}" '
                'style="max-width:100%">'
            )
        elif shown is not None:
            write_csv(shown, self.folder / f"{name}.csv")
            table = shown.to_html(border=0, index=False, float_format="{:.3f}".format, na_rep="–")
            self.parts.append(table)
        self.parts += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences]
        return shown

    def write(self) -> Path:
        """The report as one file without links, so that it can be sent as it is."""
        path = self.folder / "report.html"
        with written_whole(path) as unfinished:
            unfinished.write_text("\n".join(self.parts), "utf-8", "backslashreplace")
        return path


def browser(
    table: pd.DataFrame, sign: Callable[[list[str]], list[str]], per_page: int = 12
) -> widgets.VBox:
    """Shows a page of the images and returns controls to choose others.

    Fetches only what it shows; the surest predictions come first.
    """
    table = table.sort_values("confidence", ascending=False)
    names = sorted({*table.label, *table.type})
    options = [("any", None), *((name, name) for name in names)]  # a class may be named "any"
    label = widgets.Dropdown(options=options, description="true class")
    called = widgets.Dropdown(options=options, description="predicted")
    confidence = widgets.FloatRangeSlider(
        value=(0, 1), min=0, max=1, step=0.01, description="confidence"
    )
    page = widgets.BoundedIntText(1, min=1, max=1, description="page")
    count = widgets.HTML()  # a Label would take what is between dollars for a formula

    def picture() -> Picture:
        rows = table[table.confidence.between(*confidence.value)]
        rows = rows[rows.label.isin(names if label.value is None else [label.value])]
        rows = rows[rows.type.isin(names if called.value is None else [called.value])]
        page.max = max(1, -(-len(rows) // per_page))  # brings page.value back into range
        count.value = f"of {page.max}; {len(rows)} images"
        rows = rows.iloc[(page.value - 1) * per_page :].head(per_page)
        return gallery(rows, fetch(sign, rows.relative_path), columns=6)

    def show(_: dict) -> None:
        count.value = "fetching …"
        try:
            handle.update(picture())
        except Exception as error:  # what is raised here would be in a log that nobody sees
            count.value = html.escape(f"cannot be shown: {error}")

    handle = display(picture(), display_id=True)
    for control in (label, called, confidence, page):
        control.observe(show, "value")
    return widgets.VBox([widgets.HBox([label, called]), widgets.HBox([confidence, page, count])])
