"""Clean up: what the tutorial made goes, and nothing else; what is worth keeping is kept."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scenery.predictions import PATHS, draw_files, make_run, tables_of
from scenery.tables import make_tables

from helpers.snowflake.cleanup import (
    database_exists,
    drop_everything,
    export,
    listing,
    write_batches,
)
from helpers.snowflake.connection import connect, execute
from helpers.snowflake.sql_files import run_file
from helpers.snowflake.writeback import write_back

DATABASE = "CLEANED"


@pytest.fixture
def connection(running_standin, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    connection = connect("local")
    make_tables(connection, draw_files(tmp_path / "images"), DATABASE)
    run_file(connection, "sql/06_create_views.sql")
    yield connection
    execute(connection, f"drop database if exists {DATABASE}")
    connection.close()


def test_the_list_has_what_the_tutorial_made(connection):
    execute(connection, "create table mine (a number)")
    names = [name for _, name in listing(connection, DATABASE)]
    assert len(names) == 9 and "CLOTHING_TEST" in names and "MINE" not in names


def test_predictions_and_log_are_kept_as_files(connection, tmp_path):
    write_back(connection, make_run(connection, "run-1", DATABASE, failed=PATHS[:2]))
    images, log, _ = tables_of(connection)
    rows = export(connection, DATABASE, tmp_path / "export")
    assert rows == {
        "clothing_test": len(PATHS),
        "clothing_prediction_log": len(log),
        "clothing_failure": 2,
    }
    columns = ["RELATIVE_PATH", "TYPE", "CONFIDENCE", "PRED_TIMESTAMP"]
    kept = pq.read_table(tmp_path / "export" / "clothing_test.parquet", columns=columns)
    found = {tuple(row.values()) for row in kept.to_pylist()}
    assert found == {(row[0], *row[2:]) for row in images}
    kept_log = pq.read_table(tmp_path / "export" / "clothing_prediction_log.parquet")
    assert kept_log.num_rows == len(log)


def test_everything_goes_and_a_second_time_is_fine(connection, tmp_path):
    export(connection, DATABASE, tmp_path / "export")
    assert "is dropped" in drop_everything(connection, DATABASE, made_database=True)
    assert listing(connection, DATABASE) == [] and not database_exists(connection, DATABASE)
    assert "nothing to drop" in drop_everything(connection, DATABASE, made_database=True)
    assert export(connection, DATABASE, tmp_path / "export") == {}
    assert (tmp_path / "export" / "clothing_test.parquet").exists()


def test_a_database_that_was_there_before_stays(connection):
    assert "stays" in drop_everything(connection, DATABASE, made_database=False)
    assert database_exists(connection, DATABASE) and listing(connection, DATABASE) == []


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("table", "mine (a number)"),
        ("view", "mine as select 1 as a"),
        ("stage", "mine"),
        ("sequence", "mine"),
        ("file format", "mine type = csv"),
        ("stream", "mine on stage clothing_dataset"),
        ("schema", "mine"),
    ],
)
def test_what_is_not_the_tutorials_stays(connection, kind, thing):
    execute(connection, f"create {kind} {thing}")
    said = drop_everything(connection, DATABASE, made_database=True)
    name = "MINE" if kind == "schema" else "PUBLIC.MINE"
    assert f"{kind} {name}" in said and database_exists(connection, DATABASE)
    assert listing(connection, DATABASE) == []


def test_an_export_holds_batches_of_other_widths(tmp_path):
    """Snowflake gives each batch the narrowest integers that it needs."""
    batches = [pa.table({"A": pa.array([n], kind)}) for n, kind in ((1, pa.int8()), (900, "int16"))]
    assert write_batches(batches[0], iter(batches[1:]), tmp_path / "x.parquet") == 2
    assert pq.read_table(tmp_path / "x.parquet")["A"].to_pylist() == [1, 900]


def test_a_name_that_is_no_identifier_is_refused(connection):
    with pytest.raises(ValueError, match="identifier"):
        drop_everything(connection, "CLEANED; drop database OTHER", made_database=True)
