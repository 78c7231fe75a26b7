"""Write-back: exactly once, whoever interrupts; nothing wrong is written; every number adds up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests
from scenery.predictions import (
    NOON,
    PATHS,
    draw_files,
    make_run,
    rows_of,
    save_run,
    tables_of,
    temporary_left,
)
from scenery.tables import make_tables
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error

import standin
from helpers.files import write_json
from helpers.runs import Run
from helpers.snowflake import stage
from helpers.snowflake.connection import connect, execute, query
from helpers.snowflake.listing import sign_urls
from helpers.snowflake.sql_files import run_file
from helpers.snowflake.writeback import MismatchError, write_back

DATABASE = "WRITTEN"
EMPTY = "update clothing_test set type = null, confidence = null, pred_timestamp = null"
# a program that writes a run back and kills itself at a named moment
CHILD = """
import os, signal, sys
from snowflake.connector.cursor import SnowflakeCursor
from helpers import runs
from helpers.snowflake import writeback
from helpers.snowflake.connection import connect
name, moment, start = sys.argv[1:]
execute = SnowflakeCursor.execute
def watched(self, sql, *values, **options):
    here = sql.strip().lower().startswith(start)
    if here and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = execute(self, sql, *values, **options)
    if here and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
SnowflakeCursor.execute = watched
connection = connect("local", "WRITTEN")
print(writeback.write_back(connection, runs.open_run(name, "local", "WRITTEN")))
"""
MOMENTS = {
    "before staging": ("before", "create or replace temporary stage"),
    "mid-staging": ("after", "put"),
    "after staging": ("before", "begin"),
    "before MERGE": ("before", "merge"),
    "after MERGE": ("after", "merge"),
    "before COMMIT": ("before", "commit"),
    "after COMMIT": ("after", "commit"),
}


@pytest.fixture(scope="module", autouse=True)
def _own_stand_in(tmp_path_factory):
    """One that forgets a dead client's transaction after seconds, not after a minute."""
    root = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_SANDBOX", str(root))
        patch.setenv("TUTORIAL_SANDBOX_IDLE_S", "3")
        yield
        standin.stop(root)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))


@pytest.fixture
def folder(tmp_path):
    return draw_files(tmp_path / "images")


@pytest.fixture
def connection(folder):
    connection = connect("local")
    make_tables(connection, folder, DATABASE)
    yield connection
    connection.close()


@pytest.fixture
def run(connection):
    return make_run(connection, "run-1", DATABASE, failed=PATHS[:1])


@pytest.fixture
def newer(connection):
    """A run of another model an hour later, of another opinion on each image."""
    later = NOON + timedelta(hours=1)
    return make_run(connection, "run-2", DATABASE, model="m2", at=later, shift=1)


def empty(connection: SnowflakeConnection) -> None:
    """Tables as before any write-back."""
    execute(connection, EMPTY)
    execute(connection, "delete from clothing_prediction_log")
    execute(connection, "delete from clothing_failure")


def test_predictions_reach_the_table_the_log_and_the_failures(connection, run):
    counts = write_back(connection, run)
    images, log, failures = tables_of(connection)
    expected = {row["relative_path"]: row for row in rows_of(run)}
    n = len(PATHS) - 1
    assert (counts.predictions, counts.staged, counts.updated, counts.unchanged) == (n, n, n, 0)
    assert counts.unmatched == [] and counts.failures == 1
    for path, _, kind, confidence, written_at in images:
        row = expected.get(path, {})
        assert kind == row.get("type")
        assert confidence == row.get("confidence")
        assert written_at == row.get("predicted_at")
        assert written_at is None or written_at.utcoffset() == timedelta(0)
    assert [entry[1] for entry in log] == sorted(expected)
    assert {(entry[0], entry[6], entry[7]) for entry in log} == {("run-1", "m1", "resnet18")}
    assert failures == [("run-1", PATHS[0], "not an image", 2)]
    assert temporary_left(connection) == []


def test_an_address_may_change_between_prediction_and_write_back(connection, run):
    execute(connection, "update clothing_test set file_url = 'https://later/' || relative_path")
    assert write_back(connection, run).updated == len(PATHS) - 1


def test_a_second_time_changes_nothing_and_says_so(connection, run):
    write_back(connection, run)
    before = tables_of(connection)
    counts = write_back(connection, run)
    assert tables_of(connection) == before
    assert (counts.updated, counts.unchanged, counts.failures) == (0, len(PATHS) - 1, 1)
    assert "nothing to change" in str(counts)


def test_odd_names_go_all_the_way(connection, folder, run):
    write_back(connection, run)
    written = [row[0] for row in tables_of(connection)[0] if row[2]]
    urls = sign_urls(connection, "clothing_dataset", written)
    found = [requests.get(url, timeout=10).content for url in urls]
    assert found == [(folder / path).read_bytes() for path in written]
    assert sorted(written) == sorted(PATHS[1:])


def test_a_table_with_quotes_and_lower_case(connection, run):
    write_back(connection, run)
    expected = tables_of(connection)
    execute(connection, "delete from clothing_prediction_log")
    execute(connection, 'create table "my ""odd"" table" as select * from clothing_test')
    execute(connection, EMPTY.replace("clothing_test", '"my ""odd"" table"'))
    counts = write_back(connection, run, 'my "odd" table')
    assert counts.updated == len(PATHS) - 1
    assert tables_of(connection, '"my ""odd"" table"')[:2] == expected[:2]


@pytest.mark.parametrize("same_size", [True, False])
def test_an_image_replaced_since_is_not_written(connection, folder, run, same_size):
    path = PATHS[4]
    draw_files(folder, [path], "x" * (len(path.encode()) + (not same_size)))
    stage.sync(connection, folder, "clothing_dataset")
    run_file(connection, "sql/04_load_tables.sql")
    counts = write_back(connection, run)
    images, log, _ = tables_of(connection)
    assert counts.unmatched == [path] and counts.updated == counts.staged - 1
    assert next(row for row in images if row[0] == path)[2:] == (None, None, None)
    assert path not in [entry[1] for entry in log]


def test_an_image_removed_since_is_named(connection, run):
    execute(connection, "delete from clothing_test where relative_path = %s", (PATHS[3],))
    assert write_back(connection, run).unmatched == [PATHS[3]]
    assert write_back(connection, run).unmatched == [PATHS[3]]


def test_the_newest_prediction_wins_in_either_order(connection, run, newer):
    write_back(connection, run)
    write_back(connection, newer)
    expected = tables_of(connection)
    empty(connection)
    write_back(connection, newer)
    assert write_back(connection, run).unchanged == len(PATHS) - 1
    assert tables_of(connection) == expected


def test_views_tell_what_is_current_and_what_changed(connection, run, newer):
    write_back(connection, run)
    write_back(connection, newer)
    run_file(connection, "sql/06_create_views.sql")
    current = query(connection, "select * from clothing_prediction")
    assert len(current) == len(PATHS)
    assert set(current.MODEL_DIGEST) == {"m2"} and set(current.RUN) == {"run-2"}
    changes = query(connection, "select * from clothing_prediction_change")
    assert sorted(changes.RELATIVE_PATH) == sorted(PATHS[1:])
    assert set(changes.OLD_MODEL_DIGEST) == {"m1"} and (changes.OLD_TYPE != changes.NEW_TYPE).all()


BAD = {
    "confidence NaN": {"confidence": float("nan")},
    "confidence above 1": {"confidence": 97.0},
    "confidence missing": {"confidence": None},
    "unknown class": {"type": "sofa"},
    "another model": {"model_digest": "m9"},
    "two predictions": {"confidence": 0.001},
}


@pytest.mark.parametrize("wrong", BAD)
def test_a_wrong_prediction_is_named_and_nothing_written(connection, run, wrong):
    rows = rows_of(run)
    kept = rows if wrong == "two predictions" else rows[:-1]
    bad = save_run("bad", DATABASE, [*kept, rows[-1] | BAD[wrong]])
    before = tables_of(connection)
    with pytest.raises(ValueError) as caught:
        write_back(connection, bad)
    said = str(caught.value)
    assert rows[-1]["relative_path"] in said and "notebook 03_run_inference" in said
    assert tables_of(connection) == before and temporary_left(connection) == []


def test_the_same_prediction_twice_is_staged_once(connection, run):
    rows = rows_of(run)
    later = rows[0] | {"predicted_at": rows[0]["predicted_at"] + timedelta(minutes=1)}
    counts = write_back(connection, save_run("twice", DATABASE, [*rows, later]))
    n = len(rows)
    assert (counts.predictions, counts.staged, counts.updated) == (n + 1, n, n)


def test_a_night_without_news_ends_well(connection):
    run = save_run("quiet", DATABASE, [])
    inference = json.loads((run.folder / "inference.json").read_text())
    write_json(run.folder / "inference.json", inference | {"complete": False})
    counts = write_back(connection, run)
    assert (counts.predictions, counts.staged, counts.updated, counts.unmatched) == (0, 0, 0, [])


def test_an_empty_run_is_refused(connection):
    with pytest.raises(ValueError, match=r"Run empty is empty.*notebook 03"):
        write_back(connection, save_run("empty", DATABASE, []))


def test_a_run_of_failures_only_is_recorded(connection):
    failures = [{"relative_path": path, "reason": "gone", "attempts": 1} for path in PATHS]
    counts = write_back(connection, save_run("all-failed", DATABASE, [], failures))
    assert counts.staged == 0 and counts.failures == len(PATHS)


def cut_in_half(part: Path) -> None:
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def without_etag(part: Path) -> None:
    pq.write_table(pq.read_table(part).drop_columns(["etag"]), part)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_in_half, "part-000003.parquet is not a whole Parquet file"),
        (without_etag, "part-000003.parquet: column etag is missing"),
        (Path.unlink, r"\[6, 1\].*says \[9, 1\]"),
    ],
)
def test_a_harmed_part_is_named_and_nothing_written(connection, run, harm, message):
    harm(run.predictions / "part-000003.parquet")
    before = tables_of(connection)
    with pytest.raises(ValueError, match=message):
        write_back(connection, run)
    assert tables_of(connection) == before


def test_an_image_twice_in_the_table_rolls_back(connection, run):
    again = "insert into clothing_test select * from clothing_test where relative_path = %s"
    execute(connection, again, (PATHS[1],))
    before = tables_of(connection)
    with pytest.raises((MismatchError, Error)):
        write_back(connection, run)
    assert tables_of(connection) == before and temporary_left(connection) == []


def test_an_unfinished_run_names_notebook_03(connection, run):
    (run.folder / "inference.json").unlink()
    with pytest.raises(FileNotFoundError, match="03_run_inference"):
        write_back(connection, run)


def start_child(run: Run, moment: str = "never", start: str = "-") -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, run.name, moment, start]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def undisturbed(connection: SnowflakeConnection, run: Run) -> tuple[list, list, list]:
    """The tables as a write-back that nobody interrupts leaves them; then emptied again."""
    write_back(connection, run)
    expected = tables_of(connection)
    empty(connection)
    return expected


FAST = ["mid-staging", "after MERGE"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in MOMENTS]
)
def test_a_killed_writer_leaves_all_or_nothing(connection, run, name):
    expected = undisturbed(connection, run)
    before = tables_of(connection)
    child = start_child(run, *MOMENTS[name])
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert tables_of(connection) == (expected if name == "after COMMIT" else before)
    counts = write_back(connection, run)
    assert counts.updated == (0 if name == "after COMMIT" else len(PATHS) - 1)
    assert tables_of(connection) == expected and temporary_left(connection) == []


@pytest.mark.slow
def test_two_writers_at_once_lose_nothing(connection, run, newer):
    of_run = undisturbed(connection, run)
    of_newer = undisturbed(connection, newer)
    children = [start_child(run), start_child(newer)]
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    images, log, failures = tables_of(connection)
    assert images == of_newer[0]  # it has predicted every image
    assert log == of_run[1] + of_newer[1] and failures == of_run[2]


@pytest.mark.slow
def test_four_writers_of_one_run_at_once_end_well(connection, run):
    expected = undisturbed(connection, run)
    for _ in range(3):
        children = [start_child(run) for _ in range(4)]
        said = [child.communicate(timeout=120) for child in children]
        assert [child.returncode for child in children] == [0] * 4, said
        assert tables_of(connection) == expected
        empty(connection)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["copy", "merge", "insert into clothing_failure", "commit"])
def test_the_server_killed_while_it_works(connection, run, start, monkeypatch):
    expected = undisturbed(connection, run)
    before = tables_of(connection)
    server = standin.status()
    assert server is not None
    original = SnowflakeCursor.execute
    sent = threading.Event()

    def announced(self, sql, *values, **options):
        if sql.startswith(start):
            sent.set()
        return original(self, sql, *values, **options)

    def kill():
        if sent.wait(60):
            os.kill(server.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with monkeypatch.context() as patch:
        patch.setattr(SnowflakeCursor, "execute", announced)
        with contextlib.suppress(Error):  # a COMMIT may have arrived in time
            write_back(connection, run)
    killer.join()
    again = connect("local", DATABASE)
    assert tables_of(again) in ([before, expected] if start == "commit" else [before])
    assert temporary_left(again) == []
    write_back(again, run)
    assert tables_of(again) == expected
    again.close()


def test_a_commit_that_fails_is_safe_to_repeat(connection, run, monkeypatch):
    from helpers.snowflake import writeback

    def answer_lost(connection, sql, values=None):
        rows = execute(connection, sql, values)
        if sql == "commit":
            raise Error("connection reset")
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(writeback, "execute", answer_lost)
        with pytest.raises(Error, match="connection reset"):
            write_back(connection, run)
    before = tables_of(connection)
    assert write_back(connection, run).updated == 0 and tables_of(connection) == before


def test_a_run_of_a_name_that_is_no_identifier(connection, run):
    odd = replace(run, name="2026-05-01 it's; é")
    run.folder.rename(odd.folder)
    assert write_back(connection, odd).updated == len(PATHS) - 1
