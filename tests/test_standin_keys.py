"""Keys of staged files: every key that Snowflake keeps, whatever the file system would say."""

import os
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snowflake.connector import connect
from snowflake.connector.errors import ProgrammingError
from test_standin_stages import STAGE, fetch, run

import standin
from standin import keys
from standin.errors import SqlError
from standin.text import literal

LONG = "n" * 250
ODD = [
    ["pre", "pre/b.jpg", "pre/b.jpg/c", "pre+/d"],
    ["d//e.jpg", "d/e.jpg", "/e.jpg", "//e.jpg", "d///e.jpg"],
    ["A.jpg", "a.jpg", "Ä.jpg", "ä.jpg", "ß.jpg", "ẞ.jpg", "SS.jpg"],
    ["é.jpg", "e\N{COMBINING ACUTE ACCENT}.jpg", "Å.jpg", "\N{ANGSTROM SIGN}.jpg"],
    ["dot.", "dot", "dots...", "...", ".hidden", "d./e.", "blank ", "blank", " blank"],
    ["two\nlines.jpg", "two\nlines\n", "two", "cr\r.jpg", "tab\t.jpg", "two\n/lines"],
    ["%2f", "%", "%25", "/%2f", "a%2fb", "a/b", "a+", "a+/b", "con", "nul.txt", "a:b", "a\\b"],
    [f"{LONG}/{LONG}/x", LONG, "é" * 120, "é" * 120 + ".jpg"],
]
# what a client can send: no NUL, no half of a surrogate pair
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
near = st.sampled_from(["a", "A", "é", "e\u0301", ".", "/", "%", "+", "2f", " ", "\n", "a" * 199])
texts = st.one_of(
    st.text(letters, min_size=1, max_size=30), st.lists(near, min_size=1).map("".join)
)


def is_key(key: str) -> bool:
    steps = key.split("/")
    return not {".", ".."} & set(steps) and steps[-1] != "" and len(key.encode()) <= 1024


any_key = texts.filter(is_key)


@given(any_key)
@settings(max_examples=300)
@example("é" * 512)
@example("A" * 1024)
def test_a_key_is_read_again_from_names_that_every_file_system_keeps(key):
    keys.check(key)
    path = keys.written(key)
    assert keys.read(path) == key
    steps = path.split("/")
    assert all(0 < len(step) <= 255 and step not in (".", "..") for step in steps)
    assert not [step for step in steps if step[-1] in ". "]
    assert path.isascii() and path == path.lower()
    assert all(step.endswith(keys.GOES_ON) for step in steps[:-1])
    assert not steps[-1].endswith(keys.GOES_ON)


@given(st.lists(any_key, min_size=2, max_size=6, unique=True))
@settings(max_examples=100)
def test_no_two_keys_share_a_file_or_stand_in_each_others_way(several):
    written = [keys.written(key) for key in several]
    folders = {parent for path in written for parent in Path(path).parents}
    assert len({unicodedata.normalize("NFC", path).casefold() for path in written}) == len(several)
    assert not folders & set(map(Path, written))


@given(texts)
@settings(max_examples=200)
@example("../x")
@example("a/./b")
@example("..")
@example("a\0b")
@example("b" * 1025)
def test_a_key_is_taken_or_refused_and_never_leaves_its_folder(key):
    try:
        keys.check(key)
    except SqlError as error:
        assert not is_key(key) or "\0" in key
        assert "Give the file another path" in error.msg
    else:
        root = Path("/stages/S")
        assert Path(os.path.normpath(root / keys.written(key))).is_relative_to(root)


@pytest.fixture(scope="module")
def cursor(running_standin):
    with logged_in(running_standin.root) as cursor:
        run(cursor, "create or replace database KEYS")
        yield cursor


@contextmanager
def logged_in(root: Path):
    with connect(**standin.connection_parameters(root)) as connection:
        yield connection.cursor()


def put(cursor, folder: Path, key: str) -> None:
    """The file of that key, with the key for its content. Its last part is the local name."""
    place, slash, name = key.rpartition("/")
    file = folder / name
    file.write_bytes(key.encode())
    local = literal(f"file://{file}")
    target = literal(f"@s/{place}{slash}")
    ((*_, outcome, _),) = run(cursor, f"put {local} {target} auto_compress = false")
    assert outcome == "UPLOADED"
    file.unlink()


def signed(cursor) -> dict[str, str]:
    sql = "select relative_path, get_presigned_url(@s, relative_path) from directory(@s)"
    return dict(run(cursor, sql))


def check_stage(cursor, several: list[str], folder: Path) -> None:
    """PUT, LIST, directory table, signed URLs, LIST below a prefix, GET and REMOVE."""
    run(cursor, STAGE)
    for key in several:
        put(cursor, folder, key)
    expected = sorted(several)
    assert [name for name, *_ in run(cursor, "list @s")] == [f"s/{key}" for key in expected]
    run(cursor, "alter stage s refresh")
    urls = signed(cursor)
    assert sorted(urls) == expected
    assert {key: fetch(url).decode() for key, url in urls.items()} == {key: key for key in several}
    one = expected[-1]
    alike = [key for key in expected if key.startswith(one)]
    listed = run(cursor, f"list {literal('@s/' + one)}")
    assert [name for name, *_ in listed] == [f"s/{key}" for key in alike]
    run(cursor, f"get {literal('@s/' + one)} {literal(f'file://{folder}/got/')}")
    got = folder / "got" / one.rpartition("/")[2]
    assert got.read_bytes().decode() in alike
    got.unlink()
    run(cursor, f"remove {literal('@s/' + one)}")
    left = [f"s/{key}" for key in expected if key not in alike]
    assert [name for name, *_ in run(cursor, "list @s")] == left


@pytest.mark.parametrize("several", ODD)
def test_odd_keys_live_side_by_side(cursor, several, tmp_path):
    (tmp_path / "got").mkdir()
    check_stage(cursor, several, tmp_path)


def is_local_name(key: str) -> bool:
    """Whether PUT can name its last part: the connector takes *, ? and [ for patterns."""
    name = key.rpartition("/")[2]
    return len(name.encode()) <= 255 and not set("*?[]\\{}") & set(name)


@given(st.lists(any_key.filter(is_local_name), min_size=1, max_size=3, unique=True))
@settings(max_examples=25)
def test_any_keys_come_back(cursor, tmp_path_factory, several):
    folder = tmp_path_factory.mktemp("any")
    (folder / "got").mkdir()
    check_stage(cursor, several, folder)


@pytest.mark.parametrize("place", ["a/./", "./", "a/../b", "..", "b" * 1025])
def test_a_place_that_no_address_keeps_is_refused_before_anything_is_sent(cursor, tmp_path, place):
    run(cursor, STAGE)
    (tmp_path / "a.jpg").write_bytes(b"a")
    with pytest.raises(ProgrammingError, match="Give the file another path"):
        run(cursor, f"put file://{tmp_path}/a.jpg '@s/{place}' auto_compress = false")
    assert run(cursor, "list @s") == []


def test_parquet_below_a_folder_that_looks_like_a_column(cursor, tmp_path):
    pq.write_table(pa.table({"A": [1, 2], "Color": ["x", "y"]}), tmp_path / "part=0.parquet")
    run(cursor, STAGE)
    run(cursor, f"put file://{tmp_path}/part=0.parquet '@s/Color=red//' auto_compress = false")
    run(cursor, 'create or replace table t (a int, "Color" text)')
    copied = run(
        cursor,
        "copy into t from '@s/Color=red//' files = ('part=0.parquet')"
        " file_format = (type = parquet) match_by_column_name = case_sensitive",
    )
    assert copied[0][:3] == ("s/Color=red//part=0.parquet", "LOADED", 2)
    assert run(cursor, 'select a, "Color" from t order by a') == [(1, "x"), (2, "y")]


def plain(root: Path, content: dict[str, str]) -> Path:
    """A stage's folder as earlier versions had it: files under their plain names."""
    stage = root / "stages" / "OLD" / "PUBLIC" / "S"
    for key, text in content.items():
        (stage / key).parent.mkdir(parents=True, exist_ok=True)
        (stage / key).write_text(text)
    return stage


def test_files_of_an_earlier_version_are_there(tmp_path):
    before = {"a.jpg": "1", "Hat/B c.JPG": "2", "Hat/deep/é%.jpg": "3", "Hat/deep/x+/y": "4"}
    try:
        with logged_in(tmp_path) as cursor:
            run(cursor, "create database OLD")
            run(cursor, STAGE)
        standin.stop(tmp_path)
        stage = plain(tmp_path, before)
        (stage / "Empty").mkdir()
        with logged_in(tmp_path) as cursor:
            run(cursor, "use database OLD")
            run(cursor, "alter stage s refresh")
            urls = signed(cursor)
            assert {key: fetch(url).decode() for key, url in urls.items()} == before
        assert [path.name for path in stage.iterdir()] == [keys.FOLDER]
    finally:
        standin.stop(tmp_path)


def test_adopting_can_be_cut_off_at_any_file(tmp_path, monkeypatch):
    before = {f"d/{number}.jpg": str(number) for number in range(5)}
    stage = plain(tmp_path, before)
    moved = []

    def cut_off(source, target):
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(source.rename(target))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", cut_off)
        keys.adopt(tmp_path / "stages")
    keys.adopt(tmp_path / "stages")
    kept = stage / keys.FOLDER
    found = {keys.read(path): (kept / path).read_text() for path in keys.paths_below(kept)}
    assert found == before and [path.name for path in stage.iterdir()] == [keys.FOLDER]


KEEP_WRITING = """
import sys
from itertools import count
from pathlib import Path
from standin import keys
from standin.whole import written_whole
folder = Path(sys.argv[1])
target = folder / keys.written("pre/" + "é" * 300)
for number in count():
    with written_whole(target, folder / f"{number}.part") as file:
        file.write(b"x" * 100_000)
    if number == 20:
        print("writing", flush=True)
"""


def test_a_writer_that_is_killed_leaves_the_key_whole(tmp_path):
    command = [sys.executable, "-c", KEEP_WRITING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        writer.kill()
    whole = [path for path in keys.paths_below(tmp_path) if not path.endswith(".part")]
    assert [keys.read(path) for path in whole] == ["pre/" + "é" * 300]
    assert (tmp_path / whole[0]).stat().st_size == 100_000


def test_two_writers_and_a_reader_do_not_disturb_one_another(cursor, running_standin, tmp_path):
    run(cursor, STAGE)
    several = [f"Pre/{number}.JPG" for number in range(20)]

    def write(folder: Path) -> None:
        folder.mkdir()
        with logged_in(running_standin.root) as own:
            run(own, "use schema KEYS.PUBLIC")
            for key in several:
                put_again(own, folder, key)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, tmp_path / name) for name in ("a", "b")]
        while not all(writer.done() for writer in writers):
            assert {name for name, *_ in run(cursor, "list @s")} <= {f"s/{key}" for key in several}
            run(cursor, "remove @s/Pre/1")
        assert [writer.result() for writer in writers] == [None, None]
    run(cursor, "alter stage s refresh")
    assert {key: fetch(url).decode() for key, url in signed(cursor).items()}.items() <= {
        (key, key) for key in several
    }


def put_again(cursor, folder: Path, key: str) -> None:
    place, _, name = key.rpartition("/")
    (folder / name).write_bytes(key.encode())
    sql = f"put file://{folder / name} @s/{place} auto_compress = false overwrite = true"
    ((*_, outcome, _),) = run(cursor, sql)
    assert outcome == "UPLOADED"
