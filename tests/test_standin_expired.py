"""Rows of a large result whose addresses have expired, as after six hours on an account."""

import pyarrow.parquet as pq
import pytest
from snowflake.connector.errors import Error

import standin
from helpers.snowflake.cleanup import export
from helpers.snowflake.connection import advised, connect, execute, query
from helpers.snowflake.listing import sign_urls

MANY = "select seq4() as n from table(generator(rowcount => 250000))"  # three chunks


@pytest.fixture(scope="module", params=["-1", "60"])
def results_s(request, tmp_path_factory):
    """A server whose addresses are good for so many seconds."""
    root = tmp_path_factory.mktemp("expired")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_SANDBOX_RESULTS_S", request.param)
        patch.setenv("TUTORIAL_SANDBOX", str(root))
        standin.ensure_running(root)
        yield float(request.param)
    standin.stop(root)


@pytest.fixture
def local(results_s):
    with connect("local") as connection:
        execute(connection, "create or replace database EXPIRING")
        yield connection


def batches(connection, sql):
    with advised(), connection.cursor() as cursor:
        cursor.execute(sql)
        return [n for batch in cursor.fetch_pandas_batches() for n in batch["N"]]


@pytest.mark.parametrize("read", [query, execute, batches])
def test_a_read_of_expired_rows_says_what_to_do(local, results_s, read):
    if results_s > 0:
        assert len(read(local, MANY)) == 250_000
    else:
        with pytest.raises(Error, match=r"addresses of rows expire.* Run the cell again"):
            read(local, MANY)
    assert execute(local, "select 1") == [(1,)]  # the session goes on


def test_an_export_of_expired_rows_keeps_the_earlier_one(local, results_s, tmp_path):
    execute(local, "create table clothing_failure as select 1 as n")
    assert export(local, "EXPIRING", tmp_path) == {"clothing_failure": 1}
    execute(local, f"insert into clothing_failure {MANY}")
    if results_s > 0:
        assert export(local, "EXPIRING", tmp_path) == {"clothing_failure": 250_001}
        return
    with pytest.raises(Error, match="addresses of rows expire"):
        export(local, "EXPIRING", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["clothing_failure.parquet"]
    assert pq.read_metadata(tmp_path / "clothing_failure.parquet").num_rows == 1


def test_a_page_that_comes_with_its_answer_does_not_expire(local):
    execute(local, "create stage images encryption = (type = 'SNOWFLAKE_SSE')")
    assert len(sign_urls(local, "images", [f"{n}.jpg" for n in range(2500)])) == 2500
