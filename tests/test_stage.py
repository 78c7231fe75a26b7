"""A stage follows its folder, whatever the names, and loses nothing else."""

import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from scenery.drawing import draw_folder

from helpers.snowflake import stage as stages
from helpers.snowflake.connection import execute
from helpers.snowflake.sql_files import local_files

ODD = ["a.jpg", "a.jpg.png", "a.jpg.2.jpg", "b.jpg", "it's.jpg", "[1].jpg", "x*?.jpg", "(a|b).jpg"]
ODD += ["50%.jpg", "a+b.jpg", "größe.jpg", "a b.jpg", "$^.jpg", 'q".jpg', "{}.jpg", "#1.jpg"]


@pytest.fixture
def stage(connection):
    execute(connection, "create stage st encryption = (type = 'SNOWFLAKE_SSE')")
    return connection


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.sets(some.sampled_from(ODD), min_size=1, max_size=len(ODD) - 1))
def test_only_what_is_gone_is_removed(stage, tmp_path_factory, gone):
    folder = tmp_path_factory.mktemp("images")
    (folder / "hat").mkdir()
    for name in ODD:
        (folder / "hat" / name).write_text(name)
    stages.sync(stage, folder, "st")
    for name in gone:
        (folder / "hat" / name).unlink()
    changes = stages.sync(stage, folder, "st")
    assert set(changes.removed) == {f"hat/{name}" for name in gone}
    assert set(stages.listing(stage, "st")) == {f"hat/{name}" for name in set(ODD) - gone}


def test_a_sync_without_news_asks_once(stage, tmp_path, monkeypatch):
    folder = draw_folder(tmp_path / "train", n=2)
    stages.sync(stage, folder, "st")
    sent = []

    def noted(connection, sql):
        sent.append(sql)
        return execute(connection, sql)

    monkeypatch.setattr(stages, "execute", noted)
    stages.sync(stage, folder, "st")
    assert sent == ["list @ST"]


def test_what_cannot_be_read_at_the_moment_is_not_removed(stage, tmp_path):
    folder = draw_folder(tmp_path / "train", n=2)
    stages.sync(stage, folder, "st")
    (folder / "hat" / "000.jpg").unlink()
    (folder / "hat" / "000.jpg").symlink_to("/nowhere")
    changes = stages.sync(stage, folder, "st")
    assert changes.removed == [] and "left out: hat/000.jpg (no file" in str(changes)
    assert len(stages.listing(stage, "st")) == 6


def test_what_lies_below_a_folder_that_cannot_be_read_is_not_removed(stage, tmp_path):
    folder = draw_folder(tmp_path / "train", n=2)
    (folder / "hat" / "more").mkdir()
    (folder / "hat" / "more" / "x.jpg").write_text("x")
    (folder / "hat" / "more.jpg").write_text("x")
    stages.sync(stage, folder, "st")
    shutil.rmtree(folder / "hat" / "more")
    (folder / "hat" / "more").symlink_to(folder)
    (folder / "hat" / "more.jpg").unlink()
    assert stages.sync(stage, folder, "st").removed == ["hat/more.jpg"]


def test_another_md5_than_of_the_bytes_is_said(stage, tmp_path, monkeypatch):
    """As some clouds may have it; each sync uploads everything then."""
    folder = draw_folder(tmp_path / "train", n=2)
    listing = stages.listing

    def other(connection, name):
        return {path: (size, None) for path, (size, _) in listing(connection, name).items()}

    monkeypatch.setattr(stages, "listing", other)
    with pytest.warns(UserWarning, match="LIST's MD5 of @st/hat/000.jpg is not the file's"):
        stages.sync(stage, folder, "st")


@pytest.mark.parametrize("name", ["[2024] work", "it's", "a\\b", "what?", "*", "50% #1 ü"])
def test_put_finds_files_below_any_folder(stage, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "part-0.x").write_text("x")
    (tmp_path / "part-1.x").write_text("y")
    put = f"put {local_files(folder, 'part-*.x')} @st/t/ auto_compress = false"
    assert [row[1] for row in execute(stage, put)] == ["part-0.x"]
    assert re.fullmatch("st/t/part-0.x", execute(stage, "list @st")[0][0])
