"""The stand-in's query history: what ran, for whom, how long, and under which tag."""

import datetime as dt
import json
import threading
import time

import pytest
import snowflake.connector
from hypothesis import given, settings
from hypothesis import strategies as st
from snowflake.connector.errors import ProgrammingError

import standin
from standin.history import KEPT, SECRET

HISTORY = "table(information_schema.query_history(result_limit => 1000))"
BY_SESSION = "table(information_schema.query_history_by_session())"
NOW = dt.timedelta(seconds=60)


def told(connection, columns: str, source: str = BY_SESSION, where: str = "true") -> list[tuple]:
    """Of all statements but those that ask, in the order in which they began."""
    asks = "query_text like '%table(information_schema.query_history%'"
    sql = f"select {columns} from {source} where ({where}) and not {asks} order by start_time"
    return connection.cursor().execute(sql).fetchall()


def test_each_statement_has_its_columns_as_snowflake_names_them(connection):
    cursor = connection.cursor()
    cursor.execute("create table T (A number)")
    before = dt.datetime.now(dt.UTC)
    cursor.execute("insert into T values (1), (2)")
    query_id = cursor.sfqid
    (row,) = (
        connection.cursor(snowflake.connector.DictCursor)
        .execute(f"select * from {BY_SESSION} where query_type = 'INSERT'")
        .fetchall()
    )
    assert (row["QUERY_ID"], row["QUERY_TEXT"]) == (query_id, "insert into T values (1), (2)")
    assert (row["DATABASE_NAME"], row["SCHEMA_NAME"]) == ("TESTS", "PUBLIC")
    assert (row["USER_NAME"], row["EXECUTION_STATUS"]) == ("TUTORIAL", "SUCCESS")
    assert abs(row["START_TIME"] - before) < NOW and row["START_TIME"].tzinfo
    elapsed = (row["END_TIME"] - row["START_TIME"]) / dt.timedelta(milliseconds=1)
    assert 0 <= elapsed - row["TOTAL_ELAPSED_TIME"] < 1
    assert str(row["SESSION_ID"]) == cursor.execute("select current_session()").fetchone()[0]
    shown = cursor.execute("show warehouses").fetchall()[0]
    assert (row["WAREHOUSE_NAME"], row["WAREHOUSE_SIZE"]) == (shown[0], shown[3])
    assert row["BYTES_SCANNED"] is None  # DuckDB does not tell


@pytest.mark.parametrize(
    ("sql", "kind", "is_used"),
    [
        ("select 1 as A", "SELECT", False),
        ("select * from T", "SELECT", True),
        ("with C as (select A from T) select * from C", "SELECT", True),
        ("insert into T select 1", "INSERT", True),
        ("delete from T", "DELETE", True),
        ("create or replace temporary table U as select * from T", "CREATE", True),
        ("create or replace table V (A number)", "CREATE", False),
        ("create or replace view W as select * from T", "CREATE", False),
        ("alter session set query_tag = 'a'", "ALTER", False),
        ("use schema PUBLIC", "USE", False),
        ("show tables", "SHOW", False),
        ("begin", "BEGIN_TRANSACTION", False),
        ("rollback", "ROLLBACK", False),
        ("create or replace stage S", "CREATE", False),
        ("list @S", "LIST_FILES", False),
    ],
)
def test_only_what_reads_or_writes_rows_uses_the_warehouse(connection, sql, kind, is_used):
    cursor = connection.cursor()
    cursor.execute("create table T (A number)")
    cursor.execute("create stage S")
    cursor.execute(sql)
    *_, (found, size) = told(connection, "query_type, warehouse_size")
    assert (found, size is not None) == (kind, is_used)


def test_what_fails_is_there_too(connection):
    with pytest.raises(ProgrammingError):
        connection.cursor().execute("select * from MISSING")
    *_, row = told(connection, "query_text, execution_status, end_time is not null")
    assert row == ("select * from MISSING", "FAILED_WITH_ERROR", True)


@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_tag_is_kept_whatever_letters_it_has(running_standin, text):
    """By log-in, by statement, and by ALTER SESSION."""
    tag = json.dumps({"run": text}, ensure_ascii=False)
    parameters = standin.connection_parameters(running_standin.root)
    session = {"QUERY_TAG": tag}
    with snowflake.connector.connect(**parameters, session_parameters=session) as connection:
        cursor = connection.cursor()
        cursor.execute("create database if not exists TESTS")
        cursor.execute("use database TESTS")
        cursor.execute("select 1", _statement_params={"QUERY_TAG": f"one {tag}"})
        written = f"two {tag}".replace("\\", "\\\\").replace("'", "''")
        cursor.execute(f"alter session set query_tag = '{written}'")
        cursor.execute("select 2")
        found = [row[0] for row in told(connection, "query_tag")]
        assert found == [tag, tag, f"one {tag}", tag, f"two {tag}"]


def test_a_tag_may_have_2000_characters(connection):
    cursor = connection.cursor()
    cursor.execute("select 1", _statement_params={"QUERY_TAG": "x" * 2000})
    with pytest.raises(ProgrammingError, match="2000"):
        cursor.execute("select 1", _statement_params={"QUERY_TAG": "x" * 2001})


def test_a_session_sees_itself_and_a_user_all_of_its_sessions(running_standin, connect, connection):
    other = connect(database="TESTS")
    other.cursor().execute("select 'of the other session'")
    text = "query_text = 'select ''of the other session'''"
    assert told(connection, "query_text", where=text) == []
    assert told(connection, "query_text", HISTORY, text) == [("select 'of the other session'",)]
    parameters = standin.connection_parameters(running_standin.root)
    strange = {**parameters, "user": "stranger", "database": "TESTS"}
    with snowflake.connector.connect(**strange) as stranger:
        assert told(stranger, "query_text", HISTORY) == []


def test_a_statement_that_runs_has_no_end_yet(connect, connection):
    slow = connect(database="TESTS")
    sql = "select count(*) from table(generator(rowcount => 300000000)) where seq4() % 7 = 3"
    thread = threading.Thread(target=lambda: slow.cursor().execute(sql))
    thread.start()
    deadline = time.monotonic() + 20
    running: list[tuple] = []
    while not running and time.monotonic() < deadline:
        where = "query_text like '%generator%' and execution_status = 'RUNNING'"
        running = told(connection, "end_time, warehouse_size", HISTORY, where)
    thread.join()
    assert running and running[0] == (None, "X-Small")


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("information_schema.query_history(result_limit => 10001)", 2),
        ("information_schema.query_history(result_limit => 0)", 2),
        ("information_schema.query_history(7)", 2),
        ("information_schema.query_history(colour => 'red')", 2),
        ("missing.information_schema.query_history()", 2003),
        ("information_schema.login_history()", 2140),
        ("public.query_history()", 2140),
    ],
)
def test_what_it_does_not_know_is_refused(connection, call, number):
    with pytest.raises(ProgrammingError) as caught:
        connection.cursor().execute(f"select * from table({call})")
    assert caught.value.errno == number


def test_it_wants_a_database(connect):
    with pytest.raises(ProgrammingError, match="USE DATABASE"):
        connect().cursor().execute(f"select * from {HISTORY}")


def test_secrets_are_left_out_of_the_text(connection):
    cursor = connection.cursor()
    cursor.execute(
        "create stage S url = 's3://a/b/' "
        "credentials = (aws_key_id = 'AKIAPLANTED' aws_secret_key='it''s planted')"
    )
    (text,) = [row[0] for row in told(connection, "query_text", where="query_type = 'CREATE'")][-1:]
    assert "s3://a/b/" in text and "lanted" not in text.lower()


def test_a_secret_is_found_in_time_in_any_text():
    for text in ("A" * 100_000, "KEY" * 33_000, "KEY" + " " * 99_000, "PASSWORD='" + "x" * 99_000):
        started = time.perf_counter()
        SECRET.sub("", text)
        assert time.perf_counter() - started < 5


def test_it_outlives_the_server_and_stays_bounded(tmp_path):
    def connect():
        parameters = standin.connection_parameters(tmp_path)
        return snowflake.connector.connect(**parameters)

    with connect() as connection:
        cursor = connection.cursor()
        cursor.execute("create database KEPT")
        cursor.execute("select 'before'")
    standin.stop(tmp_path)
    try:
        with connect() as connection:
            connection.cursor().execute("use database KEPT")
            texts = [row[0] for row in told(connection, "query_text", HISTORY)]
            assert texts == ["create database KEPT", "select 'before'", "use database KEPT"]
            own = [row[0] for row in told(connection, "query_text")]
            assert own == ["use database KEPT"]
    finally:
        standin.stop(tmp_path)
    assert KEPT == 10_000
