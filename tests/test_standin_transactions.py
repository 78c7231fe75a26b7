"""Transactions of the stand-in, through the real connector."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import snowflake.connector
from snowflake.connector.errors import ProgrammingError
from snowflake.connector.pandas_tools import write_pandas

import standin


def run(cursor, sql, *values):
    return cursor.execute(sql, *values).fetchall()


@pytest.fixture
def cursor(connection):
    cursor = connection.cursor()
    run(cursor, "create table t (a int)")
    return cursor


@pytest.fixture
def other(connect, cursor):
    return connect(database="TESTS", schema="PUBLIC").cursor()


def rows(cursor) -> list[int]:
    return [row[0] for row in run(cursor, "select a from t order by a")]


def test_others_see_it_after_commit(cursor, other):
    run(cursor, "begin")
    run(cursor, "insert into t values (1)")
    assert (rows(cursor), rows(other)) == ([1], [])
    run(cursor, "commit")
    assert rows(other) == [1]


def test_rollback(cursor, other):
    run(cursor, "begin transaction")
    run(cursor, "insert into t values (1)")
    run(cursor, "rollback")
    run(cursor, "insert into t values (2)")
    assert rows(other) == [2]
    run(cursor, "commit")
    run(cursor, "rollback")


@pytest.mark.parametrize(
    "bad",
    ["select * from nope", "insert into t values ('x')", "insert into t select 'x'::int", "selec"],
)
def test_an_error_undoes_only_itself(cursor, other, bad):
    run(cursor, "begin")
    run(cursor, "insert into t values (1)")
    run(cursor, "insert into t values (2)")
    with pytest.raises(ProgrammingError):
        run(cursor, bad)
    run(cursor, "delete from t where a = 1")
    assert (rows(cursor), rows(other)) == ([2], [])
    run(cursor, "commit")
    assert rows(other) == [2]


def test_an_error_first_leaves_the_transaction_open(cursor, other):
    run(cursor, "begin")
    with pytest.raises(ProgrammingError):
        run(cursor, "insert into t values ('x')")
    run(other, "insert into t values (5)")
    run(cursor, "insert into t values (1)")
    assert rows(other) == [5]
    run(cursor, "commit")
    assert rows(other) == [1, 5]


def test_a_copy_is_kept_after_an_error(connection, cursor, other):
    run(cursor, "create temporary table staged (a int)")
    write_pandas(connection, pd.DataFrame({"A": range(1000)}), "STAGED")
    run(cursor, "begin")
    run(
        cursor,
        "merge into t using staged s on t.a = s.a when not matched then insert (a) values (s.a)",
    )
    with pytest.raises(ProgrammingError):
        run(cursor, "insert into t select 'x'")
    run(cursor, "commit")
    assert len(rows(other)) == 1000


def test_a_transaction_that_cannot_be_kept_fails_loudly(cursor, other):
    run(cursor, "begin")
    run(
        cursor,
        "insert into t select 1 from (select seq4() as i from table(generator(rowcount => 10000))) "
        "where uniform(0::float, 1::float, random()) < 0.5",
    )
    with pytest.raises(ProgrammingError):
        run(cursor, "select * from nope")
    for statement in ("insert into t values (2)", "begin", "commit"):
        with pytest.raises(ProgrammingError, match=r"rolled back.*another number of rows"):
            run(cursor, statement)
    assert rows(other) == []
    run(cursor, "insert into t values (3)")
    assert rows(other) == [3]


def test_ddl_commits(cursor, other):
    run(cursor, "begin")
    run(cursor, "insert into t values (1)")
    run(cursor, "create table u (a int)")
    run(cursor, "rollback")
    assert rows(other) == [1]


def test_a_failed_statement_alone_changes_nothing(cursor, other):
    with pytest.raises(ProgrammingError):
        run(
            cursor,
            "insert into t select case when i = 5000 then 'x' else '1' end::int"
            " from (select seq4() as i from table(generator(rowcount => 9000)))",
        )
    assert rows(other) == []


def test_autocommit_off_by_argument(connect, cursor, other):
    with_argument = connect(database="TESTS", schema="PUBLIC", autocommit=False)
    mine = with_argument.cursor()
    run(mine, "insert into t values (1)")
    assert rows(other) == []
    with_argument.rollback()
    run(mine, "insert into t values (2)")
    with_argument.commit()
    assert rows(other) == [2]


def test_autocommit_off_by_alter_session(connection, cursor, other):
    run(cursor, "alter session set autocommit = false")
    run(cursor, "insert into t values (1)")
    connection.rollback()
    run(cursor, "insert into t values (2)")
    assert rows(other) == []
    connection.commit()
    connection.autocommit(True)
    run(cursor, "insert into t values (3)")
    assert rows(other) == [2, 3]


def test_reads_in_a_transaction_see_what_others_commit(cursor, other):
    run(cursor, "begin")
    assert rows(cursor) == []
    run(other, "insert into t values (1)")
    assert rows(cursor) == [1]
    run(cursor, "update t set a = 2 where a = 1")
    run(cursor, "commit")
    assert rows(other) == [2]


def test_a_second_writer_waits(cursor, other):
    run(cursor, "begin")
    run(cursor, "insert into t values (1)")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run, other, "update t set a = a + 10")
        assert rows(cursor) == [1]
        assert not waiting.done()
        run(cursor, "commit")
        assert waiting.result(timeout=30) == [(1, 0)]
    assert rows(cursor) == [11]


def test_many_writers_lose_nothing(connect, cursor):
    run(cursor, "insert into t values (0)")
    cursors = [connect(database="TESTS", schema="PUBLIC").cursor() for _ in range(6)]

    def add(mine) -> None:
        for _ in range(10):
            run(mine, "update t set a = a + 1")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, cursors))
    assert rows(cursor) == [60]


def test_closing_rolls_back(connect, cursor, other):
    leaving = connect(database="TESTS", schema="PUBLIC")
    run(leaving.cursor(), "begin")
    run(leaving.cursor(), "insert into t values (1)")
    leaving.close()
    run(other, "insert into t values (2)")
    assert rows(other) == [2]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server that soon loses patience: with silent sessions, and with waiting writers."""
    root = tmp_path_factory.mktemp("impatient")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_SANDBOX_IDLE_S", "2")
        patch.setenv("TUTORIAL_SANDBOX_LOCK_S", "0.5")
        standin.ensure_running(root)
    yield root
    standin.stop(root)


@pytest.fixture
def pair(impatient):
    """Two cursors on the impatient server."""
    parameters = standin.connection_parameters(impatient)
    connections = [snowflake.connector.connect(**parameters) for _ in range(2)]
    first, second = (connection.cursor() for connection in connections)
    run(first, "create or replace database TESTS")
    run(second, "use database tests")
    run(first, "create table t (a int)")
    yield first, second
    for connection in connections:
        connection.close()


def test_waiting_ends_with_an_error_that_names_the_holder(pair):
    first, second = pair
    run(first, "begin")
    run(first, "insert into t values (1)")
    with pytest.raises(
        ProgrammingError, match=r"Waited 0.5 s for the transaction of session \d+"
    ) as waited:
        run(second, "insert into t values (2)")
    assert waited.value.errno == 625
    run(first, "commit")
    run(second, "insert into t values (3)")
    assert rows(first) == [1, 3]


def test_a_silent_session_is_rolled_back_and_hears_of_it(pair):
    first, second = pair
    run(first, "begin")
    run(first, "insert into t values (1)")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            run(second, "insert into t values (2)")
            break
        except ProgrammingError:
            continue
    with pytest.raises(ProgrammingError, match="silent for more than 2 s"):
        run(first, "insert into t values (9)")
    with pytest.raises(ProgrammingError, match="rolled back"):
        run(first, "commit")
    assert rows(first) == [2]
    run(first, "insert into t values (3)")
    assert rows(second) == [2, 3]


@pytest.mark.slow
def test_a_long_statement_is_not_silence(pair):
    first, second = pair
    run(first, "begin")
    run(first, "insert into t values (1)")
    started = time.monotonic()
    run(
        first,
        "insert into t with many as (select seq4() n from table(generator(rowcount => 80000)))"
        " select count(*) from many a join many b on a.n <> b.n + 1",
    )
    assert time.monotonic() - started > 2  # longer than a session may be silent
    run(first, "commit")
    assert len(rows(second)) == 2
