"""What one notebook leaves for the next: runs, and which of them is meant."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import choice, config, runs
from helpers.files import write_json
from helpers.snowflake import cleanup

FACTS: dict[str, Any] = {
    "data_set": "d",
    "data_digest": "x",
    "test_digest": "y",
    "classes": ["a", "b"],
    "images": {"train": 2},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    return tmp_path


def test_latest_run_is_found_with_what_it_knows(home):
    first = runs.start("local", "clothing", **FACTS)
    second = runs.start("local", "clothing", **FACTS)
    assert first.name != second.name and runs.open_run("latest", "local", "CLOTHING") == second
    assert runs.open_run(first.name, "local", "clothing") == first
    written = json.loads((home / "runs" / second.name / "run.json").read_text())
    assert written["database"] == "CLOTHING"


def test_run_of_another_backend_or_database_is_refused():
    run = runs.start("local", "clothing", **FACTS)
    for backend, database in (("snowflake", "clothing"), ("local", "other")):
        said = f"Run {run.name} is of backend local, database CLOTHING"
        with pytest.raises(ValueError, match=said):
            runs.open_run("latest", backend, database)


def test_missing_runs_name_the_remedy():
    with pytest.raises(FileNotFoundError, match="Run notebook 01_set_up_snowflake first"):
        runs.open_run("latest", "local", "CLOTHING")
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        runs.open_run("nothing", "local", "CLOTHING")


def test_another_model_starts_another_folder():
    run = choice.with_model(runs.start("local", "clothing", **FACTS), "aaa")
    assert choice.with_model(run, "aaa").folder == run.folder
    other = choice.with_model(run, "bbb")
    assert other.folder != run.folder and (other.data_digest, other.model_digest) == ("x", "bbb")
    assert runs.open_run("latest", "local", "CLOTHING") == other


def test_unfinished_predictions_name_notebook_03():
    run = runs.start("local", "clothing", **FACTS)
    with pytest.raises(FileNotFoundError, match="Run notebook 03_run_inference first"):
        runs.require_predictions(run)
    write_json(run.folder / "inference.json", {})
    runs.require_predictions(run)


def test_who_made_the_database_is_remembered():
    assert not cleanup.made_database("local", "CLOTHING")
    runs.start("local", "clothing", **FACTS, made_database=True)
    assert cleanup.made_database("local", "CLOTHING")
    assert not cleanup.made_database("snowflake", "CLOTHING")


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/abs", "a/b", "a\\b", ".", "..", ".hidden", "latest", "LATEST", "con", "a\nb"),
        *(" a", "a ", "a.", "a\0b", "x" * 61, "a:b", 'a"b', "a?", "\ud800"),
    ],
)
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(ValueError, match="cannot name a folder"):
        runs.start("local", "clothing", name, **FACTS)
    if name.lower() != "latest":
        with pytest.raises(FileNotFoundError, match="does not exist"):
            runs.open_run(name, "local", "clothing")
    assert not config.runs_folder().exists()


@given(st.from_regex(runs.NAME, fullmatch=True))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_name_is_found_again(name):
    run = runs.start("local", "clothing", name, **FACTS)
    assert runs.open_run(name, "local", "clothing") == run
    assert run.folder.parent == config.runs_folder()
