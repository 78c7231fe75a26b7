"""Who may talk to the stand-in, and what its SQL cannot reach."""

import gzip
import json
import re
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import duckdb
import psutil
import pytest
import requests
import snowflake.connector
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snowflake.connector.errors import DatabaseError, ProgrammingError

import standin
from standin.allowed import FUNCTIONS, VIEWS
from standin.serve import BODY_S, PASSWORD
from standin.signing import Signer

# what sqlglot knows, and Snowflake has
IN_BOTH = {"flatten", "generator"}


def open_connection(root: Path, **more: str) -> snowflake.connector.SnowflakeConnection:
    return snowflake.connector.connect(**standin.connection_parameters(root) | more)


def table_functions() -> list[str]:
    sql = "select distinct function_name from duckdb_functions() where function_type like '%table%'"
    return sorted(name for (name,) in duckdb.sql(sql).fetchall() if name.isidentifier())


def foreign_functions() -> list[str]:
    """Functions that would reach files, settings or the system."""
    sql = "select distinct function_name from duckdb_functions()"
    words = ("read", "parquet", "json_execute", "setting", "query", "secret", "getenv", "duckdb")
    words += ("pragma", "checkpoint", "pg_", "log", "variable", "nextval", "sleep", "glob_")
    names = [name for (name,) in duckdb.sql(sql).fetchall() if name.isidentifier()]
    return sorted(n for n in names if any(word in n for word in words) and n not in KNOWN)


KNOWN = {"log", "log2", "log10", "list", "parse_json"}


@pytest.fixture(scope="module")
def loot(running_standin):
    """Files that somebody else's SQL must not read, within the stand-in's folder and without."""
    folder = Path(tempfile.mkdtemp())
    for name in ("a.csv", "a.parquet", "a.json", "a.txt", "a.ndjson", "a.db"):
        (folder / name).write_text("secret,loot\n1,2\n")
    return [folder / "a.csv", running_standin.root / "secret.key", Path("/etc/hostname")]


@pytest.fixture(scope="module")
def cursor(running_standin):
    connection = open_connection(running_standin.root)
    with connection.cursor() as cursor:
        cursor.execute("create database WALLS")
        cursor.execute("create table t (a int)")
        yield cursor
        cursor.execute("drop database WALLS")
    connection.close()


def refused(cursor, sql: str) -> str:
    with pytest.raises(ProgrammingError) as error:
        cursor.execute(sql).fetchall()
    assert "Internal error" not in str(error.value), sql
    return str(error.value)


@pytest.mark.parametrize("name", table_functions())
def test_no_table_function_of_duckdb_is_one_of_snowflake(cursor, loot, name):
    if name in IN_BOTH:
        return
    for arguments in (f"'{loot[0]}'", ""):
        for form in ("{}", "table({})", "lateral {}"):
            refused(cursor, f"select * from {form.format(f'{name}({arguments})')}")


@pytest.mark.parametrize("name", foreign_functions())
def test_no_function_reaches_out(cursor, name):
    assert name.upper() not in FUNCTIONS
    refused(cursor, f"select {name}('a')")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "json", "ndjson", "txt", "db", "avro"])
def test_no_file_is_a_table(cursor, tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    file.write_text("secret,loot\n1,2\n")
    for name in (f"'{file}'", f'"{file}"', f"'file://{file}'"):
        said = refused(cursor, f"select * from {name}")
        assert "loot" not in said
        refused(cursor, f"create table copied as select * from {name}")
        refused(cursor, f"insert into t select a from {name}")
        refused(cursor, f"merge into t using {name} as s on t.a = s.a when matched then delete")


def test_not_even_its_own_files_are_tables(cursor, running_standin):
    for folder in ("stages", "parts", "db"):
        file = running_standin.root / folder / "loot.csv"
        file.write_text("secret,loot\n1,2\n")
        for name in (
            f"'{file}'",
            f'"{file}"',
            f"identifier('{file}')",
            f"identifier('\"{file}\"')",
        ):
            for form in ("{}", "({})", "t join {} on true", "(select * from {})"):
                refused(cursor, f"select * from {form.format(name)}")
            refused(cursor, f"create table copied as select * from {name}")
            refused(cursor, f"create view copied as select * from {name}")
            refused(cursor, f"with x as (select * from {name}) select * from x")
        file.unlink()


VIEWS_SQL = "select distinct view_name from duckdb_views() where schema_name = 'information_schema'"
BOOKKEEPING = re.compile("_fs_|standin|duckdb|pg_|pragma|sqlite", re.I)


@pytest.fixture(scope="module")
def constrained(running_standin):
    with open_connection(running_standin.root) as connection:
        cursor = connection.cursor()
        cursor.execute("create database INFORMED")
        cursor.execute("create table parent (a int primary key, b text unique not null)")
        cursor.execute("create table child (a int references parent (a))")
        cursor.execute("create temporary table passing (a int primary key)")
        cursor.execute("create view seen as select a from parent")
        cursor.execute("create stage marked")
        yield cursor
        cursor.execute("drop database INFORMED")


@pytest.mark.parametrize("view", sorted(name for (name,) in duckdb.sql(VIEWS_SQL).fetchall()))
@pytest.mark.parametrize("place", ["information_schema", "informed.INFORMATION_SCHEMA"])
def test_views_of_information_schema_tell_of_the_users_own(constrained, view, place):
    sql = f"select * from {place}.{view}"
    if view.upper() not in VIEWS:
        assert "does not exist" in refused(constrained, sql)
        return
    listed = constrained.execute(sql).fetchall()
    assert listed and not BOOKKEEPING.search(str(listed)), view
    assert {row[0] for row in listed} == {"INFORMED"} or view == "databases"


def test_constraints_are_those_that_snowflake_keeps(constrained):
    sql = "select table_name, constraint_type from information_schema.table_constraints order by 1"
    kinds = [("CHILD", "FOREIGN KEY"), ("PARENT", "PRIMARY KEY"), ("PARENT", "UNIQUE")]
    assert sorted(constrained.execute(sql).fetchall()) == kinds
    assert [column.name for column in constrained.description] == ["TABLE_NAME", "CONSTRAINT_TYPE"]
    rules = "select constraint_name, update_rule from information_schema.referential_constraints"
    assert len(constrained.execute(rules).fetchall()) == 1


SHOWN = ["tables", "terse tables", "schemas", "objects", "views", "columns", "primary keys"]


@pytest.mark.parametrize("what", [*SHOWN, "imported keys", "unique keys", "stages", "databases"])
@pytest.mark.parametrize("where", ["", "in account"])
def test_show_tells_of_no_bookkeeping(constrained, what, where):
    within = "" if what == "databases" else where
    shown = constrained.execute(f"show {what} {within}").fetchall()
    assert not BOOKKEEPING.search(str(shown))
    assert shown or what == "unique keys"


def test_a_request_is_its_sessions_own(running_standin):
    url = f"http://127.0.0.1:{running_standin.port}/queries/v1/query-request?requestId=same"
    answers = []
    for number in (1, 2):
        body = {"PASSWORD": (running_standin.root / PASSWORD).read_text()}
        token = log_in(running_standin, body).json()["data"]["token"]
        headers = {"Authorization": f'Snowflake Token="{token}"'}
        for _ in range(2):  # the same request again gets the same answer
            statement = {"sqlText": f"select {number} as n"}
            sent = requests.post(url, json=statement, headers=headers, timeout=10)
            answers.append(sent.json()["data"]["queryId"])
    assert answers[0] == answers[1] != answers[2] == answers[3]


def test_a_misspelt_option_removes_nothing(cursor, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    cursor.execute("create or replace stage st")
    cursor.execute(f"put 'file://{tmp_path}/a.txt' @st auto_compress = false")
    refused(cursor, "remove @st patern = '.*b'")
    refused(cursor, "list @st nonsense = 1")
    assert len(cursor.execute("list @st").fetchall()) == 1
    cursor.execute("drop stage st")


def test_a_clock_that_is_set_loses_no_running_server(tmp_path, monkeypatch):
    server = standin.ensure_running(tmp_path)
    boot, created = psutil.boot_time, psutil.Process.create_time
    for step_s in (1, -1, 3600.5, -86400):
        monkeypatch.setattr(psutil, "boot_time", lambda step_s=step_s: boot() + step_s)
        monkeypatch.setattr(
            psutil.Process, "create_time", lambda self, step_s=step_s: created(self) + step_s
        )
        assert standin.status(tmp_path) == standin.ensure_running(tmp_path) == server
    assert standin.stop(tmp_path)


def test_a_page_of_another_origin_cannot_log_in(running_standin):
    password = {"PASSWORD": (running_standin.root / PASSWORD).read_text()}
    assert log_in(running_standin, password, Origin="https://evil.example").status_code == 403


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{}')",
        "select * from read_blob('{}')",
        "select * from read_csv('{}')",
        "select * from query('select 1')",
        "copy t to '{}'",
        "copy (select 1) to '{}'",
        "attach '{}' as loot",
        "export database '{}'",
        "describe '{}'",
        "describe select * from '{}'",
        "summarize t",
        "install httpfs",
        "load httpfs",
        "pragma version",
        "select current_setting('home_directory')",
        "select unnest([1, 2])",
        "select [x for x in [1, 2]]",
        "select columns('a') from t",
        "call pragma_version()",
        "create macro f() as 1",
        "create secret s (type s3)",
        "select * from duckdb_tables",
        "select * from sqlite_master",
        "select * from pg_catalog.pg_class",
        "select * from system.main.duckdb_tables",
        "select * from _fs_global.standin.directory",
        'select * from "_fs_global"."standin"."stage_detail"',
        "drop table _fs_global.standin.directory",
        "drop schema _fs_global.standin",
        "drop database _fs_global",
        "drop schema WALLS._fs_information_schema cascade",
        "delete from _fs_global._fs_information_schema._fs_stages",
        "create table _fs_global.standin.mine (a int)",
        "alter table _fs_global.standin.directory add column b int",
        "use database memory",
        'use database "memory"',
        'use schema "_fs_global"."standin"',
        "create view v as select * from read_text('{}')",
    ],
)
def test_what_snowflake_does_not_know_is_an_sql_error(cursor, loot, sql):
    for file in loot:
        refused(cursor, sql.format(file))
    assert cursor.execute("select count(*) from t").fetchall() == [(0,)]
    assert cursor.execute("show stages").fetchall() == []  # its own tables are there


def log_in(server, body: dict, **headers: str) -> requests.Response:
    url = f"http://{server.host}:{server.port}/session/v1/login-request"
    return requests.post(url, json={"data": body}, headers=headers, timeout=10)


def test_only_who_can_read_its_folder_may_log_in(running_standin):
    password = running_standin.root / PASSWORD
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert stat.S_IMODE(running_standin.root.stat().st_mode) == 0o700
    for wrong in ("", "sandbox", "guess", password.read_text()[:-1], None, 1):
        answer = log_in(running_standin, {"LOGIN_NAME": "x", "PASSWORD": wrong}).json()
        assert not answer["success"] and answer["code"] == "390100"
    with pytest.raises(DatabaseError, match="Incorrect username or password"):
        open_connection(running_standin.root, password="guess")
    assert log_in(running_standin, {"PASSWORD": password.read_text()}).json()["success"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_page_that_has_another_name_point_here_is_refused(running_standin, host):
    password = (running_standin.root / PASSWORD).read_text()
    assert log_in(running_standin, {"PASSWORD": password}, Host=host).status_code == 400
    health = f"http://127.0.0.1:{running_standin.port}/health"
    assert requests.get(health, headers={"Host": host}, timeout=10).status_code == 400


def test_a_body_is_bounded_before_anyone_has_logged_in(running_standin):
    url = f"http://127.0.0.1:{running_standin.port}/session/v1/login-request"
    bomb = gzip.compress(bytes(200_000_000))
    packed = {"Content-Encoding": "gzip"}
    assert requests.post(url, bomb, headers=packed, timeout=10).status_code == 413
    assert requests.post(url, bytes(10_000_000), timeout=10).status_code == 413
    small = gzip.compress(json.dumps({"data": {}}).encode())
    assert requests.post(url, small, headers=packed, timeout=10).status_code == 200


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts),
    max_leaves=5,
)
LOG_IN_KEYS = ["PASSWORD", "LOGIN_NAME", "ACCOUNT_NAME", "CLIENT_APP_VERSION", "SESSION_PARAMETERS"]
BODIES = (
    st.binary(max_size=30)
    | PARTS.map(lambda body: json.dumps(body).encode())
    | PARTS.map(lambda data: json.dumps({"data": data}).encode())
    | st.dictionaries(st.sampled_from(LOG_IN_KEYS), PARTS).map(
        lambda data: json.dumps({"data": data}).encode()
    )
)


@given(BODIES, st.sampled_from(["", "gzip"]))
@settings(max_examples=60)
@example(b"[" * 50_000, "")
@example(b'{"data": "no object"}', "")
@example(b"no gzip", "gzip")
@example(b"\xff\xfe", "")
def test_a_log_in_that_says_nothing_is_one_without_password(running_standin, body, packed):
    url = f"http://127.0.0.1:{running_standin.port}/session/v1/login-request"
    answer = requests.post(url, body, headers={"Content-Encoding": packed}, timeout=10)
    assert answer.status_code == 200
    assert answer.json()["code"] == "390100" and answer.json()["success"] is False


@given(st.dictionaries(st.sampled_from(LOG_IN_KEYS[1:]), PARTS))
@settings(max_examples=40)
@example({"SESSION_PARAMETERS": [1], "LOGIN_NAME": {"a": 1}, "ACCOUNT_NAME": 5})
def test_odd_parts_keep_nobody_out_who_knows_the_password(running_standin, parts):
    body = parts | {"PASSWORD": (running_standin.root / PASSWORD).read_text()}
    answer = log_in(running_standin, body)
    assert answer.status_code == 200 and answer.json()["success"] is True, answer.text


@pytest.mark.parametrize("body", [b"", b"[]", b"no json", b'{"sqlText": 5, "bindings": [1]}'])
def test_a_request_that_says_nothing_is_an_error_of_the_statement(running_standin, body):
    known = {"PASSWORD": (running_standin.root / PASSWORD).read_text()}
    token = log_in(running_standin, known).json()["data"]["token"]
    url = f"http://127.0.0.1:{running_standin.port}/queries/v1/query-request"
    headers = {"Authorization": f'Snowflake Token="{token}"'}
    answer = requests.post(url, body, headers=headers, timeout=10).json()
    assert answer["success"] is False and answer["code"] in ("000900", "001003", "000002")


@pytest.mark.slow
def test_half_a_request_is_given_up(running_standin, cursor, tmp_path):
    (tmp_path / "whole.txt").write_text("whole")
    cursor.execute("create or replace stage halves")
    token = Signer.load(running_standin.root / "secret.key", "").transfer_token(
        "put", "WALLS/PUBLIC/HALVES"
    )
    sent = [
        b"",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /session/v1/login-request HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
        b"PUT /stage-files/WALLS/PUBLIC/HALVES/half.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Length: 9\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\nhalf",
    ]
    clients = [socket.create_connection(("127.0.0.1", running_standin.port)) for _ in sent]
    for client, request in zip(clients, sent, strict=True):
        client.settimeout(BODY_S + 20)
        client.sendall(request)
    answers = [client.recv(1000).partition(b"\r\n")[0] for client in clients]
    assert answers[:2] == [b"", b""]
    assert b" 408 " in answers[2] and b" 400 " in answers[3]
    for client in clients:
        client.close()
    assert cursor.execute("list @halves").fetchall() == []
    assert list((running_standin.root / "parts").iterdir()) == []
    cursor.execute(f"put 'file://{tmp_path}/whole.txt' @halves auto_compress = false")
    cursor.execute("drop stage halves")


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    server = standin.ensure_running(tmp_path / "root")
    subprocess.run(["kill", "-9", str(server.pid)], check=True)
    standin.ensure_running(tmp_path / "root")
    standin.stop(tmp_path / "root")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_password_that_was_deleted_or_emptied_is_there_again(running_standin):
    password = running_standin.root / PASSWORD
    before = password.read_text()
    for spoil in (password.unlink, lambda: password.write_text("")):
        spoil()
        open_connection(running_standin.root).close()
        assert password.read_text() == before
        assert stat.S_IMODE(password.stat().st_mode) == 0o600


def test_an_empty_key_is_made_anew(tmp_path):
    (tmp_path / "secret.key").touch()
    standin.ensure_running(tmp_path)
    standin.stop(tmp_path)
    assert len((tmp_path / "secret.key").read_text()) == 64
