"""Every night: new images cost only themselves, and nothing new costs almost nothing."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from scenery.drawing import draw_folder
from scenery.tables import make_tables
from snowflake.connector.errors import OperationalError, ProgrammingError

from helpers import model, runs
from helpers.commands import nightly
from helpers.commands.tutorial import NotebookError
from helpers.files import digest_of
from helpers.folders import walk
from helpers.images import ImageError, decode
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


def night(capsys, expected: int = 0) -> dict:
    """What a night said of itself, without the cluster that nobody has here."""
    code, said = run_nightly(capsys, "--wait-s", "0")
    assert code == expected, said
    return said


def killed_night(folder: Path) -> None:
    """A night that is killed, with all that it started, when its predictions are on the disk."""
    before = set(folder.glob("runs/*/inference.json"))
    command = [sys.executable, "-m", "helpers", "nightly", "--backend", "local"]
    process = psutil.Popen([*command, "--database", DATABASE], stdout=subprocess.DEVNULL)
    while set(folder.glob("runs/*/inference.json")) == before:
        assert process.poll() is None, "the night ended before it could be killed"
        time.sleep(0.05)
    for victim in [*process.children(recursive=True), process]:
        victim.kill()
    process.wait()


def recomputed(folder: Path, images: Path) -> dict[str, tuple[str, float]]:
    """Class and confidence of each image that can be read, computed here one by one."""
    classifier = model.load(folder / "model" / "model_trained.pt")
    found = {}
    for path in walk(images).files.values():
        try:
            image = decode(path.read_bytes())
        except ImageError:
            continue
        with torch.inference_mode():
            logits = classifier(classifier.prepare(image)[None])
        confidence, index = classifier.probabilities(logits)[0].max(0)
        found[path.relative_to(images).as_posix()] = (CLASSES[int(index)], float(confidence))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_nights_leave_what_a_plain_computation_says(connection, tmp_path, capsys):
    images = tmp_path / "images"
    hat, shirt = images / "hat", images / "shirt"
    others = draw_folder(tmp_path / "others", n=5)

    def bring(name: str, to: Path) -> None:
        to.write_bytes((others / name).read_bytes())

    def sync() -> None:
        stage.sync(connection, images, "clothing_dataset")

    assert night(capsys)["predicted"] == 6  # 1: all
    bring("hat/003.jpg", hat / "new.jpg")  # 2: new, changed, broken
    bring("hat/004.jpg", hat / "000.jpg")
    (shirt / "broken.jpg").write_text("no image")
    sync()
    said = night(capsys, nightly.TOO_MUCH_FAILED)
    assert (said["added"], said["changed"], said["vanished"]) == (2, 1, 0)
    assert (said["listed"], said["predicted"], said["failed"]) == (3, 2, 1)
    said = night(capsys, nightly.TOO_MUCH_FAILED)  # 3: the broken one again
    assert (said["listed"], said["failed"], said["unreadable"]) == (1, 1, 0)
    bring("shirt/003.jpg", shirt / "late.jpg")  # 4: killed in the middle
    sync()
    killed_night(tmp_path)
    bring("shirt/004.jpg", shirt / "later.jpg")
    sync()
    said = night(capsys, nightly.TOO_MUCH_FAILED)  # 5: goes on with the fourth
    assert (said["listed"], said["predicted"], said["updated"]) == (3, 2, 2)
    inference = json.loads((tmp_path / "runs" / said["run"] / "inference.json").read_text())
    assert inference["predicted_before"] == 1
    said = night(capsys)  # 6: three runs could not read it
    assert (said["listed"], said["unreadable"]) == (0, 1)
    bring("t-shirt/003.jpg", shirt / "broken.jpg")  # 7: mended by a person
    sync()
    assert night(capsys)["predicted"] == 1
    (hat / "001.jpg").unlink()  # 8: one is gone, one has come
    bring("t-shirt/004.jpg", images / "t-shirt" / "new.jpg")
    sync()
    said = night(capsys)
    assert (said["vanished"], said["predicted"]) == (1, 1)
    assert night(capsys)["listed"] == 0  # 9: nothing
    (hat / "new.jpg").unlink()  # 10: back under its old name, and changed
    bring("hat/002.jpg", hat / "001.jpg")
    sync()
    assert night(capsys)["predicted"] == 1

    expected = recomputed(tmp_path, images)
    rows = execute(
        connection,
        "select t.relative_path, t.type, t.confidence from clothing_test as t "
        "join directory(@clothing_dataset) as d on d.relative_path = t.relative_path",
    )
    assert {path: kind for path, kind, _ in rows} == {p: kind for p, (kind, _) in expected.items()}
    for path, _, confidence in rows:
        assert confidence == pytest.approx(expected[path][1], abs=1e-4)
    logged = "select count(*), count(distinct relative_path || etag) from clothing_prediction_log"
    assert execute(connection, logged) == [(13, 13)]  # each version of an image once


def test_what_may_pass_is_tried_again_and_what_is_wrong_is_not(connection, capsys, monkeypatch):
    calls = []

    def fail(error: Exception) -> int:
        def refuse(*_: object) -> None:
            calls.append(1)
            raise error

        calls.clear()
        monkeypatch.setattr(nightly, "predict_new", refuse)
        code, said = run_nightly(capsys, "--wait-s", "0", "--attempts", "3")
        assert code == nightly.COULD_NOT_RUN and said["attempts"] == len(calls)
        return len(calls)

    assert fail(ConnectionError("no cluster")) == 3
    assert fail(OperationalError("no answer")) == 3
    assert fail(NotebookError("03", 1, "ConnectionError: no scheduler", Path())) == 3
    assert fail(NotebookError("03", 1, "AssertionError: does not add up", Path())) == 1
    assert fail(ProgrammingError("no such table")) == 1
    assert fail(FileNotFoundError("no model")) == 1
    assert fail(ValueError("no such backend")) == 1
