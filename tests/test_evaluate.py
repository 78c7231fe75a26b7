"""python -m helpers evaluate on a folder of tiny images."""

import json
from dataclasses import replace

import pytest
import torch
from scenery.drawing import COLOURS, draw_folder
from torch import nn

from helpers import __main__ as door
from helpers.commands.evaluate import evaluate, main
from helpers.model import Classifier, ModelCard, save
from helpers.training.pretrained import build

CLASSES = ["t-shirt", "shirt", "hat"]  # not in the folder's order


class Colour(nn.Module):
    """Logits that follow the mean red, green and blue: blue is t-shirt, green shirt, red hat."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return x.mean((2, 3)).flip(1) * self.scale


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("images"), n=4)


@pytest.fixture
def checkpoint(tmp_path):
    card = ModelCard("resnet18", CLASSES, 16, "test", "digest")
    save(Classifier(build("resnet18", 3), card), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_classes_are_matched_by_name_not_by_position(images, checkpoint, monkeypatch):
    monkeypatch.setattr(
        "helpers.model.load", lambda *_: Classifier(Colour(), ModelCard("", CLASSES, 16, "", ""))
    )
    result = evaluate(images, checkpoint, "cpu")
    assert (
        result["n"] == 4 * len(COLOURS)
        and result["accuracy"] == result["top3"] == result["macro_f1"] == 1.0
    )
    assert result["recall"] == dict.fromkeys(CLASSES, 1.0)


def test_command_prints_one_line_of_json_and_counts_unreadable_images(
    tmp_path, checkpoint, monkeypatch, capsys
):
    folder = draw_folder(tmp_path / "images", n=2)
    (folder / "hat" / "broken.jpg").write_text("no image")
    command = [
        "--json",
        "--device",
        "cpu",
        "--images",
        str(folder),
        "--checkpoint",
        str(checkpoint),
    ]
    with pytest.warns(UserWarning, match=r"hat/broken\.jpg is left out"):
        assert main(command) == 0
    shown = capsys.readouterr().out
    result = json.loads(shown)
    assert shown.count("\n") == 1 and (result["n"], result["failures"]) == (6, 1)
    wanted = {
        "n",
        "accuracy",
        "accuracy_95",
        "top3",
        "macro_f1",
        "ece",
        "ece_95",
        "recall",
        "images_per_s",
    }
    assert wanted <= result.keys() and result["images_per_s"] > 0


def test_class_that_the_model_does_not_know_is_refused(tmp_path, checkpoint):
    folder = draw_folder(tmp_path / "images", n=1, colours={"hat": (1, 2, 3), "scarf": (4, 5, 6)})
    with pytest.raises(
        ValueError, match=r"scarf, which .*model\.pt does not know.*Remove those folders"
    ):
        evaluate(folder, checkpoint, "cpu")


def test_folder_with_some_of_the_classes_has_no_recall_for_the_others(
    tmp_path, checkpoint, monkeypatch
):
    card = replace(ModelCard("", CLASSES, 16, "", ""), temperature=2.0)
    monkeypatch.setattr("helpers.model.load", lambda *_: Classifier(Colour(), card))
    folder = draw_folder(tmp_path / "images", n=2, colours={"hat": COLOURS["hat"]})
    assert evaluate(folder, checkpoint, "cpu")["recall"] == {
        "t-shirt": None,
        "shirt": None,
        "hat": 1.0,
    }


def test_command_names_a_missing_model(images, tmp_path, monkeypatch, capsys):
    command = ["evaluate", "--images", str(images), "--checkpoint", str(tmp_path / "none.pt")]
    assert door.main(command) == 1
    assert "none.pt does not exist" in capsys.readouterr().err
