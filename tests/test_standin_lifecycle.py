"""Start, stop, crash and restart of the stand-in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import snowflake.connector
from snowflake.connector.errors import Error

import standin
from standin import lifecycle


@pytest.fixture
def root(tmp_path):
    """A folder of its own; the server on it is stopped after the test."""
    folder = tmp_path / "sand box"
    yield folder
    standin.stop(folder)


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "standin", *arguments, "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def open_connection(root: Path, **more: object) -> snowflake.connector.SnowflakeConnection:
    return snowflake.connector.connect(**standin.connection_parameters(root), **more)


def run(connection, sql):
    return connection.cursor().execute(sql).fetchall()


def servers_of(root: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "serve" in line and str(root.resolve()) in line:
            found.append(process.pid)
    return found


def test_commands_and_their_exit_codes(root):
    assert (command(root, "status").returncode, command(root, "stop").returncode) == (1, 1)
    started = command(root, "start")
    assert started.returncode == 0 and "Started" in started.stdout
    server = standin.status(root)
    assert server and str(server.pid) in started.stdout and server.root == root.resolve()
    assert "Already running" in command(root, "start").stdout
    assert command(root, "status").returncode == 0
    refused = command(root, "serve")
    assert refused.returncode == 3 and f"pid {server.pid}" in refused.stderr
    assert command(root, "start", "--port", str(server.port + 1)).returncode == 3
    assert command(root, "stop").returncode == 0
    assert standin.status(root) is None and servers_of(root) == []


def test_two_at_once_end_with_one_server(root):
    code = (
        "import sys, pathlib, standin as s; print(s.ensure_running(pathlib.Path(sys.argv[1])).pid)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = {process.communicate(timeout=60)[0].strip() for process in both}
    assert len(pids) == 1 and servers_of(root) == [int(pids.pop())]


def test_server_is_on_its_own(root):
    server = standin.ensure_running(root)
    assert os.getsid(server.pid) == server.pid
    loaded = Path(f"/proc/{server.pid}/maps")
    if loaded.exists():
        assert "torch" not in loaded.read_text() and "pandas" not in loaded.read_text()


def test_port_in_use(root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(standin.StartError, match=f"Port {port} on 127.0.0.1 cannot be used"):
            standin.ensure_running(root, port=port)
    assert servers_of(root) == []


def test_leftovers_do_not_block_the_next_start(root):
    for name in ("parts", "db"):
        (root / name).mkdir(parents=True)
    (root / "parts" / "half.part").write_bytes(b"x")
    (root / "server.json.part").write_text("{")
    (root / "lock").write_text("1")
    stale = {
        "pid": os.getpid(),
        "host": "127.0.0.1",
        "port": 9,
        "root": str(root.resolve()),
        "started": 1.0,
    }
    (root / "server.json").write_text(json.dumps(stale))
    assert standin.status(root) is None
    assert standin.stop(root) is False
    server = standin.ensure_running(root)
    assert server.pid != os.getpid() and list((root / "parts").iterdir()) == []
    good = (root / "server.json").read_text()
    (root / "server.json").write_text("not json")
    assert standin.status(root) is None
    (root / "server.json").write_text(good)


def test_state_and_signed_urls_survive_a_restart(root, tmp_path):
    first = standin.ensure_running(root)
    (tmp_path / "a.jpg").write_bytes(b"hat")
    connection = open_connection(root)
    run(connection, "create database CLOTHING")
    run(connection, "create table t as select 1 as a")
    run(
        connection,
        "create stage s encryption = (type = 'SNOWFLAKE_SSE') directory = (enable = true)",
    )
    run(connection, "create temporary stage gone")
    run(connection, f"put file://{tmp_path}/a.jpg @s auto_compress = false")
    run(connection, "alter stage s refresh")
    run(
        connection,
        "create view v as select get_presigned_url(@s, relative_path) as url from directory(@s)",
    )
    url = run(connection, "select url from v")[0][0]
    listed = run(connection, "select * from directory(@s)")
    assert standin.stop(root)
    second = standin.ensure_running(root)
    assert (second.port, second.pid != first.pid) == (first.port, True)
    with pytest.raises(Error):
        run(connection, "select 1")
    again = open_connection(root, database="CLOTHING", schema="PUBLIC")
    assert run(again, "select a from t") == [(1,)]
    assert run(again, "select * from directory(@s)") == listed
    assert [row[1] for row in run(again, "show stages")] == ["S"]
    with lifecycle.urllib.request.urlopen(url, timeout=10) as response:
        assert response.read() == b"hat"
    again.close()


def test_killed_amid_writes_keeps_what_was_committed(root):
    server = standin.ensure_running(root)
    connection = open_connection(root, network_timeout=2, login_timeout=2)
    run(connection, "create database CLOTHING")
    run(
        connection,
        "create table t as select seq4() as a, 0 as b from table(generator(rowcount => 1000))",
    )
    run(connection, "create table log (n int)")
    acknowledged = []
    stop = threading.Event()

    def write() -> None:
        for n in range(1, 100_000):
            try:
                run(connection, "begin")
                run(
                    connection,
                    "merge into t using (select a as k from t) on a = k"
                    " when matched then update set b = b + 1",
                )
                run(connection, f"insert into log values ({n})")
                run(connection, "commit")
            except Error:
                return
            acknowledged.append(n)
            if stop.is_set():
                return

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        deadline = time.monotonic() + 30
        while len(acknowledged) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGKILL)
        stop.set()
        writing.result(timeout=120)
    again = open_connection(root, database="CLOTHING", schema="PUBLIC")
    ((low, high, n_rows),) = run(again, "select min(b), max(b), count(*) from t")
    assert low == high == run(again, "select count(*) from log")[0][0] and n_rows == 1000
    assert high in (len(acknowledged), len(acknowledged) + 1)
    again.close()


def test_killed_in_a_transaction_keeps_nothing_of_it(root):
    server = standin.ensure_running(root)
    connection = open_connection(root, network_timeout=2, login_timeout=2)
    run(connection, "create database CLOTHING")
    run(connection, "create table t as select 1 as a")
    run(connection, "begin")
    run(connection, "delete from t")
    os.kill(server.pid, signal.SIGKILL)
    again = open_connection(root, database="CLOTHING", schema="PUBLIC")
    assert run(again, "select a from t") == [(1,)]
    with pytest.raises(Error):
        run(connection, "commit")
    again.close()


def test_reset_deletes_everything_of_its_own(root):
    standin.ensure_running(root)
    run(open_connection(root), "create database CLOTHING")
    (root / "mine.txt").write_text("kept")
    standin.reset(root)
    assert servers_of(root) == [] and [file.name for file in root.iterdir()] == ["mine.txt"]
    connection = open_connection(root)
    assert "CLOTHING" not in str(run(connection, "show databases"))
    connection.close()


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(tmp_path))
    assert lifecycle.default_root() == tmp_path
    monkeypatch.delenv("TUTORIAL_SANDBOX")
    assert lifecycle.default_root() == Path(__file__).resolve().parents[1] / ".sandbox"


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("named", ["", "corp.example", "a.example, corp.example", "*"])
def test_no_proxy_is_on_the_way_to_the_stand_in_nor_to_what_was_named(
    running_standin, monkeypatch, name, named
):
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, named)
    standin.connection_parameters()
    standin.connection_parameters()
    hosts = ["127.0.0.1"] + (["corp.example"] if named else [])
    assert all(requests.utils.should_bypass_proxies(f"http://{host}", None) for host in hosts)
    if named != "*":
        assert not requests.utils.should_bypass_proxies("http://other.example", None)
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"]


def test_a_name_that_only_contains_the_stand_ins_is_not_taken_for_it(running_standin, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "x127.0.0.1x")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    standin.connection_parameters()
    assert requests.utils.should_bypass_proxies("http://127.0.0.1", None)


@pytest.mark.parametrize("name", ["[2024] my work", "a *", "it's"])
def test_it_may_lie_in_a_folder_of_any_name(tmp_path, name):
    root = tmp_path / name / ".sandbox"
    pq.write_table(pa.table({"A": [1, 2]}), tmp_path / "part.parquet")
    try:
        with snowflake.connector.connect(**standin.connection_parameters(root)) as connection:
            cursor = connection.cursor()
            for sql in (
                "create database ODD",
                "create table t (a number)",
                "create stage s",
                f"put 'file://{tmp_path}/part.parquet' @s auto_compress = false",
                "copy into t from @s match_by_column_name = case_insensitive "
                "file_format = (type = parquet)",
            ):
                cursor.execute(sql)
            assert cursor.execute("select sum(a) from t").fetchall() == [(3,)]
    finally:
        standin.stop(root)


def test_a_folder_that_duckdb_does_not_take_is_named(tmp_path):
    with pytest.raises(standin.StartError, match=r"what\?: DuckDB takes no \? in a path\. Set TUT"):
        standin.ensure_running(tmp_path / "what?")


@pytest.mark.parametrize("start", [standin.ensure_running, standin.connection_parameters])
def test_a_folder_below_a_file_or_that_is_one_says_so(tmp_path, start):
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "below"):
        with pytest.raises(standin.StartError, match=f"{root} cannot be made .*TUTORIAL_HOME"):
            start(root)
        with pytest.raises(standin.StartError, match="TUTORIAL_HOME"), standin.in_use(root):
            pass
