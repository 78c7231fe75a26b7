"""Statements of the stand-in that are not about stages, through the real connector."""

from __future__ import annotations

import datetime as dt
import io
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector.errors import ProgrammingError
from snowflake.connector.pandas_tools import write_pandas

NASTY = [
    "it's",
    "a;b",
    "-- no",
    "/* nor */",
    "// this",
    "back\\slash",
    "?:1 %s",
    'dq"',
    "$x",
    "ünï",
    "",
    "two\nlines",
]


@pytest.fixture
def cursor(connection):
    return connection.cursor()


def run(cursor, sql, *values):
    return cursor.execute(sql, *values).fetchall()


def test_no_database_at_first(connect):
    cursor = connect().cursor()
    assert run(cursor, "select current_database(), current_schema()") == [(None, None)]
    with pytest.raises(ProgrammingError) as missing:
        run(cursor, "create table t (a int)")
    assert missing.value.errno == 90105


def test_database_and_schema(connect):
    cursor = connect().cursor()
    run(cursor, "drop database if exists clothing")
    run(cursor, "create database if not exists CLOTHING")
    assert run(cursor, "select current_database(), current_schema()") == [("CLOTHING", "PUBLIC")]
    run(cursor, "create table t as select 1 as a")
    run(cursor, "create database if not exists clothing")
    assert run(cursor, "select a from clothing.public.t") == [(1,)]
    run(cursor, "create schema if not exists other")
    run(cursor, "use database clothing")
    run(cursor, "use schema public")
    run(cursor, "use clothing.other")
    assert run(cursor, "select current_schema()") == [("OTHER",)]
    run(cursor, "create stage s")
    run(cursor, "drop schema other")
    run(cursor, "drop database clothing")
    assert "CLOTHING" not in {row[1] for row in run(cursor, "show databases")}
    with pytest.raises(ProgrammingError) as missing:
        run(cursor, "use database clothing")
    assert missing.value.errno == 2043
    run(cursor, "create database clothing")
    assert run(cursor, "show tables") == [] and run(cursor, "show stages") == []
    run(cursor, "drop database clothing")


def test_connect_to_database(connect, cursor):
    other = connect(database="tests", schema="public", warehouse="wh", role="me").cursor()
    sql = (
        "select current_database(), current_schema(), current_warehouse(), current_role(),"
        " current_user()"
    )
    assert run(other, sql) == [("TESTS", "PUBLIC", "WH", "ME", "TUTORIAL")]
    run(other, "use warehouse two")
    assert run(other, "select current_warehouse(), current_account()") == [("TWO", "SANDBOX")]
    assert run(connect(database="NOPE").cursor(), "select current_database()") == [(None,)]


@pytest.mark.parametrize("paramstyle", ["pyformat", "qmark"])
def test_bound_values(connect, cursor, paramstyle):
    bound = connect(database="TESTS", schema="PUBLIC", paramstyle=paramstyle).cursor()
    mark = "%s" if paramstyle == "pyformat" else "?"
    run(bound, "create table t (i int, x text)")
    bound.executemany(f"insert into t values ({mark}, {mark})", list(enumerate(NASTY)))
    assert bound.rowcount == len(NASTY)
    assert [row[0] for row in run(bound, "select x from t order by i")] == NASTY
    for i, value in enumerate(NASTY):
        found = f"select i from t /* ? %% */ where x = {mark} -- it's a comment; ?".replace(
            "%%", ""
        )
        assert run(bound, found, (value,)) == [(i,)]
    moment = dt.datetime(2024, 2, 29, 12, 30, 1, 250000)
    ((number, real, flag, nothing, when),) = run(
        bound, f"select {', '.join([mark] * 5)}", (7, 1.5, True, None, moment)
    )
    assert (number, float(real), flag, nothing) == (7, 1.5, True, None)
    assert str(when).startswith("2024-02-29 12:30:01.25")


def test_bound_values_need_no_description(cursor):
    run(cursor, "create table t (a int)")
    assert [column.name for column in cursor.describe("select a, 'x' as b from t")] == ["A", "B"]
    cursor.describe("insert into t values (1)")
    assert run(cursor, "select count(*) from t") == [(0,)]


def test_execute_string_with_comments(connection):
    sql = """-- a comment; with a semicolon, and 'a quote
    create or replace table t (a int); /* block; */
    insert into t values (1), (2); -- tail;
    // another kind
    select a from t order by a;
    """
    for remove in (False, True):
        cursors = connection.execute_string(sql, remove_comments=remove)
        assert list(cursors)[-1].fetchall() == [(1,), (2,)]
    streamed = list(
        connection.execute_stream(io.StringIO("create or replace table u (a int); select 3;"))
    )
    assert streamed[-1].fetchall() == [(3,)]


def test_write_pandas_with_aware_times_and_nulls(connection, cursor):
    run(
        cursor,
        "create temporary table t"
        " (file_url text, size number, confidence float, seen_at timestamp_tz)",
    )
    moments = pd.to_datetime(
        ["2024-05-01 10:00:00.123456+02:00", None, "1969-12-31 23:59:59.5Z"], utc=True
    )
    sent = pd.DataFrame(
        {"FILE_URL": ["a", None, "c'"], "SIZE": [1, 2, 3], "CONFIDENCE": [0.5, np.nan, 1.0]}
    )
    sent["SEEN_AT"] = moments
    for compression in ("snappy", "gzip"):
        success, n_chunks, n_rows, _ = write_pandas(
            connection, sent, "T", use_logical_type=True, compression=compression, chunk_size=2
        )
        assert (success, n_chunks, n_rows) == (True, 2, 3)
    got = cursor.execute("select distinct * from t order by size").fetch_pandas_all()
    microseconds = "datetime64[us, UTC]"
    assert list(got["SEEN_AT"].astype(microseconds)) == list(sent["SEEN_AT"].astype(microseconds))
    assert got["FILE_URL"].isna().tolist() == [False, True, False]
    assert run(cursor, "select count(*), count(seen_at) from t") == [(6, 4)]


def test_write_pandas_makes_tables_also_with_odd_names(connection, connect, cursor):
    before = run(connect().cursor(), "show stages in account")
    sent = pd.DataFrame({"A": [1, 2], "B": ["x", None]})
    for _ in range(2):
        write_pandas(connection, sent, "Odd table", auto_create_table=True, overwrite=True)
    assert run(cursor, 'select * from "Odd table" order by 1') == [(1, "x"), (2, None)]
    write_pandas(connection, sent, "Odd table", database="TESTS", schema="PUBLIC")
    assert run(cursor, 'select count(*) from tests.public."Odd table"') == [(4,)]
    assert run(connect().cursor(), "show stages in account") == before


def test_temporary_table_is_its_sessions_own(connection, connect, cursor):
    run(cursor, "create table t as select 1 as a")
    run(cursor, "create temporary table tests.public.mine (a int, b text)")
    run(cursor, "insert into TESTS.PUBLIC.mine values (1, 'x')")
    write_pandas(
        connection, pd.DataFrame({"A": [2], "B": ["y"]}), "MINE", database="TESTS", schema="PUBLIC"
    )
    assert run(cursor, "select count(*) from tests.public.mine m join t on t.a = m.a") == [(1,)]
    other = connect(database="TESTS", schema="PUBLIC").cursor()
    with pytest.raises(ProgrammingError) as missing:
        run(other, "select * from mine")
    assert missing.value.errno == 2003
    run(cursor, "drop table tests.public.mine")


def stage_with_parquet(cursor, tmp_path, **tables):
    run(cursor, "create or replace stage s encryption = (type = 'SNOWFLAKE_SSE')")
    for name, table in tables.items():
        pq.write_table(pa.table(table), tmp_path / f"{name} [1].parquet")
        run(cursor, f"put 'file://{tmp_path}/{name} [[]1].parquet' @s/parts auto_compress = false")


PARQUET = "file_format = (type = parquet)"


def test_copy_from_parquet(cursor, tmp_path):
    run(cursor, "create table t (path text, size number, extra text)")
    stage_with_parquet(
        cursor, tmp_path, a={"path": ["x"], "size": [1]}, b={"path": ["y", "z"], "size": [2, None]}
    )
    copy = f"copy into t from @s/parts {PARQUET} match_by_column_name = case_insensitive"
    assert [row[:3] for row in run(cursor, copy)] == [
        ("s/parts/a [1].parquet", "LOADED", 1),
        ("s/parts/b [1].parquet", "LOADED", 2),
    ]
    assert {row[1] for row in run(cursor, copy)} == {"LOAD_SKIPPED"}
    assert len(run(cursor, "select * from t")) == 3
    run(
        cursor,
        "copy into t (size, path)"
        " from (select $1:size::number, upper($1:path::text) from @s/parts/b)"
        f" {PARQUET} force = true purge = true",
    )
    assert run(cursor, "select path, size, extra from t where path = 'Y'") == [("Y", 2, None)]
    assert [row[0] for row in run(cursor, "list @s")] == ["s/parts/a [1].parquet"]
    assert run(cursor, f"copy into t from @s/none {PARQUET}")[0][0].startswith(
        "Copy executed with 0 files"
    )


def test_copy_errors(cursor, tmp_path):
    run(cursor, "create table t (path text)")
    stage_with_parquet(cursor, tmp_path, a={"path": ["x"]})
    with pytest.raises(ProgrammingError) as missing:
        run(
            cursor,
            f"copy into t from @s files = ('no.parquet') {PARQUET}"
            " match_by_column_name = case_insensitive",
        )
    assert missing.value.errno == 91016
    (tmp_path / "half.parquet").write_bytes((tmp_path / "a [1].parquet").read_bytes()[:60])
    run(cursor, f"put file://{tmp_path}/half.parquet @s auto_compress = false")
    with pytest.raises(ProgrammingError, match=r"half\.parquet"):
        run(cursor, f"copy into t from @s {PARQUET} match_by_column_name = case_insensitive")
    assert run(cursor, "select count(*) from t") == [(0,)]
    for unknown in (
        "copy into @s from t",
        "copy into t from @s",
        f"copy into t from @s {PARQUET} on_error = continue",
    ):
        with pytest.raises(ProgrammingError, match="Unsupported feature in the local stand-in"):
            run(cursor, unknown)


def test_update_from_with_qualified_names(cursor):
    run(
        cursor, "create table t as select column1 as a, column2 as b from values (1, 'x'), (2, 'y')"
    )
    run(cursor, "create table s as select 1 as a, 'new' as b")
    assert run(cursor, "update t set t.b = s.b from s where t.a = s.a") == [(1, 0)]
    assert cursor.rowcount == 1
    assert run(cursor, "select * from t order by a") == [(1, "new"), (2, "y")]


def test_merge_counts_and_duplicates(cursor):
    run(
        cursor, "create table t as select column1 as a, column2 as b from values (1, 'x'), (2, 'y')"
    )
    run(
        cursor,
        "create table s as select column1 as a, column2 as b from values (1, 'new'), (3, 'z')",
    )
    merge = """merge into tests.public.t as t using s on t.a = s.a
        when matched and s.b = 'gone' then delete
        when matched then update set t.b = s.b || coalesce(t.b, '')
        when not matched then insert (a, b) values (s.a, s.b)"""
    assert run(cursor, merge) == [(1, 1, 0)] and cursor.rowcount == 2
    assert run(cursor, "select * from t order by a") == [(1, "newx"), (2, "y"), (3, "z")]
    run(cursor, "insert into s values (3, 'again')")
    with pytest.raises(ProgrammingError, match="Duplicate row") as duplicate:
        run(cursor, merge)
    assert duplicate.value.errno == 100090
    update_only = merge.replace("when not matched then insert (a, b) values (s.a, s.b)", "")
    run(cursor, "delete from s where b in ('z', 'again')")
    run(cursor, "update s set b = 'gone'")
    assert run(cursor, update_only) == [(0, 1)]


def test_results_in_all_forms(connection, cursor):
    run(cursor, "create table t as select seq4() as i from table(generator(rowcount => 250001))")
    query = (
        "select i, 'x' || i as s,"
        " case when i % 2 = 0 then '2024-01-01 00:00:00'::timestamp_ntz end as at from t"
    )
    frame = cursor.execute(query).fetch_pandas_all()
    assert (len(frame), frame["AT"].isna().sum(), frame["I"].sum()) == (
        250001,
        125000,
        250000 * 250001 // 2,
    )
    assert sum(len(batch) for batch in cursor.execute(query).fetch_pandas_batches()) == 250001
    assert len(cursor.execute(query).fetchall()) == 250001
    cursor.execute(query)
    batches = pickle.dumps(cursor.get_result_batches())
    read = (
        "import pickle, sys; print(sum(len(b.to_pandas()) for b in pickle.load(sys.stdin.buffer)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", read], input=batches, capture_output=True, check=True
    )
    assert int(done.stdout) == 250001
    assert len(pickle.loads(batches)) == 3


def test_types_and_nulls(cursor):
    ((number, text, real, flag, none, day, moment),) = run(
        cursor,
        "select 1::number(10, 2), 'x', 0.5::float, true, null::timestamp_tz, '2024-01-02'::date,"
        " '2024-01-01 00:00:00 +0900'::timestamp_tz",
    )
    assert (float(number), text, real, flag, none, day) == (
        1.0,
        "x",
        0.5,
        True,
        None,
        dt.date(2024, 1, 2),
    )
    assert moment == dt.datetime(2023, 12, 31, 15, tzinfo=dt.UTC)


def test_statement_timeout(cursor):
    run(cursor, "alter session set statement_timeout_in_seconds = 1")
    slow = (
        "with r as (select seq4() as i from table(generator(rowcount => 300000))) "
        "select count(*) from r as a join r as b on a.i <> b.i + 1"
    )
    with pytest.raises(ProgrammingError, match="timeout of 1 second") as late:
        run(cursor, slow)
    assert late.value.errno == 630
    run(cursor, "alter session set statement_timeout_in_seconds = 0")
    assert run(cursor, "select 1") == [(1,)]


def test_session_variables(cursor):
    run(cursor, "set limit_ = 2")
    assert run(cursor, "select $limit_ + 1") == [(3,)]
    run(cursor, "unset limit_")
    with pytest.raises(ProgrammingError, match="LIMIT_"):
        run(cursor, "select $limit_")


@pytest.mark.parametrize(
    ("sql", "errno"),
    [
        ("select * from nope", 2003),
        ("insert into nope values (1)", 2003),
        ("drop table nope", 2003),
        ("select nope from (select 1 as a)", 904),
        ("selec 1", 1003),
        ("select 1; select 2", 8),
        ("select nope(1)", 2140),
        ("select 'x'::int", 100038),
    ],
)
def test_errors_have_snowflakes_numbers(cursor, sql, errno):
    with pytest.raises(ProgrammingError) as error:
        run(cursor, sql)
    assert error.value.errno == errno


@pytest.mark.parametrize(
    "sql",
    [
        "grant select on all tables in schema public to role r",
        "create warehouse w",
        "create role r",
        "create storage integration i type = external_stage",
        "create task t as begin select 1; end",
        "create stream st on directory(@s)",
        "call f()",
        "alter session set timezone = 'Asia/Tokyo'",
        "alter session set lock_timeout = 1",
        "alter warehouse w suspend",
        "begin select 1; end",
        "select $1 from @s/a.csv",
        "select build_scoped_file_url(@s, 'a')",
        "create stage x file_format = (type = csv) nonsense = 1",
        "alter stage s rename to t",
        "put file:///etc/hostname @~/x",
        "put file:///etc/hostname @%t",
        "undrop table t",
    ],
)
def test_what_is_not_supported_says_so(cursor, sql):
    run(cursor, "create stage s")
    with pytest.raises(ProgrammingError):
        run(cursor, sql)
    assert run(cursor, "select 1") == [(1,)]
