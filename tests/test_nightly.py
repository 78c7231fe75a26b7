"""Every night: new images cost only themselves, and nothing new costs almost nothing."""

import json
from dataclasses import replace

import pytest
from scenery.drawing import draw_folder
from scenery.tables import make_tables

from helpers import model, runs
from helpers.commands import nightly
from helpers.files import digest_of
from helpers.snowflake import stage
from helpers.snowflake.connection import connect, execute
from helpers.training.pretrained import build

DATABASE = "NIGHTLY"
CLASSES = ["hat", "shirt", "t-shirt"]


@pytest.fixture
def connection(running_standin, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    connection = connect("local")
    make_tables(connection, draw_folder(tmp_path / "images", n=2), DATABASE)
    card = model.ModelCard("resnet18", CLASSES, 32, "drawn", "d")
    classifier = model.Classifier(build("resnet18", 3), card)
    (tmp_path / "model").mkdir()
    model.save(classifier, tmp_path / "model" / "model_trained.pt")
    runs.start(
        "local",
        DATABASE,
        "first",
        data_set="drawn",
        data_digest="d",
        test_digest="t",
        classes=CLASSES,
        images={},
    )
    yield connection
    connection.close()


def run_nightly(capsys, *options: str) -> tuple[int, dict]:
    """Exit code and the one line of JSON."""
    code = nightly.main(["--backend", "local", "--database", DATABASE, *options])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return code, json.loads(lines[0])


def test_with_nothing_new_it_ends_at_once(connection, tmp_path, capsys):
    digest = digest_of(tmp_path / "model" / "model_trained.pt")
    execute(
        connection,
        "update clothing_test "
        "set type = 'hat', confidence = 1, pred_timestamp = current_timestamp()",
    )
    execute(
        connection,
        "insert into clothing_prediction_log (run, relative_path, etag, model_digest) "
        "select 'first', relative_path, etag, %s from directory(@clothing_dataset)",
        (digest,),
    )
    code, said = run_nightly(capsys)
    assert code == 0 and said["listed"] == said["predicted"] == said["added"] == 0
    assert said["seconds"] < 30
    assert runs.open_run("latest", "local", DATABASE).name == "first"


def test_an_error_is_one_line_and_not_zero(connection, tmp_path, capsys):
    (tmp_path / "model" / "model_trained.pt").unlink()
    replace(runs.open_run("first", "local", DATABASE), data_digest="unknown").save()
    code, said = run_nightly(capsys)
    assert code == 1 and "02_train_model" in said["error"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_new_and_changed_images_are_predicted(connection, tmp_path, capsys):
    code, said = run_nightly(capsys)
    assert code == 0 and said["predicted"] == said["updated"] == 6
    folder = tmp_path / "images"
    for name in CLASSES:
        (folder / name / "new.jpg").write_bytes((folder / name / "000.jpg").read_bytes())
    (folder / "hat" / "000.jpg").write_bytes((folder / "hat" / "001.jpg").read_bytes())
    (folder / "shirt" / "broken.jpg").write_text("no image")
    (folder / "t-shirt" / "001.jpg").unlink()
    stage.sync(connection, folder, "clothing_dataset")
    code, said = run_nightly(capsys, "--max-failed", "0.5")
    assert code == 0 and (said["added"], said["changed"], said["vanished"]) == (4, 1, 1)
    assert (said["listed"], said["predicted"], said["failed"], said["updated"]) == (5, 4, 1, 4)
    code, said = run_nightly(capsys, "--max-failed", "0.5")
    assert code == 1 and (said["listed"], said["failed"]) == (1, 1)  # the broken one is tried again
