"""What one notebook leaves for the next: runs, and which of them is meant."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import choice, config, runs
from helpers.files import owned, write_json, written_whole
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
        *("latest.json", "Latest.JSON", "CON.txt", "nul.a.b", "com1", "LPT9.log", "com²", "CONIN$"),
        *("a\x85b", "a\x9fb", "a\u202eb", "a\u2066b", "a\u200fb", "a\u2028b", "\ufeffa", "a\u200b"),
    ],
)
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(ValueError, match="cannot name a folder"):
        runs.start("local", "clothing", name, **FACTS)
    if name != "latest":
        with pytest.raises(FileNotFoundError, match="does not exist"):
            runs.open_run(name, "local", "clothing")
    assert not config.runs_folder().exists()


@given(st.from_regex(runs.NAME, fullmatch=True))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_name_is_found_again(name):
    run = runs.start("local", "clothing", name, **FACTS)
    assert runs.open_run(name, "local", "clothing") == run
    assert run.folder.parent == config.runs_folder()


@pytest.mark.parametrize(
    "name", ["console", "com", "com10", "null", "latest-1", "con-1", "nulls.txt"]
)
def test_a_name_that_only_looks_reserved_is_taken(name):
    assert runs.start("local", "clothing", name, **FACTS).name == name


@pytest.mark.parametrize(
    "other",
    [
        {"database": "OTHER"},
        {"backend": "snowflake"},
        {"data_digest": "other"},
        {"test_digest": "other"},
        {"images": {"train": 1}},
        {"classes": ["other"]},
    ],
)
def test_a_name_is_not_taken_from_a_run_of_other_data(other):
    facts = {"backend": "local", "database": "CLOTHING", "name": "mine"} | FACTS
    run = replace(runs.start(**facts), model_digest="abc").save()
    with pytest.raises(FileExistsError, match=r"mine is there already.*Use another run_name"):
        runs.start(**facts | other)
    assert runs.open_run("latest", "local", "clothing") == run


def test_notebook_01_may_run_again_in_its_run():
    """What was predicted stays of its model, and who made the database is asked anew."""
    run = replace(runs.start("local", "clothing", "mine", **FACTS), model_digest="abc").save()
    again = runs.start("local", "clothing", "mine", **FACTS, made_database=True)
    assert again == replace(run, made_database=True)


def test_names_of_the_same_moment_differ_whoever_takes_them():
    code = "from helpers import runs; print(runs.new_name())"
    others = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: runs.new_name(), range(40)))
    names += [other.communicate()[0].strip() for other in others]
    assert len(set(names)) == 43 and all(map(runs.NAME.fullmatch, names))


def test_no_run_shares_its_lock_with_another_one_or_with_the_tutorial(home):
    for name in ("tutorial", "runs", "a", "a.lock"):
        runs.start("local", "clothing", name, **FACTS)
    with ExitStack() as held:
        held.enter_context(owned(config.runs_folder(), "Wait."))
        for name in ("tutorial", "runs", "a", "a.lock"):
            held.enter_context(owned(config.runs_folder() / name, "Wait."))
        with pytest.raises(BlockingIOError), owned(config.runs_folder(), "Wait."):
            pass


WRITE = """
import os, sys
from pathlib import Path
from helpers import files
os.setuid(65534)
path = Path(sys.argv[1])
try:
    if sys.argv[2] == "owned":
        with files.owned(path, ""):
            pass
    else:
        files.write_json(path, {"a": "b" * 200_000})
except OSError as error:
    print(type(error).__name__, error)
"""


def written_by_another_user(path, what: str, before: str = "true") -> str:
    """What one that may not do everything is told; `before` runs in a namespace of its own."""
    command = f'{before} && exec "$@"'
    arguments = [sys.executable, "-c", WRITE, str(path), what]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="makes file systems, and changes the user")
@pytest.mark.parametrize(
    "what, before, said",
    [
        ("file", "chmod 555 {0}", "PermissionError"),
        ("owned", "chmod 555 {0}", "PermissionError"),
        ("folder", "chmod 555 {0}", "PermissionError"),
        ("file", "mount -t tmpfs -o size=64k,mode=777 none {0}", "No space left"),
        ("file", "mount -t tmpfs -o ro none {0}", "Read-only file system"),
        ("owned", "mount -t tmpfs -o ro none {0}", "Read-only file system"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_a_remedy(what, before, said):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        path = Path(place) / ("new/run.json" if what == "folder" else "run.json")
        told = written_by_another_user(path, what, before.format(place))
    assert str(path) in told and said in told and "TUTORIAL_HOME" in told


def test_an_error_of_another_kind_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, written_whole(tmp_path / "a"):
        (tmp_path / "gone").read_text()
    assert "TUTORIAL_HOME" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_another_file_is_not_the_locks(tmp_path):
    """What goes wrong while a folder is owned keeps its own name and remedy."""
    with (
        pytest.raises(PermissionError, match="elsewhere") as caught,
        owned(tmp_path / "run", "Wait."),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")
    assert "TUTORIAL_HOME" not in str(caught.value)
    with owned(tmp_path / "run", "Wait."):
        pass
