"""The notebooks through papermill: in order, again, out of order, and with bad input."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from scenery.surroundings import readers_machine

import standin
from helpers import config, runs
from helpers.commands.tutorial import NOTEBOOKS, NotebookError, run_notebook, run_tutorial
from helpers.snowflake.connection import connect, execute

pytestmark = pytest.mark.timeout(900)  # the first test that needs a whole run waits for it
PHOTOGRAPHS = config.PROJECT_ROOT.parent / "shared" / "clothing-dataset-small"
TRAINING = {
    "02_train_model": {
        "n_epochs": 3,
        "batch_size": 8,
        "image_size": 64,
        "augmentation": 0,
    }
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reader's machine on which nothing has run yet, with a folder of small images."""
    with readers_machine(tmp_path_factory.mktemp("home"), train=16, test=5) as home:
        (home / "garments" / "test" / "hat" / "broken.jpg").write_text("no image")
        yield home


@pytest.fixture(scope="module")
def done(home):
    """The folder of a whole run."""
    return run_tutorial(str(home / "garments"), TRAINING, train=True)


def failure(name: str, folder, **parameters) -> str:
    with pytest.raises(NotebookError) as caught:
        run_notebook(name, folder, {"backend": "local"} | parameters)
    assert caught.value.copy.exists() and caught.value.notebook == name
    return str(caught.value)


def outputs(path) -> str:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return json.dumps([cell.outputs for cell in cells])


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("02_train_model", "Run notebook 01_set_up_snowflake"),
        pytest.param(
            "03_run_inference", "Run notebook 01_set_up_snowflake", marks=pytest.mark.slow
        ),
    ],
)
def test_out_of_order_names_the_notebook_that_is_missing(home, name, remedy, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    assert remedy in failure(name, tmp_path)


@pytest.mark.slow
def test_predictions_missing_name_notebook_03(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    runs.start(
        "local",
        "EMPTY",
        data_set="d",
        data_digest="x",
        test_digest="y",
        classes=["a"],
        images={},
    )
    connection = connect("local")
    execute(connection, "create database EMPTY")
    connection.close()
    for name in ("04_review_results", "05_write_back"):
        assert "Run notebook 03_run_inference" in failure(name, tmp_path, database="EMPTY")


def test_missing_images_folder_is_named(home, tmp_path):
    nowhere = tmp_path / "nowhere"
    message = failure("01_set_up_snowflake", tmp_path, images=str(nowhere), database="NOWHERE")
    assert f"Images folder {nowhere} does not exist" in message


def test_unknown_parameter_is_an_error(home, tmp_path):
    with pytest.raises(ValueError, match="02_train_model has no parameter 'epochs'"):
        run_notebook("02_train_model", tmp_path, {"epochs": 1})


def test_whole_tutorial_adds_up(done):
    summary = json.loads((done / "summary.json").read_text())
    assert summary["images"] == {"train": 48, "test": 16}
    assert (summary["predictions"], summary["failures"]) == (15, 1)
    assert summary["rows_written_back"] == 15
    assert summary["accuracy"] > 0.6  # a third by guessing
    assert list(summary["seconds"]) == [*NOTEBOOKS, "total"]
    assert sorted(p.stem for p in (done / "notebooks").glob("*.ipynb")) == list(NOTEBOOKS)


def test_executed_notebooks_show_no_error_and_no_signed_url(done):
    for path in (done / "notebooks").glob("*.ipynb"):
        text = outputs(path)
        assert "Traceback" not in text and "signature=" not in text.lower(), path.name


def test_pictures_are_in_the_notebooks(done):
    for name in ("01_set_up_snowflake", "02_train_model", "04_review_results"):
        assert "image/png" in outputs(done / "notebooks" / f"{name}.ipynb"), name


def test_clean_up_left_nothing(done, home):
    connection = connect("local")
    assert "CLOTHING" not in [row[1] for row in execute(connection, "show databases")]
    connection.close()


def test_setting_up_again_keeps_predictions_and_says_what_changed(home, tmp_path):
    monday = {"backend": "local", "database": "AGAIN", "images": str(home / "garments")}
    run_notebook("01_set_up_snowflake", tmp_path, monday)
    connection = connect("local", "AGAIN")
    execute(connection, "update clothing_test set type = 'hat', confidence = 0.5 where size > 20")
    predictions = "select relative_path, type, confidence from clothing_test order by 1"
    before = execute(connection, predictions)
    (home / "garments" / "test" / "hat" / "004.jpg").unlink()
    copy = run_notebook("01_set_up_snowflake", tmp_path, monday)
    after = execute(connection, predictions)
    connection.close()
    assert before == after and sum(row[1] is not None for row in after) == 15
    assert "0 added, 0 changed, 1 removed, 15 unchanged" in outputs(copy)
    assert "1 rows are of images that have left their stage" in outputs(copy)


@pytest.mark.slow
@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason=f"{PHOTOGRAPHS.name} is not beside the project"
)
def test_tutorial_on_a_few_photographs(tmp_path):
    for split, n in (("train", 4), ("validation", 2)):
        for folder in (PHOTOGRAPHS / split).iterdir():
            target = tmp_path / "photographs" / split / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:n]:
                (target / path.name).symlink_to(path)
    summary = tutorial_command(tmp_path, "--images", str(tmp_path / "photographs"), "--epochs", "1")
    assert (summary["images"], summary["predictions"]) == ({"train": 40, "test": 20}, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_default_tutorial_reaches_its_accuracy(tmp_path):
    summary = tutorial_command(tmp_path)
    assert summary["images"] == {"train": 400, "test": 150}
    assert summary["accuracy"] >= 0.9
    assert summary["rows_written_back"] == summary["predictions"] == 150


def tutorial_command(home, *options) -> dict:
    """What `make tutorial` runs, on a machine that has nothing yet."""
    environment = os.environ | {
        "TUTORIAL_HOME": str(home),
        "TUTORIAL_SANDBOX": str(home / ".sandbox"),
    }
    command = [sys.executable, "-m", "helpers", "tutorial", *options]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert standin.status(home / ".sandbox") is None
    return json.loads(next((home / "runs").glob("*/summary.json")).read_text())
