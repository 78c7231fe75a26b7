"""What happens to a session: reads go on, writes are whole or not there, messages help."""

import gc
import urllib.request

import pytest
from scenery.predictions import draw_files, make_run, tables_of
from scenery.recording_proxy import DROP, LOST, Proxy, recording_proxy
from scenery.tables import make_tables
from snowflake import connector
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error, OperationalError, ProgrammingError

import standin
from helpers.snowflake.connection import (
    SUCCESSORS,
    advised,
    connect,
    execute,
    parameters,
    query,
)
from helpers.snowflake.listing import list_files, sign_urls
from helpers.snowflake.writeback import write_back
from standin.lifecycle import DIRECT

DATABASE = "FAULTY"


@pytest.fixture
def proxied(running_standin):
    """A proxy and a connection through it."""
    with recording_proxy(running_standin) as proxy:
        connection = through(proxy)
        yield proxy, connection
        proxy.fault = lambda path, body: None
        connection.close()


@pytest.fixture
def all_through(proxied, monkeypatch):
    """Lets every later connection go through the proxy too."""
    proxy, _ = proxied
    monkeypatch.setattr(
        "helpers.snowflake.connection.parameters",
        lambda backend: parameters(backend) | {"port": proxy.port},
    )


def through(proxy: Proxy) -> SnowflakeConnection:
    connection = connector.connect(**parameters("local") | {"port": proxy.port})
    execute(connection, f"create database if not exists {DATABASE}")
    execute(connection, f"use schema {DATABASE}.public")
    return connection


def ended(proxy: Proxy) -> None:
    """End the session of the last statement, as Snowflake does with one silent for hours."""
    url = f"http://{proxy.server.host}:{proxy.server.port}/session?delete=true"
    request = urllib.request.Request(url, b"", {"Authorization": proxy.tokens[-1]}, method="POST")
    DIRECT.open(request, timeout=60).read()


def once(what, statement: str):
    """A fault for the first request whose statement begins so.

    what: the proxy's answer, or a function that returns it.
    """
    left = [what]

    def fault(path: str, body: dict) -> dict | str | None:
        if not left or not body.get("sqlText", "").lower().lstrip().startswith(statement):
            return None
        found = left.pop()
        return found() if callable(found) else found

    return fault


def refusal(code: int, message: str) -> dict:
    data = {"errorCode": f"{code:06d}", "sqlState": "57014"}
    return {"success": False, "code": f"{code:06d}", "message": message, "data": data}


@pytest.mark.parametrize("fault", [DROP, LOST])
def test_connection_that_breaks_is_no_matter(proxied, fault):
    """The connector sends the request again, by the same number, and the server runs it once."""
    proxy, connection = proxied
    execute(connection, "create or replace table counted (n number)")
    proxy.fault = once(fault, "insert")
    execute(connection, "insert into counted values (1)")
    assert execute(connection, "select count(*) from counted") == [(1,)]
    assert sum(text.startswith("insert") for text in proxy.statements()) == 2


def test_reads_go_on_after_the_session_has_ended(proxied, tmp_path):
    proxy, connection = proxied
    make_tables(connection, draw_files(tmp_path / "files"), DATABASE)
    listed = list_files(connection, "clothing_test", "relative_path", "clothing_dataset")
    ended(proxy)
    assert list_files(connection, "clothing_test", "relative_path", "clothing_dataset") == listed
    assert len(query(connection, "select * from clothing_test")) == len(listed)
    paths = [path for path, _, _ in listed]
    assert len(sign_urls(connection, "clothing_dataset", paths)) == len(paths)
    with pytest.raises(Error, match=r"The session is gone. Run the notebook again"):
        execute(connection, "update clothing_test set type = 'hat'")


def test_reads_of_a_lost_session_log_in_only_once(proxied, all_through):
    """One connection takes the reads over, and if that is lost too another one; a write fails."""
    proxy, connection = proxied
    execute(connection, "create or replace table kept as select 1 as n")
    for n_lost in (1, 2):
        ended(proxy)
        for _ in range(3):
            assert query(connection, "select n from kept").N.tolist() == [1]
        assert len(proxy.logins()) == 1 + n_lost
    with pytest.raises(Error, match=r"The session is gone"):
        execute(connection, "insert into kept values (2)")
    assert len(proxy.logins()) == 3
    assert query(connection, "select n from kept").N.tolist() == [1]


def test_connection_for_the_reads_ends_with_the_one_that_was_lost(proxied, all_through):
    proxy, _ = proxied
    lost = through(proxy)
    ended(proxy)
    query(lost, "select 1")
    successor = SUCCESSORS[lost]
    assert not successor.is_closed()
    lost.close()
    del lost
    gc.collect()
    assert successor.is_closed() and successor not in SUCCESSORS.values()


def test_reads_go_on_after_the_server_was_started_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(tmp_path / "own"))
    connection = connect("local")
    execute(connection, "create database restarted")
    execute(connection, "create table restarted.public.kept as select 1 as n")
    running = standin.status()
    assert running is not None
    standin.stop()
    standin.ensure_running(port=running.port)
    try:
        assert query(connection, "select n from kept").N.tolist() == [1]
        with pytest.raises(Error, match=r"The session is gone"):
            execute(connection, "insert into kept values (2)")
    finally:
        connection.close()
        standin.stop()


@pytest.mark.parametrize(
    "moment", ["create or replace temporary table", "put", "begin", "merge", "insert", "commit"]
)
def test_write_back_is_whole_or_not_there_when_the_session_ends(
    proxied, tmp_path, monkeypatch, moment
):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    proxy, connection = proxied
    make_tables(connection, draw_files(tmp_path / "files"), DATABASE)
    run = make_run(connection, "run", DATABASE)
    before = tables_of(connection)
    proxy.fault = once(lambda: ended(proxy), moment)
    with pytest.raises(Error, match=r"The session is gone. Run the notebook again"):
        write_back(connection, run)
    again = through(proxy)
    assert tables_of(again) == before
    assert write_back(again, run).updated == len(before[0])
    again.close()


@pytest.mark.parametrize(
    "code, said, advice",
    [
        (606, "No active warehouse selected in the current session.", "SNOWFLAKE_WAREHOUSE"),
        (
            90073,
            "Warehouse 'W' cannot be resumed because its resource monitor has exceeded its quota.",
            "its limit",
        ),
        (
            630,
            "Statement reached its statement timeout of 1 second(s) and was canceled.",
            "statement_timeout_in_seconds",
        ),
    ],
)
def test_message_says_what_to_do_and_nothing_is_written(
    proxied, tmp_path, monkeypatch, code, said, advice
):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    proxy, connection = proxied
    make_tables(connection, draw_files(tmp_path / "files"), DATABASE)
    run = make_run(connection, "run", DATABASE)
    before = tables_of(connection)
    for statement in ("select", "merge"):
        proxy.fault = once(refusal(code, said), statement)
        with pytest.raises(Error) as caught:
            if statement == "select":
                query(connection, "select 1")
            else:
                write_back(connection, run)
        assert said in str(caught.value) and advice in str(caught.value)
    assert tables_of(connection) == before


def test_statement_that_takes_too_long_is_stopped_and_named(proxied):
    _, connection = proxied
    execute(connection, "alter session set statement_timeout_in_seconds = 1")
    endless = (
        "select count(*) from table(generator(rowcount => 1000000000)) a, "
        "table(generator(rowcount => 1000)) b where random() < 0"
    )
    with pytest.raises(Error, match=r"statement timeout of 1 second.* Run the cell again"):
        query(connection, endless)
    assert execute(connection, "select 1") == [(1,)]


def test_no_answer_at_all_is_named(proxied):
    proxy, connection = proxied
    proxy.fault = lambda path, body: DROP if "query-request" in path else None
    with pytest.raises(
        Error, match=r"Snowflake does not answer, also after retries. Look at the network"
    ):
        query(connection, "select 1")


@pytest.mark.parametrize(
    "number, said, advice",
    [
        (390100, "Incorrect username or password was specified.", "RSA_PUBLIC_KEY"),
        (390144, "JWT token is invalid.", "RSA_PUBLIC_KEY"),
        (390102, "User temporarily locked. Try again later.", "mins_to_unlock"),
        (390422, "Incoming request with IP/Token 1.2.3.4 is not allowed", "network policy"),
        (390186, "Role 'R' specified in the connect string is not granted", "SNOWFLAKE_ROLE"),
        (252005, "Failed to convert current row, cause: HTTP status", "expire after six"),
        (253006, "File doesn't exist: /x", "Look at the file"),
        (None, "No such file or directory (os error 2)", "Look at the file"),
        (None, "No space left on device (os error 28)", "TUTORIAL_HOME"),
        (None, "HTTP 404: Not Found", "The stage's storage refuses it"),
        (250001, "Could not connect to Snowflake backend", "Look at the network"),
        (2003, "SQL compilation error: Table 'CONNECTION REFUSED' does not exist", ""),
        (100038, "Numeric value 'No such file' is not recognized", ""),
    ],
)
@pytest.mark.parametrize("kind", [Error, OperationalError, ProgrammingError])
def test_advice_is_of_the_cause_whatever_the_kind_of_error(kind, number, said, advice):
    with pytest.raises(kind) as caught, advised():
        raise kind(said, errno=number)
    assert advice in caught.value.msg
    assert caught.value.msg.strip().endswith(said) is not bool(advice)


def test_what_a_path_says_is_not_taken_for_the_network(connection, tmp_path):
    execute(connection, "create or replace temporary stage advised")
    with pytest.raises(Error) as caught:
        execute(connection, f"put 'file://{tmp_path}/gone.jpg' @advised")
    assert "Look at the file" in str(caught.value) and "network" not in str(caught.value)
