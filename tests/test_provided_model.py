"""The models that come with the repository are those that their card describes."""

import json

import pytest
import torch

import standin
from helpers import choice, config, model
from helpers.commands.evaluate import evaluate
from helpers.commands.tutorial import run_tutorial
from helpers.files import digest_of
from helpers.labels import data_digest
from helpers.review import duplicates
from helpers.training.image_folder import ImageFolder
from samples import draw_samples

PROVIDED = config.PROJECT_ROOT / "model" / "model_provided.pt"
DRAWN = PROVIDED.with_name("model_drawn.pt")
CARD = PROVIDED.with_name("README.md").read_text()
FIGURES = json.loads(PROVIDED.with_suffix(".json").read_text())
DRAWN_FIGURES = json.loads(DRAWN.with_suffix(".json").read_text())
PHOTOGRAPHS = config.PROJECT_ROOT.parent / "shared" / "clothing-dataset-small"
EXACT = (
    "n",
    "accuracy",
    "accuracy_95",
    "top3",
    "macro_f1",
    "recall",
    "failures",
)  # no figure that rounding moves
needs_photographs = pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason=f"the photographs are not in {PHOTOGRAPHS}"
)


@pytest.mark.parametrize(
    "path, figures, most", [(PROVIDED, FIGURES, 15_000_000), (DRAWN, DRAWN_FIGURES, 15_000_000)]
)
def test_file_is_small_loads_without_code_and_has_its_digest_on_the_card(path, figures, most):
    content = torch.load(path, weights_only=True)
    assert path.stat().st_size <= most and content.keys() == {"card", "state_dict"}
    assert {v.dtype for v in content["state_dict"].values() if v.is_floating_point()} == {
        torch.float16
    }
    assert digest_of(path) == figures["model_digest"] and figures["model_digest"] in CARD


def test_card_shows_the_figures():
    low, high = FIGURES["accuracy_95"]
    assert f"| {FIGURES['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f} |" in CARD
    assert (
        f"| macro-F1 | {FIGURES['macro_f1']:.3f} |" in CARD
        and f"{FIGURES['ece']:.3f}; a perfectly" in CARD
    )
    assert all(f"| {name} | " in CARD for name in FIGURES["recall"])
    assert FIGURES["ece"] < FIGURES["ece_95"]


@pytest.mark.slow
@needs_photographs
def test_figures_are_what_evaluation_finds():
    found = evaluate(PHOTOGRAPHS / "validation", PROVIDED)
    assert {name: found[name] for name in EXACT} == {name: FIGURES[name] for name in EXACT}
    assert found["ece"] == pytest.approx(FIGURES["ece"], abs=1e-3)


@pytest.mark.slow
def test_figures_of_the_drawings_are_what_evaluation_finds(drawn_images):
    found = evaluate(drawn_images / "test", DRAWN)
    assert {name: found[name] for name in EXACT} == {name: DRAWN_FIGURES[name] for name in EXACT}
    (low, high), others = found["accuracy_95"], DRAWN_FIGURES["others"]
    assert f"| {found['n']} | {found['accuracy']:.3f} | {low:.3f} to {high:.3f} |" in CARD
    assert f"| {others['n']} | {others['accuracy']:.3f} | " in CARD and others["accuracy"] > 0.9


@pytest.mark.slow
def test_figures_of_other_drawings_are_what_evaluation_finds(tmp_path):
    found, others = (
        evaluate(draw_samples(tmp_path / "images", 1, 60, seed=1) / "test", DRAWN),
        DRAWN_FIGURES["others"],
    )
    assert (found["n"], found["accuracy"]) == (others["n"], others["accuracy"])
    assert found["ece"] == pytest.approx(others["ece"], abs=1e-3)


def test_it_is_chosen_for_drawings_and_says_how_it_was_trained(drawn_images, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    data, card = ImageFolder(drawn_images / "train"), model.load(DRAWN).card
    assert choice.choose(data_digest(data.sizes), data.classes) == DRAWN
    assert (card.arch, card.parameters["weights"]) == ("efficientnet_lite0", "imagenet")
    assert f"{card.arch}, {card.image_size} pixels, with the same settings" in CARD
    hashes = duplicates.load_hashes(data_digest(data.sizes))
    assert list(hashes.relative_path) == data.paths


@needs_photographs
def test_it_is_chosen_for_its_own_data_set_unless_the_reader_has_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    data = ImageFolder(PHOTOGRAPHS / "train")
    assert choice.choose(data_digest(data.sizes), data.classes) == PROVIDED
    model.save(model.load(PROVIDED), config.trained_model())
    assert choice.choose(data_digest(data.sizes), data.classes) == config.trained_model()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "images, figures",
    [pytest.param(str(PHOTOGRAPHS), FIGURES, marks=needs_photographs), ("", DRAWN_FIGURES)],
)
def test_tutorial_runs_without_training(images, figures, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(tmp_path / ".sandbox"))
    monkeypatch.setenv("TUTORIAL_BACKEND", "local")
    try:
        folder = run_tutorial(images, {}, train=False)
    finally:
        standin.stop(tmp_path / ".sandbox")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["predictions"], summary["rows_written_back"]) == (figures["n"], figures["n"])
    assert summary["accuracy"] == pytest.approx(figures["accuracy"], abs=1.5 / figures["n"])
    assert json.loads((folder / "run.json").read_text())["model_digest"] == figures["model_digest"]
