"""The pictures: drawn from the data they are saved with, in any number of classes and images."""

import base64
import csv
import http.server
import io
import re
import threading
import warnings
from collections.abc import Callable, Generator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from PIL import Image
from scenery.drawing import draw_folder

from helpers import plots
from helpers.review import diagrams, figures
from helpers.review.figures import rounded
from helpers.review.report import Report, browser, caption, fetch, gallery, write_csv

CLASSES = ["hat", "shirt", "t-shirt"]


def predictions_of(paths: list[str], classes: list[str] = CLASSES) -> figures.Predictions:
    """Predictions with random logits; each label is the path's folder."""
    logits = np.random.default_rng(0).normal(0, 2, (len(paths), len(classes))).astype(np.float32)
    table = pd.DataFrame({"relative_path": paths, "label": [path.split("/")[0] for path in paths]})
    table["type"] = [classes[i] for i in logits.argmax(1)] if paths else []
    predictions = figures.Predictions(table, logits, classes, 0.8)
    table["confidence"] = predictions.probabilities().max(1, initial=0)
    table["phash"] = "0" * 16
    table["right"] = table.label == table.type
    return predictions


class Served(NamedTuple):
    """A folder of images served over HTTP."""

    paths: list[str]
    sign: Callable[[list[str]], list[str]]
    asked: list[str]  # the paths that were fetched


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served, None, None]:
    folder = draw_folder(tmp_path_factory.mktemp("served"), n=10)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            asked.append(self.path.lstrip("/"))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def sign(paths: list[str]) -> list[str]:
        return [f"http://127.0.0.1:{server.server_port}/{path}" for path in paths]

    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    yield Served(paths, sign, asked)
    server.shutdown()


def size(picture: plots.Picture) -> tuple[int, int]:
    return Image.open(io.BytesIO(picture.png())).size


def images(n: int) -> list[torch.Tensor]:
    return [torch.full((3, 20, 30), 10 * i, dtype=torch.uint8) for i in range(n)]


def test_confusion_matrix_writes_counts_and_colours_shares():
    counts = pd.DataFrame([[8, 2], [0, 5]], ["hat", "shirt"], ["hat", "shirt"])
    picture = diagrams.confusion_matrix(counts, "test")
    axes = picture.figure.axes[0]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.8, 0.2], [0.0, 1.0]]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "5"]
    assert "15 images, 13 of them" in picture.alt


def test_learning_curves_take_the_history_that_fit_returns():
    row = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.2, "validation_accuracy": 0.4}
    better = row | {"validation_accuracy": 0.6}
    picture = plots.learning_curves([{"epoch": 1} | row, {"epoch": 2} | better])
    assert "2 epochs" in picture.alt and "0.600" in picture.alt
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in picture.figure.axes)
    nothing = {"validation_loss": float("nan"), "validation_accuracy": float("nan")}
    assert size(plots.learning_curves([{"epoch": 1} | row | nothing]))[0] > 500


def test_a_grid_may_lack_an_image():
    dark, bright = images(2)
    picture = plots.image_grid([dark, bright, None, bright], ["a", "twin of a", "b", "of b"])
    assert [ax.get_title() for ax in picture.figure.axes] == ["a", "twin of a", "b", "of b"]
    assert [len(ax.images) for ax in picture.figure.axes] == [1, 1, 0, 1]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_image_grid_shows_each_image_under_its_title(n):
    picture = plots.image_grid(images(n), [f"image {i}" for i in range(n)], columns=3)
    shown = [axes for axes in picture.figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [f"image {i}" for i in range(n)]
    assert picture.alt.startswith(f"{n} images") and len(picture.data) == n
    assert size(picture)[0] > 100


def test_gallery_says_right_and_wrong_in_words_and_starts_a_row_for_each_class():
    table = predictions_of(["hat/1.jpg", "shirt/2.jpg", "shirt/3.jpg"]).table
    shown = dict(zip(table.relative_path, images(3)))
    picture = gallery(table, shown, columns=2, by_class=True)
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert [title != "" for title in titles] == [True, False, True, True]
    for right, row in zip(table.right, table.itertuples()):
        assert ("✓ right" if right else "✗ wrong") in caption(row)
    for at, path in ((0, "hat/1.jpg"), (2, "shirt/2.jpg"), (3, "shirt/3.jpg")):
        assert path in titles[at]
    assert picture.data.relative_path.tolist() == table.relative_path.tolist()


@pytest.mark.parametrize("n, classes", [(0, CLASSES), (1, CLASSES), (10, ["hat"]), (60, CLASSES)])
def test_charts_are_drawn_for_any_number_of_images_and_classes(n, classes):
    paths = [f"{classes[i % len(classes)]}/{i}.jpg" for i in range(n)]
    predictions = predictions_of(paths, classes)
    reliability = diagrams.reliability(predictions)
    coverage = diagrams.coverage_curve(figures.coverage(predictions.table))
    matrix = diagrams.confusion_matrix(figures.confusion(predictions))
    for picture in (reliability, coverage, matrix):
        assert picture.alt and min(size(picture)) > 200
    assert reliability.data.n.sum() == 2 * n
    for axes in reliability.figure.axes + coverage.figure.axes:
        assert axes.get_xlabel() and axes.get_ylabel()


def every_picture() -> list[plots.Picture]:
    predictions = predictions_of([f"{name}/{i}.jpg" for i, name in enumerate(CLASSES * 9)])
    epoch = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.2, "validation_accuracy": 0.4}
    return [
        plots.learning_curves([{"epoch": 1} | epoch, {"epoch": 2} | epoch]),
        plots.image_grid(images(2), ["one", "two"], [True, False]),
        diagrams.confusion_matrix(figures.confusion(predictions)),
        diagrams.reliability(predictions),
        diagrams.coverage_curve(figures.coverage(predictions.table)),
    ]


def test_pictures_leave_the_readers_own_style_as_it_was():
    plt.close(plt.figure())  # matplotlib chooses its backend with the first figure
    before = plt.rcParams.copy()
    for picture in every_picture():
        picture.png()
    assert plt.rcParams.copy() == before


def test_pictures_look_the_same_whatever_the_readers_own_style():
    expected = [picture.png() for picture in every_picture()]
    drawn_before = every_picture()[0]
    with plt.rc_context({"savefig.dpi": 40, "font.size": 30, "axes.spines.top": True}):
        assert drawn_before.png() == expected[0]
        assert [picture.png() for picture in every_picture()] == expected


def test_pictures_do_not_pile_up_as_open_figures():
    plots.image_grid(images(1), ["one"])
    assert plt.get_fignums() == []


def test_report_is_one_file_with_pictures_and_alt_texts_beside_png_and_csv(tmp_path):
    report = Report(tmp_path / "review", "A <title>")
    picture = plots.image_grid(images(2), ['a "quoted" one', "<b>"])
    assert report.add("some_images", picture, "A sentence & more.") is picture
    report.add("a_table", pd.DataFrame({"class": ["<i>"], "n": [3]}))
    text = report.write().read_text()
    (encoded,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="[^"<]+" ', text)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == size(picture)
    for escaped in ("A sentence &amp; more.", "A &lt;title&gt;", "&lt;i&gt;"):
        assert escaped in text
    assert "<b>" not in text
    assert "http" not in text and "src=" not in text.replace('src="data:', "")
    assert sorted(p.name for p in report.folder.iterdir()) == [
        "a_table.csv",
        "report.html",
        "some_images.csv",
        "some_images.png",
    ]
    assert pd.read_csv(report.folder / "some_images.csv").title[0] == 'a "quoted" one'


def test_overview_rounds_each_number_however_deep_it_lies():
    headline = {"n": 20, "ece": 0.00049, "top3": None, "baseline": {"class": "hat", "share": 2 / 3}}
    table = rounded(headline | {"accuracy_95": [0.58397, 1.0]})
    assert dict(zip(table.figure, table.value)) == {
        "n": "20",
        "ece": "0.0",
        "top3": "None",
        "baseline": "{'class': 'hat', 'share': 0.667}",
        "accuracy_95": "[0.584, 1.0]",
    }


def test_fetch_leaves_out_what_cannot_be_read(served):
    path = served.paths[0]
    found = fetch(served.sign, [path, "hat/none.jpg", path])
    assert list(found) == [path] and found[path].shape[0] == 3
    assert fetch(served.sign, []) == {}


def test_browser_shows_its_first_page_and_fetches_only_what_it_shows(served, monkeypatch):
    asked = served.asked
    shown = []

    class Handle:
        update = shown.append

    def display(picture, display_id):
        shown.append(picture)
        return Handle

    monkeypatch.setattr("helpers.review.report.display", display)
    asked.clear()
    controls = browser(predictions_of(served.paths).table, served.sign, per_page=4)
    assert len(set(asked)) == 4 and len(shown[0].data) == 4
    classes, others = controls.children
    label, called = classes.children
    confidence, page, count = others.children
    page.value = 2
    assert len(set(asked)) == 8
    assert not set(shown[1].data.relative_path) & set(shown[0].data.relative_path)
    label.value = "hat"
    assert shown[-1].data.label.eq("hat").all() and "10 images" in count.value
    called.value = "shirt"
    assert shown[-1].data.type.eq("shirt").all()
    confidence.value = (0, 0.01)
    assert shown[-1].data.empty and page.value == 1


def test_browser_says_what_went_wrong(served, monkeypatch):
    class Handle:
        def update(self, picture):
            raise ConnectionError("the stage is gone")

    monkeypatch.setattr("helpers.review.report.display", lambda *_, **__: Handle())
    controls = browser(predictions_of(served.paths).table, served.sign, per_page=4)
    _, page, count = controls.children[1].children
    page.value = 2
    assert count.value == "cannot be shown: the stage is gone"


def test_picture_carries_its_alt_text_into_the_notebook():
    data, metadata = plots.image_grid(images(1), ["one"])._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == "1 images: one."


@pytest.mark.parametrize("name", ["$10-$20", "A$$AP", r"$\x$", "a_b^c%", "<b>&", r"\alpha"])
def test_a_name_is_drawn_as_it_is(name):
    picture = plots.image_grid([None], [name])
    assert picture.png() and name in picture.alt
    if "$" in name:  # each dollar takes its place
        plain = plots.image_grid([None], [name.replace("$", "")])
        assert picture.png() != plain.png()


# as a folder may be called
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)


def hard_names(test: Callable) -> Callable:
    """The test with names of users that mean something to some reader of text."""
    for name in ("A$$AP", "=cmd|'/c calc'!A1", "a\nb", 'say "hi"', "<script>", "服😀"):
        test = example(name)(test)
    return settings(max_examples=25)(given(NAMES)(test))


@hard_names
def test_any_name_is_drawn_without_a_warning_and_kept_in_the_alt_text(name):
    counts = pd.DataFrame([[3]], [name], [name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = plots.image_grid([None], [name])
        assert grid.png() and diagrams.confusion_matrix(counts, "hard names").png()
    assert grid.alt == f"1 images: {name.replace(chr(10), ', ')}."


def test_a_byte_that_is_no_utf8_does_not_stop_a_picture():
    picture = plots.image_grid([None], ["caf\udce9"])  # as Python has a Latin-1 name of a file
    assert picture.png() and picture.alt == "1 images: caf\\udce9."


def test_what_no_font_has_is_drawn_as_its_code_point():
    with plots.in_style():
        drawn = plots.drawable(["hat ß \U0010fffd\udce9", "two\nlines"])
    assert drawn == ["hat ß \\U0010fffd\\udce9", "two\nlines"]


@hard_names
def test_a_csv_gives_any_name_back_and_holds_no_formula(name):
    table = pd.DataFrame({"n": [-1.5, 2], name: [name, "plain"]})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_csv(table, path)
        read = pd.read_csv(path, keep_default_na=False, dtype={1: str})
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    assert str(read.iloc[0, 1]) in (name, f"'{name}")
    assert read.n.tolist() == [-1.5, 2] and read.shape == (2, 2)
    texts = [rows[0][1], rows[1][1]]
    assert not [text for text in texts if text[:1] in "=+-@\t\r＝＋－＠"]


class Texts(HTMLParser):
    """The tags of a page, and the texts of its cells, paragraphs and title."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = [""]
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.texts.append(dict(attrs).get("alt") or "")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


@hard_names
def test_a_report_shows_any_name_and_none_becomes_markup(name):
    pages = []
    for word in (name, "plain"):
        with TemporaryDirectory() as folder:
            report = Report(Path(folder), word)
            report.add("table", pd.DataFrame({word: [word], "n": [1]}), word)
            report.add("picture", plots.image_grid([None], [word]))
            text = report.write().read_bytes().decode()
            pages.append(Texts(text))
    assert pages[0].tags == pages[1].tags
    # title, heading, cell, sentence; the name of a column and an alt text have no newline
    assert sum(name.strip() in text for text in pages[0].texts) >= 4


def test_classes_may_be_named_like_the_columns_of_a_table():
    names = ["label", "any", "None", "n", "type"]
    predictions = predictions_of([f"{name}/1.jpg" for name in names], names)
    counts = figures.confusion(predictions)
    assert diagrams.confusion_matrix(counts).data.shape == (5, 6)
    assert len(figures.by_class(counts, pd.DataFrame({"relative_path": []}))) == 5


@pytest.mark.slow
def test_three_hundred_classes_and_some_that_only_test_has_make_pictures_that_can_be_opened():
    classes = [f"class number {i}" for i in range(300)]
    paths = [f"{name}/{i}.jpg" for i in range(2) for name in [*classes[:298], "new", "newer"]]
    predictions = predictions_of(paths, classes)
    matrix = diagrams.confusion_matrix(figures.confusion(predictions))
    assert matrix.data.shape == (302, 303) and max(size(matrix)) < 5_000
    few = figures.few_of_each(predictions.table, 2)
    shown = gallery(few, {}, 2, by_class=True)
    assert few.label.nunique() == 40 and max(size(shown)) < 20_000
