"""Stages, tables and the SQL files that make them: what is loaded, listed and signed."""

import json
import subprocess
import sys
import urllib.request

import pandas as pd
import pytest
from scenery.drawing import draw_folder
from scenery.tables import make_tables
from snowflake.connector.errors import ProgrammingError

from helpers import folders
from helpers.config import PROJECT_ROOT
from helpers.review.report import sign_anew
from helpers.snowflake import listing, login, stage
from helpers.snowflake.connection import connect, describe, execute, query
from helpers.snowflake.listing import count_images, list_files, list_images, sign_urls
from helpers.snowflake.login import TAG
from helpers.snowflake.sql_files import run_file


@pytest.fixture
def loaded(running_standin, tmp_path):
    """The tutorial's stages and tables with a few images, in a database of its own."""
    folder = draw_folder(tmp_path / "test", n=2)
    connection = connect("local")
    make_tables(connection, folder, "SNOWFLAKE_TESTS")
    yield connection, folder
    connection.close()


def test_missing_database_names_the_notebook(running_standin):
    with pytest.raises(LookupError, match="Run notebook 01_set_up_snowflake first"):
        connect("local", "NO_SUCH_DATABASE")


def test_files_take_the_names_they_are_given(running_standin):
    connection = connect("local")
    run_file(connection, "sql/01_create_database.sql", database_name="GIVEN_NAME")
    assert execute(connection, "select current_database(), current_schema()") == [
        ("GIVEN_NAME", "PUBLIC")
    ]
    assert "database GIVEN_NAME" in describe(connection)
    execute(connection, "drop database GIVEN_NAME")
    connection.close()


def test_failing_statement_is_named_with_its_file(connection, tmp_path):
    (tmp_path / "bad.sql").write_text(
        "-- a comment; with a semicolon\nselect 1;\nselect * from nothing_here;\n"
    )
    with pytest.raises(
        ProgrammingError, match=r"bad\.sql, in “select \* from nothing_here”"
    ) as caught:
        run_file(connection, tmp_path / "bad.sql")
    assert caught.value.errno == 2003


@pytest.mark.parametrize(
    "path", sorted((PROJECT_ROOT / "sql").glob("*.sql")), ids=lambda path: path.stem
)
def test_every_sql_file_is_lower_case_parses_and_has_its_header(path):
    import sqlglot

    text = path.read_text()
    assert all(f"-- {word}:" in text for word in ("Purpose", "Needs", "Leaves behind"))
    assert len(sqlglot.parse(text, read="snowflake")) >= 1
    first_words = [line.split()[0] for line in text.splitlines() if line[:1].isupper()]
    assert not any(word.isupper() and word.isalpha() for word in first_words)


def test_loading_is_repeatable_and_a_changed_image_loses_its_prediction(loaded):
    connection, folder = loaded
    execute(connection, "update clothing_test set type = 'hat', confidence = 1")
    run_file(connection, "sql/04_load_tables.sql")
    assert execute(connection, "select count(*), count(type) from clothing_test") == [(6, 6)]
    (folder / "hat" / "000.jpg").write_bytes((folder / "shirt" / "001.jpg").read_bytes())
    (folder / "hat" / "001.jpg").unlink()
    draw_folder(folder / "more", n=1, colours={"hat": (1, 2, 3)})
    changes = stage.sync(connection, folder, "clothing_dataset")
    assert (changes.added, changes.changed, changes.removed) == (
        ["more/hat/000.jpg"],
        ["hat/000.jpg"],
        ["hat/001.jpg"],
    )
    vanished = run_file(connection, "sql/04_load_tables.sql")["vanished"]
    assert vanished.iloc[:, 1].tolist() == ["hat/001.jpg"]
    assert execute(connection, "select count(*), count(type) from clothing_test") == [(7, 5)]
    listed = list_files(connection, "clothing_test", "relative_path", "clothing_dataset")
    assert len(listed) == 6 and "hat/001.jpg" not in [path for path, _, _ in listed]


def test_an_image_that_was_only_touched_or_moved_keeps_its_prediction(loaded):
    """Another time without another content; another address, as after an account's new name."""
    connection, _ = loaded
    before = execute(connection, "select * from clothing_test order by relative_path")
    execute(connection, "update clothing_test set type = 'hat', confidence = 1")
    moved = "update clothing_test set file_url = 'https://earlier/' || relative_path"
    execute(connection, moved)
    execute(connection, "update clothing_test set last_modified = '2020-01-01 00:00:00'")
    added, changed = run_file(connection, "sql/04_load_tables.sql")["loaded_test"].iloc[0]
    assert (added, changed) == (0, 0)
    assert execute(connection, "select count(type) from clothing_test") == [(6,)]
    execute(connection, "update clothing_test set type = null, confidence = null")
    assert execute(connection, "select * from clothing_test order by relative_path") == before


def test_of_what_has_vanished_the_first_are_shown_and_all_are_counted(loaded):
    connection, _ = loaded
    execute(
        connection,
        "insert into clothing_test (relative_path, size) "
        "select 'gone/' || seq4(), 1 from table(generator(rowcount => 250))",
    )
    vanished = run_file(connection, "sql/04_load_tables.sql")["vanished"]
    assert len(vanished) == 100 and set(vanished.VANISHED) == {250}


def test_urls_come_in_order_whatever_the_names(loaded):
    connection, folder = loaded
    names = ["it's.jpg", "a b.jpg", "50%+1.jpg", "größe 'q\".jpg", "semi;colon--x.jpg"]
    data = (folder / "hat" / "000.jpg").read_bytes()
    for index, name in enumerate(names):
        (folder / "hat" / name).write_bytes(data + bytes(index))
    stage.sync(connection, folder, "clothing_dataset")
    urls = sign_urls(connection, "clothing_dataset", [f"hat/{name}" for name in names])
    assert [len(urllib.request.urlopen(url).read()) - len(data) for url in urls] == [0, 1, 2, 3, 4]


def test_a_thousand_long_paths_fit_into_a_statement(loaded, monkeypatch):
    """Snowflake takes a text of one megabyte."""
    connection, _ = loaded
    sent = []

    def note(_connection, sql, values):
        sent.append(len(f"{sql}{values[0]!r}".encode()))
        return query(_connection, sql, values)

    monkeypatch.setattr(listing, "query", note)
    paths = [f"帽子/{'赤い帽子' * 60}{index}.jpg" for index in range(listing.SIGNED_AT_ONCE)]
    assert len(sign_urls(connection, "clothing_dataset", paths)) == len(paths)
    assert len(sent) == 1 and sent[0] < 2**20


def test_more_paths_than_one_statement_takes(loaded, monkeypatch):
    monkeypatch.setattr(listing, "SIGNED_AT_ONCE", 3)
    paths = [f"hat/{i}.jpg" for i in range(8)]
    urls = sign_urls(loaded[0], "clothing_dataset", paths)
    signed = [url.partition("?")[0] for url in urls]
    assert [url.rpartition("/")[2] for url in signed] == [path[4:] for path in paths]
    assert sign_urls(loaded[0], "clothing_dataset", []) == []


@pytest.mark.parametrize("page", [1, 2, 5, 6, 7])
def test_pages_list_every_image_once_in_order_and_signed(loaded, page):
    connection, folder = loaded
    frames = list(
        list_images(connection, "clothing_test", "clothing_dataset", url_seconds=60, page=page)
    )
    assert all(len(frame) <= page for frame in frames)
    listed = pd.concat(frames)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert listed.RELATIVE_PATH.tolist() == paths
    bodies = [urllib.request.urlopen(url).read() for url in listed.URL]
    assert bodies == [(folder / path).read_bytes() for path in paths]


def test_a_page_is_asked_for_when_it_is_wanted(loaded):
    connection, _ = loaded
    pages = list_images(connection, "clothing_test", "clothing_dataset", page=4)
    assert len(next(pages)) == 4
    execute(connection, "delete from clothing_test where relative_path = 't-shirt/000.jpg'")
    assert next(pages).RELATIVE_PATH.tolist() == ["t-shirt/001.jpg"]


def test_an_image_that_three_runs_could_not_read_is_left_to_people_until_it_changes(loaded):
    connection, _ = loaded
    ((path, _, etag), *others) = list_files(
        connection, "clothing_test", "relative_path", "clothing_dataset"
    )

    def fail(run: str, etag: str, reason: str = "not a readable image") -> list[str]:
        columns = "run, relative_path, reason, etag, attempts, seen_at"
        values = "values (%s, %s, %s, %s, 1, current_timestamp())"
        row = (run, path, reason, etag)
        execute(connection, f"insert into clothing_failure ({columns}) {values}", row)
        frames = list_images(connection, "clothing_test", "clothing_dataset", not_by_model="m")
        listed = pd.concat(list(frames)).RELATIVE_PATH.tolist()
        assert count_images(connection, "clothing_test", "clothing_dataset", "m") == len(listed)
        return listed

    everything = [path, *(name for name, _, _ in others)]
    for night in range(5):  # of another version, or of the network: not counted
        assert fail(f"a{night}", "another version") == everything
        assert fail(f"b{night}", etag, "download failed after 5 attempts: 503") == everything
    assert fail("c1", etag) == fail("c1", etag) == fail("c2", etag) == everything
    assert fail("c3", etag) == everything[1:]
    left = query(connection, "select relative_path, etag, runs, reason from clothing_unreadable")
    assert [path, etag, 3, "not a readable image"] in left.values.tolist()
    execute(connection, "delete from clothing_failure where run = 'c2'")  # a person decides so
    assert count_images(connection, "clothing_test", "clothing_dataset", "m") == len(everything)


def test_only_what_this_model_has_not_predicted_is_listed(loaded):
    connection, _ = loaded
    rows = list_files(connection, "clothing_test", "relative_path", "clothing_dataset")
    path, _, etag = rows[0]
    columns = "relative_path, etag, model_digest"
    log = f"insert into clothing_prediction_log ({columns}) values (%s, %s, %s)"
    execute(connection, log, (path, etag, "m1"))

    def new(model: str) -> int:
        frames = list_images(connection, "clothing_test", "clothing_dataset", not_by_model=model)
        return sum(len(frame) for frame in frames)

    assert new("m1") == 6  # logged, but without a prediction in the table: lost, so wanted again
    execute(connection, "update clothing_test set pred_timestamp = current_timestamp()")
    assert (new("m1"), new("m2")) == (5, 6)


def test_folders_of_a_data_set_are_found_or_named(tmp_path):
    draw_folder(tmp_path / "train", n=1)
    with pytest.raises(FileNotFoundError, match="needs the folders train/ and test/"):
        folders.split_folders(tmp_path)
    draw_folder(tmp_path / "validation", n=1)
    assert folders.split_folders(tmp_path) == (tmp_path / "train", tmp_path / "validation")
    draw_folder(tmp_path / "test", n=1)
    assert folders.split_folders(tmp_path) == (tmp_path / "train", tmp_path / "test")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        folders.split_folders(tmp_path / "nowhere")


def test_recipe_names_what_exists():
    recipe = json.loads((PROJECT_ROOT / ".saturn" / "saturn.json").read_text())
    assert recipe["environment_variables"]["TUTORIAL_BACKEND"] == "snowflake"
    assert (PROJECT_ROOT / "requirements.txt").exists()
    assert "requirements.txt" in recipe["start_script"]
    known = {*login.VARIABLES, "TUTORIAL_BACKEND", "TUTORIAL_HOME", "TUTORIAL_CACHE"}
    assert set(recipe["environment_variables"]) <= known
    variables = [s for s in recipe["secrets"] if s["type"] == "environment_variable"]
    assert {variable["location"] for variable in variables} <= known


def test_a_url_can_be_signed_when_the_connection_is_closed(loaded):
    connection, _ = loaded
    path = list_files(connection, "clothing_test", "relative_path", "clothing_dataset")[0][0]
    connection.close()
    (url,) = sign_anew("local", "SNOWFLAKE_TESTS", "clothing_dataset", [path])
    with urllib.request.urlopen(url) as response:
        assert response.status == 200


def test_removing_a_file_leaves_those_whose_names_begin_alike(loaded):
    connection, folder = loaded
    data = (folder / "hat" / "000.jpg").read_bytes()
    names = ["a.jpg", "a.jpg.png", "a.jpg.2.jpg", "ba.jpg", "a(1).jpg", "a(1).jpg.jpg", "a+.jpg"]
    for name in names:
        (folder / "hat" / name).write_bytes(data)
    stage.sync(connection, folder, "clothing_dataset")
    (folder / "hat" / "a.jpg").unlink()
    (folder / "hat" / "a(1).jpg").unlink()
    changes = stage.sync(connection, folder, "clothing_dataset")
    assert sorted(changes.removed) == ["hat/a(1).jpg", "hat/a.jpg"]
    left = {path.partition("/")[2] for path in stage.listing(connection, "clothing_dataset")}
    assert left >= {"a.jpg.png", "a.jpg.2.jpg", "ba.jpg", "a(1).jpg.jpg", "a+.jpg"}
    assert not left & {"a.jpg", "a(1).jpg"}
    again = stage.sync(connection, folder, "clothing_dataset")
    assert not again.added and not again.removed and not again.changed


RUN = 'año\'s "50 %" \\ 🧥'


@pytest.fixture
def tagged_connection(running_standin, monkeypatch):
    monkeypatch.setenv(TAG, "{}")  # and take it away again
    connection = connect("local", notebook="05_write_back", run=RUN)
    execute(connection, "create or replace database TAGGED")
    yield connection
    execute(connection, "drop database TAGGED")
    connection.close()


def tags(connection, function: str = "query_history_by_session") -> list[dict]:
    """Of the session's or the user's statements, in the order in which they began."""
    history = f"table(tagged.information_schema.{function}(result_limit => 10000))"
    rows = execute(connection, f"select query_tag from {history} order by start_time")
    return [json.loads(tag) for (tag,) in rows if tag.startswith("{")]


def test_every_statement_says_what_it_is_for(tagged_connection):
    whole = {"tutorial": "snowflake-images", "notebook": "05_write_back", "run": RUN}
    run_file(tagged_connection, "sql/02_create_stages.sql")
    run_file(tagged_connection, "sql/03_create_tables.sql")
    query(tagged_connection, "select 1 as A")
    found = tags(tagged_connection)
    assert found[0] == found[-1] == whole
    steps = [tag.pop("step", "") for tag in found]
    assert list(dict.fromkeys(filter(None, steps))) == ["02_create_stages", "03_create_tables"]
    assert all(tag == whole for tag in found)


def test_another_process_that_logs_in_for_the_same_work_has_its_tag(tagged_connection):
    before = tags(tagged_connection, "query_history")
    code = "from helpers.snowflake.connection import *; execute(connect('local'), 'select 1')"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = tags(tagged_connection, "query_history")
    assert sum(tag.get("run") == RUN for tag in after) == 2 + sum(
        tag.get("run") == RUN for tag in before
    )


def test_the_longest_name_of_a_run_fits_into_a_tag(tagged_connection):
    longest = "🧥" * 60
    connection = connect("local", "TAGGED", notebook="05_write_back", run=longest)
    execute(connection, "select 1")
    assert tags(connection)[-1]["run"] == longest
    connection.close()
