"""What the project's texts say is so: commands, figures, minutes, links, and the exercises."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from scenery.documents import commands
from scenery.surroundings import readers_machine

from helpers.commands.serve import MAX_BYTES
from helpers.commands.tutorial import NOTEBOOKS, run_notebook
from helpers.config import PROJECT_ROOT
from standin.serve import LOCK_WAIT_S

PAGES = [
    PROJECT_ROOT / "README.md",
    PROJECT_ROOT / "CONTRIBUTING.md",
    PROJECT_ROOT / "model" / "README.md",
    PROJECT_ROOT / "docs" / "own_classes.md",
    PROJECT_ROOT / "docs" / "nightly.md",
    PROJECT_ROOT / "docs" / "clusters.md",
    PROJECT_ROOT / "docs" / "cost.md",
]
MEASURED = json.loads((PROJECT_ROOT / "docs" / "measured.json").read_text())
SHOWN = f"{MEASURED['images']['test']} test images", f"{MEASURED['images']['train']} draw"
WORDS = {"a minute": 1, "two minutes": 2, "three minutes": 3, "five minutes": 5}
# numbers that no run changes; all else that a text says in figures comes from docs/measured.json
SETTLED = {
    "README": {
        "3.11",
        "3.12",
        "3.13",
        "3,781",
        "30",
        "8000",
        f"{LOCK_WAIT_S:.0f}",
        "00",
        "07",
        "09",
        f"{MAX_BYTES // 2**20}",
    },
    "01_set_up_snowflake": {"60"},  # seconds of AUTO_SUSPEND
    "02_train_model": {"0.8", "3"},  # a confidence, to explain calibration; colours
    "04_review_results": {"0.8", "95", "100"},  # the same; of intervals
    "05_write_back": {"0", "1"},  # the range of a confidence
}


def prose(name: str) -> str:
    """The text of a notebook or page."""
    if name in NOTEBOOKS:
        cells = nbformat.read(PROJECT_ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return (PROJECT_ROOT / f"{name}.md").read_text()


def numbers(text: str) -> set[str]:
    """Figures in the text, but those of code, addresses, names, list items, steps and notebooks."""
    text = re.sub(r"^```.*?^```|`[^`]*`|\]\([^)]*\)|^\s*\d\. ", " ", text, flags=re.M | re.S)
    text = re.sub(r"(?i)(notebooks?|step) \d+( and \d+)?|\[\d\d [A-Z]", " ", text)
    return {found.rstrip(".,") for found in re.findall(r"(?<![\w-])\d[\d,.]*", text)}


def quoted_from_run() -> set[str]:
    """The measured figures, as text; whether each is at its place is for other tests."""
    values = [
        *MEASURED["images"].values(),
        *MEASURED["minutes"].values(),
        *MEASURED["pictured"].values(),
    ]
    return {str(value) for value in values}


@pytest.mark.parametrize("name", ["README", "docs/own_classes", *NOTEBOOKS])
def test_text_quotes_no_number_that_a_run_would_change(name):
    assert numbers(prose(name)) <= SETTLED.get(name, set()) | quoted_from_run()


def test_readme_quotes_the_run_of_its_pictures():
    text = prose("README")
    pictured = MEASURED["pictured"]
    rows = re.findall(r"^\| \[.*?\]\(notebooks/(\w+)\.ipynb\) \|.*\| ([\d.]+) \|", text, re.M)
    measured = {name: MEASURED["minutes"][name] for name in NOTEBOOKS}
    assert {name: float(minutes) for name, minutes in rows} == measured
    assert f"n = {pictured['images']} of {MEASURED['images']['test']}:" in text
    assert {3: "for three classes the surest mistake"}[pictured["mistakes"]] in text
    assert "{}s are sometimes taken for {}s".format(*MEASURED["most_confused"]) in text
    assert MEASURED["arch"] in text and {2: "on two CPU cores"}[MEASURED["cores"]] in text
    assert all(shown in text for shown in SHOWN)


def test_captions_in_notebooks_are_of_the_same_run():
    captions = re.findall(r"^\*Data: .*$", "\n".join(map(prose, NOTEBOOKS)), re.M)
    assert captions
    for caption in captions:
        assert any(shown in caption for shown in SHOWN) and MEASURED["arch"] in caption


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_says_why_how_long_and_what_it_costs(name):
    parts = dict(re.findall(r"^\*\*(.+?)\.\*\* (.+)$", prose(name), re.M))
    assert list(parts) == [
        "What you'll do",
        "What you'll learn",
        "Why",
        "What you need",
        "What it takes",
    ]
    it_takes = r"^Under ([\w ]+?minutes?)\b.*? On an account: (.+)$"
    ((promised, cost),) = re.findall(it_takes, parts["What it takes"])
    assert MEASURED["minutes"][name] <= WORDS[promised] <= 1 + 4 * MEASURED["minutes"][name]
    assert "warehouse" in cost


def without_blocks(text: str) -> str:
    """A page's text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def slugs(page: Path) -> set[str]:
    """Anchors that a Markdown page offers, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_into_pages_meet_a_heading():
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in slugs(page.parent / path if path else page), (page.name, anchor)


def quoted_commands() -> list[list[str]]:
    """Every command of the pages and notebooks as words.

    In blocks each line is one; in prose what is `code` and begins with a program.
    """
    code = r"`([^`\n]+)`"
    typed = []
    for page in PAGES:
        for block in commands(page):
            typed += block.splitlines()
        typed += re.findall(code, without_blocks(page.read_text()))
    typed += re.findall(code, "\n".join(map(prose, NOTEBOOKS)))
    program = r"\s*(make|python|papermill|\.venv/bin/\w+)(\s|$)"
    return [line.partition(" # ")[0].split() for line in typed if re.match(program, line)]


def test_make_targets_and_their_options_exist():
    lines = [words for words in quoted_commands() if words[0] == "make"]
    assert len(lines) >= 15
    options = set(re.findall(r"^(\w+) \?=", (PROJECT_ROOT / "Makefile").read_text(), re.M))
    for words in lines:
        assert {word.partition("=")[0] for word in words if "=" in word} <= options, words
        dry = ["make", "-n", *words[1:]]
        shown = subprocess.run(dry, cwd=PROJECT_ROOT, capture_output=True, text=True)
        assert shown.returncode == 0, (words, shown.stderr)


def test_papermill_lines_name_notebooks_and_their_parameters():
    lines = [words for words in quoted_commands() if words[0].endswith("papermill")]
    assert len(lines) >= 5
    for words in lines:
        name = Path(words[1]).stem
        assert name in NOTEBOOKS, words
        known = papermill.inspect_notebook(str(PROJECT_ROOT / "notebooks" / f"{name}.ipynb"))
        assert {after for word, after in pairwise(words) if word == "-p"} <= known.keys(), words


def test_programs_of_the_environment_are_there():
    programs = {words[0] for words in quoted_commands() if words[0].startswith(".venv/bin/")}
    assert len(programs) >= 4
    there = Path(sys.executable).parent
    assert not [name for name in programs if not (there / Path(name).name).exists()]


@pytest.mark.slow
def test_programs_take_the_options_that_the_pages_name():
    used: dict[str, set[str]] = {}
    for words in quoted_commands():
        if Path(words[0]).name != "python" or words[1] != "-m":
            continue
        program = words[2:4] if words[2] == "helpers" else words[2:3]
        options = {word for word in words if word.startswith("--")}
        used.setdefault(" ".join(program), set()).update(options)
    assert {"helpers evaluate", "samples", "helpers train"} <= used.keys()
    for program, options in used.items():
        command = [sys.executable, "-m", *program.split(), "--help"]
        shown = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
        assert shown.returncode == 0, (program, shown.stderr)
        assert not [o for o in options if o not in shown.stdout], (program, shown.stdout)


TRAINING = {
    "n_epochs": 3,
    "batch_size": 8,
    "image_size": 64,
    "augmentation": 0.3,
}
# what a reader would add in a cell at the end of the notebook that sets the exercise
SOLUTIONS = {
    "01_set_up_snowflake": """
import time
connection = connect(backend, database)
sizes = query(
    connection,
    "select split_part(relative_path, '/', 1) as class, sum(size) as bytes "
    "from directory(@clothing_dataset_train) group by 1 order by 1",
).set_index("CLASS").BYTES.astype(int).to_dict()
print("bytes:", sizes)
(url,) = sign_urls(connection, "clothing_dataset", [test[0][0]], seconds=1)
time.sleep(2)
try:
    download(url)
except Exception as error:
    print("error:", type(error).__name__)
""",
    "04_review_results": """
target = 0.99
print("at 0.99:", figures.threshold_for(figures.coverage(table), target)[1])
connection = connect(backend, database)
sign = partial(sign_urls, connection, "clothing_dataset")
claim = "It takes a hat for a shirt by its middle"
story = stories.Story(claim, ("hat",), ("shirt",), "centre")
told = stories.errors_of(story, table).query("told").head(per_story)
right = table[table.right & table.type.isin(story.taken_for)].head(per_story)
in_counts, counted = stories.evidence_in_counts(story, table, predictions.classes)
in_heat, seen = stories.evidence_in_heat(story, heats(told), heats(right))
print("heat maps:", len(heats(right)), counted, seen, stories.verdict([in_counts, in_heat]))
""",
    "05_write_back": """
connection = connect(backend, database)
five = "select relative_path from clothing_test where type is not null order by 1 limit 5"
forget = "update clothing_test set pred_timestamp = null, type = null, confidence = null"
execute(connection, f"{forget} where relative_path in ({five})")
print("updated:", write_back(connection, this_run).updated)
changes = query(connection, "select relative_path from clothing_prediction_change")
print("differ:", sorted(changes.RELATIVE_PATH))
""",
    "06_clean_up": """
log = pd.read_parquet(this_run.folder / "export" / "clothing_prediction_log.parquet")
print("by model:", log.groupby("MODEL_DIGEST").size().tolist())
""",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reader's machine with a small set of images."""
    with readers_machine(tmp_path_factory.mktemp("home"), train=16, test=5) as home:
        yield home


class Reader:
    """Runs notebooks one after the other, some with the solution of their exercise."""

    def __init__(self, home: Path):
        self.home = home

    def run(self, name: str, **parameters: object) -> str:
        """What the notebook prints, last cell last."""
        return printed(run_notebook(name, self.home / "executed", parameters))

    def solve(self, name: str, **parameters: object) -> str:
        """What the notebook prints, with its solution in a cell at the end."""
        folder = PROJECT_ROOT / "notebooks"
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(SOLUTIONS[name]))
        path = self.home / f"{name}.ipynb"
        nbformat.write(notebook, path)
        papermill.execute_notebook(path, path, parameters, progress_bar=False, cwd=folder)
        return printed(path)


def printed(executed: Path) -> str:
    """All text in the outputs of an executed notebook."""
    texts = []
    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", []):
            texts.append(output.get("text", "") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


def said(text: str, start: str) -> str:
    """The rest of the last line that starts so."""
    return re.findall(rf"^{re.escape(start)} *(.*)$", text, re.M)[-1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_exercises_can_be_solved(home):
    reader = Reader(home)
    images = str(home / "garments")
    first = reader.solve("01_set_up_snowflake", images=images)
    sizes = {}
    for folder in sorted((home / "garments" / "train").iterdir()):
        sizes[folder.name] = sum(path.stat().st_size for path in folder.iterdir())
    assert said(first, "bytes:") == str(sizes)
    assert said(first, "error:") == "UrlExpired"

    whole = reader.run("02_train_model", **TRAINING)
    assert said(reader.run("03_run_inference"), "predicted_before") == "0"
    again = reader.run("03_run_inference")  # exercise 1: everything is there
    assert (said(again, "listed"), said(again, "predicted_before")) == ("15", "15")
    review = reader.solve("04_review_results")
    (accuracy,) = re.findall(r"accuracy of ([\d.]+)\.", said(review, "at 0.99:"))
    assert float(accuracy) >= 0.99
    assert re.match(r"[1-5] \d+ of \d+ mistakes", said(review, "heat maps:"))
    assert said(reader.solve("05_write_back"), "updated:") == "5"

    nothing_learnt = {"n_epochs": 1, "base_lr": 1e-6, "options": {"validation_share": 0}}
    reader.run("02_train_model", **TRAINING | nothing_learnt)  # and exercise 2 of notebook 05
    reader.run("03_run_inference")
    assert said(reader.solve("05_write_back"), "differ:") == str(differing(home / "runs"))
    half = reader.run("02_train_model", **TRAINING | {"downsample_to": 0.5})
    n_half = int(said(half, "trained on").split(",")[0])
    n_whole = int(said(whole, "trained on").split(",")[0])
    assert n_half == pytest.approx(n_whole / 2, abs=2)
    reader.run("01_set_up_snowflake", images=images, run_name="one_worker")
    alone = reader.run("03_run_inference", n_workers=1)
    assert said(alone, "predicted_before") == "0" and float(said(alone, "images_per_s")) > 0
    assert len(re.findall(r"tcp://[\d.:]+ +[0-9a-f]{12} ", alone)) == 1

    assert said(reader.solve("06_clean_up"), "by model:") == "[15, 15]"
    assert "does not exist: nothing to drop" in reader.run("06_clean_up")


def differing(runs: Path) -> list[str]:
    """The images of which the models of these runs say different things."""
    found = pd.concat(map(pd.read_parquet, runs.glob("*/predictions/*.parquet")))
    assert found.model_digest.nunique() == 2
    types = found.groupby("relative_path").type.nunique()
    changed = sorted(types[types > 1].index)
    assert changed  # one that has learnt nothing says the same of every image
    return changed
