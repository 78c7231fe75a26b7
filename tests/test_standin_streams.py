"""Streams on stages and tasks that run when one has data: what sql/07 needs of an account."""

import pytest
from scenery.drawing import draw_folder
from scenery.tables import make_tables
from snowflake.connector.errors import ProgrammingError

from helpers.snowflake import stage
from helpers.snowflake.connection import connect, execute
from helpers.snowflake.sql_files import run_file

DATABASE = "STREAMS"


@pytest.fixture
def loaded(running_standin, tmp_path):
    """Stages and tables of six images, and the folder that they came from."""
    folder = draw_folder(tmp_path / "images", n=2)
    connection = connect("local")
    make_tables(connection, folder, DATABASE)
    yield connection, folder
    execute(connection, f"drop database {DATABASE}")
    connection.close()


def refresh(connection, folder) -> None:
    stage.sync(connection, folder, "clothing_dataset")
    execute(connection, "alter stage clothing_dataset refresh")


def changes(connection) -> set[tuple]:
    sql = "select relative_path, metadata$action, metadata$isupdate from new_image"
    return set(execute(connection, sql))


def has_data(connection) -> bool:
    return execute(connection, "select system$stream_has_data('NEW_IMAGE')") == [(True,)]


def test_a_stream_has_what_came_and_went_since_it_was_used(loaded):
    connection, folder = loaded
    execute(connection, "create stream new_image on stage clothing_dataset")
    assert changes(connection) == set() and not has_data(connection)
    (folder / "hat" / "new.jpg").write_bytes((folder / "hat" / "000.jpg").read_bytes())
    (folder / "hat" / "001.jpg").write_bytes((folder / "hat" / "000.jpg").read_bytes())
    (folder / "shirt" / "001.jpg").unlink()
    refresh(connection, folder)
    expected = {
        ("hat/new.jpg", "INSERT", False),
        ("hat/001.jpg", "INSERT", True),
        ("hat/001.jpg", "DELETE", True),
        ("shirt/001.jpg", "DELETE", False),
    }
    assert changes(connection) == changes(connection) == expected  # a SELECT uses nothing up
    assert has_data(connection)
    copied = "insert into clothing_failure (relative_path) select relative_path from new_image"
    execute(connection, "begin")
    execute(connection, copied)
    execute(connection, "rollback")
    assert changes(connection) == expected  # nor does what is rolled back
    execute(connection, "begin")
    execute(connection, copied)
    execute(connection, "commit")
    assert changes(connection) == set() and not has_data(connection)


def test_a_task_runs_only_when_its_stream_has_data(loaded):
    connection, folder = loaded
    execute(connection, "create stream new_image on stage clothing_dataset")
    execute(
        connection,
        "create task copy_new warehouse = wh when system$stream_has_data('NEW_IMAGE') as "
        "insert into clothing_failure (relative_path) select relative_path from new_image",
    )
    execute(connection, "execute task copy_new")
    assert execute(connection, "select count(*) from clothing_failure") == [(0,)]
    (folder / "hat" / "new.jpg").write_bytes((folder / "hat" / "000.jpg").read_bytes())
    refresh(connection, folder)
    for _ in range(2):
        execute(connection, "execute task copy_new")
        assert execute(connection, "select * from clothing_failure")[0][1] == "hat/new.jpg"
        assert execute(connection, "select count(*) from clothing_failure") == [(1,)]


def test_tasks_and_streams_are_shown_resumed_and_dropped(loaded):
    connection, _ = loaded

    def states(*columns: int) -> list[tuple]:
        shown = execute(connection, "show tasks like 'COPY%'")
        return [tuple(row[column] for column in columns) for row in shown]

    execute(connection, "create stream new_image on stage clothing_dataset")
    body = "as delete from clothing_failure"
    execute(connection, f"create task copy_new schedule = 'using cron 0 2 * * * UTC' {body}")
    assert states(0, 5) == [("COPY_NEW", "suspended")]
    execute(connection, "alter task copy_new resume")
    assert states(0, 4, 5) == [("COPY_NEW", "using cron 0 2 * * * UTC", "started")]
    execute(connection, f"create or replace task copy_new {body}")
    execute(connection, f"create task if not exists copy_new warehouse = w {body}")
    assert states(3, 5) == [("", "suspended")]
    with pytest.raises(ProgrammingError, match="already exists"):
        execute(connection, f"create task copy_new {body}")
    assert [row[0] for row in execute(connection, "show streams")] == ["NEW_IMAGE"]
    assert not execute(connection, "show tasks like 'OTHER%'")
    for kind, name in (("task", "copy_new"), ("stream", "new_image")):
        execute(connection, f"drop {kind} {name}")
        assert not execute(connection, f"show {kind}s")
        execute(connection, f"drop {kind} if exists {name}")
        with pytest.raises(ProgrammingError, match="does not exist"):
            execute(connection, f"drop {kind} {name}")
    with pytest.raises(ProgrammingError, match="does not exist"):
        execute(connection, "execute task copy_new")


@pytest.mark.parametrize(
    "statement",
    [
        "create stream s on table clothing_test",
        "create task t when 1 = 1 as select 1",
        "create task t colour = 'red' as select 1",
        "create task t",
        "alter task t set schedule = '1 minute'",
        "describe task t",
    ],
)
def test_what_is_not_known_is_refused(loaded, statement):
    with pytest.raises(ProgrammingError):
        execute(loaded[0], statement)


def test_what_a_dropped_database_held_is_gone(loaded):
    connection, _ = loaded
    for _ in range(2):
        execute(connection, "create database SHORT_LIVED")
        execute(connection, "create stage st directory = (enable = true)")
        execute(connection, "create stream new_image on stage st")
        execute(connection, "create task t as select 1")
        execute(connection, "drop database SHORT_LIVED")


def test_loading_by_task_leaves_predictions_of_images_that_are_the_same(loaded):
    """sql/07 beside sql/04, and in its place."""
    connection, folder = loaded
    run_file(connection, "sql/07_load_every_night.sql")
    (folder / "hat" / "new.jpg").write_bytes((folder / "hat" / "000.jpg").read_bytes())
    (folder / "hat" / "001.jpg").write_bytes((folder / "hat" / "000.jpg").read_bytes())
    stage.sync(connection, folder, "clothing_dataset")
    run_file(connection, "sql/04_load_tables.sql")  # make batch loads first, and predicts
    predicted = "update clothing_test set type = 'hat', pred_timestamp = current_timestamp()"
    execute(connection, predicted)
    for _ in range(2):
        execute(connection, "execute task clothing_load_images")
        counts = execute(connection, "select count(*), count(type) from clothing_test")
        assert counts == [(7, 7)]
    (folder / "hat" / "001.jpg").write_bytes((folder / "shirt" / "000.jpg").read_bytes())
    (folder / "hat" / "later.jpg").write_bytes((folder / "shirt" / "000.jpg").read_bytes())
    refresh(connection, folder)
    execute(connection, "execute task clothing_load_images")
    assert execute(connection, "select count(*), count(type) from clothing_test") == [(8, 6)]
    shown = execute(connection, "show tasks like 'CLOTHING_%'")
    assert [(row[0], row[5]) for row in shown] == [("CLOTHING_LOAD_IMAGES", "started")]
    run_file(connection, "sql/08_drop_all.sql", database_name=DATABASE)
    assert not execute(connection, "show tasks") and not execute(connection, "show streams")
