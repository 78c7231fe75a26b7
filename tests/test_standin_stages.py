"""Stages of the stand-in, through the real connector."""

from __future__ import annotations

import gzip
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from snowflake.connector.errors import ProgrammingError

from helpers.snowflake.connection import connect, execute

ODD_NAMES = [
    "a b.jpg",
    "it's.jpg",
    "ünï.jpg",
    "100%25.jpg",
    "plus+sign.jpg",
    'dq".jpg',
    "hash#q?.jpg",
    "a&b=c;d.jpg",
]
STAGE = (
    "create or replace stage s encryption = (type = 'SNOWFLAKE_SSE') directory = (enable = true)"
)


@pytest.fixture
def cursor(connection):
    return connection.cursor()


def run(cursor, sql, *values):
    return cursor.execute(sql, *values).fetchall()


def files_in(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


def status_of(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(url)
    return refused.value.code


def paths(cursor, stage: str = "s") -> list[str]:
    return [
        row[0] for row in run(cursor, f"select relative_path from directory(@{stage}) order by 1")
    ]


def test_odd_names_from_put_to_signed_url_and_get(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ODD_NAMES)
    put = (
        f"put 'file://{source}/*.jpg' '@s/test/a b/'"
        " auto_compress = false overwrite = true parallel = 8"
    )
    assert {row[6] for row in run(cursor, put)} == {"UPLOADED"}
    assert {row[6] for row in run(cursor, put.replace("overwrite = true", ""))} == {"SKIPPED"}
    run(cursor, "alter stage s refresh")
    signed = run(
        cursor,
        "select relative_path, get_presigned_url(@s, relative_path) as url from directory(@s)",
    )
    assert {path: fetch(url) for path, url in signed} == {
        f"test/a b/{n}": n.encode() for n in ODD_NAMES
    }
    target = tmp_path / "target"
    target.mkdir()
    run(cursor, f"get '@s/test/a b' 'file://{target}/'")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == {
        n: n.encode() for n in ODD_NAMES
    }


def test_put_compresses_unless_told_otherwise(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.txt"])
    assert run(cursor, f"put file://{source}/a.txt @s")[0][1] == "a.txt.gz"
    run(cursor, "alter stage s refresh")
    (url,) = run(cursor, "select get_presigned_url(@s, 'a.txt.gz')")[0]
    assert gzip.decompress(fetch(url)) == b"a.txt"


def test_put_of_nothing_is_an_error(cursor, tmp_path):
    run(cursor, STAGE)
    with pytest.raises(Exception, match=r"(?i)file"):
        run(cursor, f"put file://{tmp_path}/none*.jpg @s")


def test_list_and_remove_take_sub_paths_and_patterns(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.jpg", "b.jpg", "c.png"])
    for split in ("train", "test"):
        run(cursor, f"put file://{source}/* @s/{split}/hat auto_compress = false")
    listed = run(cursor, "list @s/test pattern = '.*[.]jpg'")
    assert [row[:2] for row in listed] == [("s/test/hat/a.jpg", 5), ("s/test/hat/b.jpg", 5)]
    assert run(cursor, "remove @s/test pattern = '.*a[.]jpg'") == [("s/test/hat/a.jpg", "removed")]
    assert len(run(cursor, "rm @s/train")) == 3
    assert [row[0] for row in run(cursor, "ls @s")] == ["s/test/hat/b.jpg", "s/test/hat/c.png"]


def test_directory_table_is_stale_until_refreshed(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.jpg", "b.jpg"])
    run(cursor, f"put file://{source}/* @s auto_compress = false")
    assert paths(cursor) == []
    assert {row[1] for row in run(cursor, "alter stage s refresh")} == {"REGISTERED_NEW"}
    before = {row[0]: row[2:5] for row in run(cursor, "select * from directory(@s)")}
    time.sleep(1.1)  # LAST_MODIFIED has whole seconds
    (source / "a.jpg").write_bytes(b"new bytes")
    run(cursor, f"put file://{source}/a.jpg @s auto_compress = false overwrite = true")
    run(cursor, "remove @s/b.jpg")
    assert paths(cursor) == ["a.jpg", "b.jpg"]
    changes = {(path, change) for path, change, _ in run(cursor, "alter stage s refresh")}
    assert changes == {("a.jpg", "REGISTERED_UPDATE"), ("b.jpg", "UNREGISTERED")}
    after = {row[0]: row[2:5] for row in run(cursor, "select * from directory(@s)")}
    assert set(after) == {"a.jpg"} and after["a.jpg"] != before["a.jpg"]
    assert run(cursor, "alter stage s refresh") == []


def test_last_modified_and_etag_stay_when_the_file_stays(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.jpg"])
    run(cursor, f"put file://{source}/a.jpg @s auto_compress = false")
    run(cursor, "alter stage s refresh")
    first = run(cursor, "select * from directory(@s)")
    run(cursor, "alter stage s refresh")
    assert run(cursor, "select * from directory(@s)") == first
    assert first[0][5] == "https://sandbox.local/api/files/TESTS/PUBLIC/S/a.jpg"
    assert run(cursor, "select build_stage_file_url(@s, 'a.jpg')") == [(first[0][5],)]


def test_directory_in_view_cte_join_merge_and_insert(cursor, tmp_path):
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.jpg", "b.jpg"])
    run(cursor, f"put file://{source}/* @s auto_compress = false")
    run(cursor, "alter stage s refresh")
    run(cursor, "create table t (relative_path text, size number)")
    run(
        cursor,
        "insert into t select relative_path, size from directory(@s) where relative_path = 'a.jpg'",
    )
    merged = run(
        cursor,
        """merge into t using (select * from directory(@tests.public.s)) as d
        on t.relative_path = d.relative_path
        when matched then update set t.size = d.size + 1
        when not matched then insert (relative_path, size) values (d.relative_path, d.size)""",
    )
    assert merged == [(1, 1)]
    assert run(cursor, "select * from t order by 1") == [("a.jpg", 6), ("b.jpg", 5)]
    join = (
        "select d.relative_path from t join directory(@s) as d"
        " on d.relative_path = t.relative_path and d.size = t.size"
    )
    assert run(cursor, join) == [("b.jpg",)]
    assert run(cursor, "with d as (select * from directory(@s)) select count(*) from d") == [(2,)]
    run(
        cursor,
        "create view v as select relative_path,"
        " get_presigned_url(@s, relative_path) as url from directory(@s)",
    )
    assert {fetch(url) for _, url in run(cursor, "select * from v")} == {b"a.jpg", b"b.jpg"}


def test_stage_options_are_shown(cursor):
    run(
        cursor,
        """create stage e url = 's3://bucket/some/path/'
        credentials = (aws_key_id = 'x' aws_secret_key = 'a=b)(''c')
        encryption = (type = 'AWS_SSE_KMS' kms_key_id = 'aws/key')
        directory = (enable = true) comment = 'c'""",
    )
    run(cursor, "create stage if not exists e url = 's3://other'")
    run(cursor, "create stage i url = 's3://bucket/i' storage_integration = my_integration")
    run(cursor, STAGE)
    described = {row[1]: row[3] for row in run(cursor, "desc stage e")}
    assert described["URL"] == '["s3://bucket/some/path/"]' and described["ENABLE"] == "true"
    shown = {row[1]: row for row in run(cursor, "show stages")}
    assert (
        shown["S"][10] == "INTERNAL NO CSE"
        and shown["E"][10] == "EXTERNAL"
        and shown["E"][5] == "Y"
    )
    assert "a=b)(" not in str(shown)
    with pytest.raises(ProgrammingError) as exists:
        run(cursor, "create stage e")
    assert exists.value.errno == 2002


def test_external_stage_is_a_folder(cursor, running_standin):
    folder = running_standin.root / "external" / "bucket" / "images"
    (folder / "hat").mkdir(parents=True, exist_ok=True)
    (folder / "hat" / "a.jpg").write_bytes(b"hat")
    run(cursor, "create stage e url = 's3://bucket/images/' directory = (enable = true)")
    run(cursor, "alter stage e refresh")
    ((path, url),) = run(
        cursor, "select relative_path, get_presigned_url(@e, relative_path) from directory(@e)"
    )
    assert (path, fetch(url)) == ("hat/a.jpg", b"hat")
    assert run(cursor, "list @e")[0][0] == "s3://bucket/images/hat/a.jpg"
    with pytest.raises(ProgrammingError, match="PUT into the external stage"):
        run(cursor, "put file:///etc/hostname @e")
    run(cursor, "drop stage e")
    assert (folder / "hat" / "a.jpg").exists()


def test_dropped_and_replaced_stages_are_empty(cursor, tmp_path):
    source = files_in(tmp_path / "source", ["a.jpg"])
    for again in (STAGE, "drop stage s"):
        run(cursor, STAGE)
        run(cursor, f"put file://{source}/* @s auto_compress = false")
        run(cursor, "alter stage s refresh")
        run(cursor, again)
    run(cursor, STAGE)
    assert run(cursor, "list @s") == [] and paths(cursor) == []
    run(cursor, "drop stage if exists s")
    run(cursor, "drop stage if exists s")


def test_temporary_stage_is_seen_by_its_session_only(connect, cursor):
    run(cursor, "create temporary stage mine")
    other = connect(database="TESTS", schema="PUBLIC")
    with pytest.raises(ProgrammingError) as missing:
        other.cursor().execute("list @mine")
    assert missing.value.errno == 2003


@pytest.mark.parametrize(
    "sql",
    [
        "list @nope",
        "remove @nope",
        "alter stage nope refresh",
        "desc stage nope",
        "drop stage nope",
        "put file:///etc/hostname @nope",
        "select * from directory(@nope)",
        "select get_presigned_url(@nope, 'a')",
    ],
)
def test_missing_stage(cursor, sql):
    with pytest.raises(ProgrammingError, match=r"NOPE.*does not exist") as missing:
        run(cursor, sql)
    assert missing.value.errno == 2003


def test_stage_without_directory_table(cursor):
    run(cursor, "create stage s encryption = (type = 'SNOWFLAKE_SSE')")
    for sql in ("select * from directory(@s)", "alter stage s refresh"):
        with pytest.raises(ProgrammingError, match="directory table"):
            run(cursor, sql)
    run(cursor, "alter stage s set directory = (enable = true)")
    assert run(cursor, "alter stage s refresh") == []


def test_quoted_lower_case_names(cursor, tmp_path):
    source = files_in(tmp_path / "source", ["a.jpg"])
    run(
        cursor,
        "create stage \"My stage\" encryption = (type = 'SNOWFLAKE_SSE')"
        " directory = (enable = true)",
    )
    run(cursor, f"put file://{source}/a.jpg '@\"My stage\"/x' auto_compress = false")
    run(cursor, 'alter stage "My stage" refresh')
    sql = (
        'select get_presigned_url(@tests.public."My stage", relative_path)'
        ' from directory(@"My stage")'
    )
    assert fetch(run(cursor, sql)[0][0]) == b"a.jpg"


def signed(cursor, tmp_path, seconds: str = "") -> str:
    run(cursor, STAGE)
    source = files_in(tmp_path / "source", ["a.jpg", "b.jpg"])
    run(cursor, f"put file://{source}/* @s auto_compress = false")
    return run(cursor, f"select get_presigned_url(@s, 'a.jpg'{seconds})")[0][0]


def test_changed_urls_are_refused(cursor, tmp_path):
    url = signed(cursor, tmp_path)
    assert fetch(url) == b"a.jpg"
    last = "0" if url[-1] != "0" else "1"
    assert status_of(url[:-1] + last) == 403
    assert status_of(url.replace("a.jpg", "b.jpg")) == 403
    assert status_of(url.replace("expires=", "expires=9")) == 403
    assert status_of(url.partition("?")[0]) == 403


def test_expired_url_is_refused(cursor, tmp_path):
    url = signed(cursor, tmp_path, ", 1")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            fetch(url)
        except urllib.error.HTTPError as error:
            assert error.code == 403
            return
        time.sleep(0.2)
    pytest.fail("the URL never expired")


def test_missing_files_are_signed_and_404(cursor, tmp_path):
    signed(cursor, tmp_path)
    assert status_of(run(cursor, "select get_presigned_url(@s, 'nope.jpg')")[0][0]) == 404


@pytest.mark.parametrize("seconds", ["0", "604801", "-5"])
def test_bad_expiry(cursor, tmp_path, seconds):
    with pytest.raises(ProgrammingError, match="604800"):
        signed(cursor, tmp_path, f", {seconds}")


def test_no_path_leaves_the_stage(cursor, tmp_path, running_standin):
    url = signed(cursor, tmp_path)
    (running_standin.root / "stages" / "outside.txt").write_text("secret")
    for path in ("../../../outside.txt", "/etc/hostname", "x/../../../../outside.txt"):
        (outside,) = run(cursor, "select get_presigned_url(@s, %s)", (path,))[0]
        assert status_of(outside) in (403, 404)
    assert status_of(url.replace("/a.jpg", "/../../../outside.txt")) in (403, 404)
    with pytest.raises(ProgrammingError, match="leaves the stage"):
        run(cursor, f"put file://{tmp_path}/source/a.jpg @s/../../x auto_compress = false")


def test_upload_without_a_token_is_refused(running_standin, cursor, tmp_path):
    signed(cursor, tmp_path)
    url = f"http://{running_standin.host}:{running_standin.port}/stage-files/TESTS/PUBLIC/S/c.jpg"
    for headers in ({}, {"Authorization": "Bearer 99999999999.abc"}):
        request = urllib.request.Request(url, data=b"x", method="PUT", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403


@pytest.mark.parametrize("size", [0, 5, 2**20, 2**20 + 1])
def test_a_file_comes_whole_in_part_and_as_headers(cursor, tmp_path, size):
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / "a.jpg").write_bytes(content)
    run(cursor, STAGE)
    run(cursor, f"put file://{tmp_path}/a.jpg @s auto_compress = false")
    url = run(cursor, "select get_presigned_url(@s, 'a.jpg')")[0][0]
    with urllib.request.urlopen(url, timeout=10) as whole:
        assert whole.read() == content
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as headers:
        assert headers.read() == b""
    for name in ("content-length", "content-type", "etag", "last-modified", "accept-ranges"):
        assert whole.headers[name] == headers.headers[name] is not None
    assert (whole.headers["content-type"], whole.headers["content-length"]) == (
        "image/jpeg",
        str(size),
    )
    if size:
        request = urllib.request.Request(url, headers={"Range": "bytes=1-3"})
        with urllib.request.urlopen(request, timeout=10) as part:
            assert (part.status, part.read()) == (206, content[1:4])


def test_client_side_encrypted_stage_gives_unreadable_bytes(cursor, tmp_path):
    run(cursor, "create stage s directory = (enable = true)")
    source = files_in(tmp_path / "source", ["a.jpg"])
    run(cursor, f"put file://{source}/* @s auto_compress = false")
    content = fetch(run(cursor, "select get_presigned_url(@s, 'a.jpg')")[0][0])
    assert content != b"a.jpg" and len(content) == 5


def test_signing_many_paths_is_one_quick_select(cursor):
    run(cursor, STAGE)
    started = time.monotonic()
    sql = (
        "select get_presigned_url(@s, 'test/' || i || '.jpg') as url"
        " from (select seq4() as i from table(generator(rowcount => 3000)))"
    )
    urls = run(cursor, sql)
    assert len({url for (url,) in urls}) == 3000
    assert time.monotonic() - started < 5


def test_server_listens_on_loopback_only(running_standin):
    import psutil

    listening = [
        c.laddr.ip
        for c in psutil.Process(running_standin.pid).net_connections()
        if c.status == "LISTEN"
    ]
    assert listening == ["127.0.0.1"]


def test_key_file_is_private(running_standin):
    assert oct((running_standin.root / "secret.key").stat().st_mode & 0o777) == "0o600"
    assert list((running_standin.root / "parts").iterdir()) == []


def test_a_temporary_stage_is_its_sessions_alone(running_standin, tmp_path):
    """Two sessions and a stage for all, of one name: each sees its own, and its own files."""
    connections = [connect("local") for _ in range(3)]
    execute(connections[0], "create or replace database SHARED_NAMES")
    for number, connection in enumerate(connections):
        execute(connection, "use schema SHARED_NAMES.PUBLIC")
        kind = "temporary" if number else ""
        execute(connection, f"create {kind} stage st")
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / f"{number}.txt").write_text(f"of {number}")
        execute(connection, f"put 'file://{tmp_path}/{number}/*' @st auto_compress = false")
    for number, connection in enumerate(connections):
        listed = execute(connection, "list @st")
        assert [row[0] for row in listed] == [f"st/{number}.txt"]
        shown = [row[1] for row in execute(connection, "show stages")]
        assert shown == (["ST", "ST"] if number else ["ST"])
        execute(connection, f"get @st 'file://{tmp_path}/'")
        assert (tmp_path / f"{number}.txt").read_text() == f"of {number}"
    execute(connections[1], "drop stage st")
    assert [row[0] for row in execute(connections[1], "list @st")] == ["st/0.txt"]
    connections[2].close()
    execute(connections[0], "drop database SHARED_NAMES")
    for connection in connections[:2]:
        connection.close()
