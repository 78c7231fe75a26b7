"""The model that comes with the repository is the one that its card describes."""

import json

import pytest
import torch

from helpers import config, model, sandbox
from helpers.dataset import ImageFolder, data_digest
from helpers.evaluate import evaluate
from helpers.tutorial import run_tutorial

PROVIDED = config.PROJECT_ROOT / "model" / "model_provided.pt"
CARD = PROVIDED.with_name("README.md").read_text()
FIGURES = json.loads(PROVIDED.with_suffix(".json").read_text())
PHOTOGRAPHS = config.PROJECT_ROOT.parent / "shared" / "clothing-dataset-small"
needs_photographs = pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"the photographs are not in {PHOTOGRAPHS}")


def test_file_is_small_loads_without_code_and_has_its_digest_on_the_card():
    content = torch.load(PROVIDED, weights_only=True)
    assert PROVIDED.stat().st_size <= 50 * 2**20 and content.keys() == {"card", "state_dict"}
    assert {v.dtype for v in content["state_dict"].values() if v.is_floating_point()} == {torch.float16}
    assert model.digest(PROVIDED) == FIGURES["model_digest"] and FIGURES["model_digest"] in CARD


def test_card_shows_the_figures():
    low, high = FIGURES["accuracy_95"]
    assert f"| {FIGURES['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f} |" in CARD
    assert f"| macro-F1 | {FIGURES['macro_f1']:.3f} |" in CARD and f"{FIGURES['ece']:.3f}; a perfectly" in CARD
    assert all(f"| {name} | " in CARD for name in FIGURES["recall"])
    assert FIGURES["ece"] < FIGURES["ece_95"]


@needs_photographs
def test_figures_are_what_evaluation_finds():
    found = evaluate(PHOTOGRAPHS / "validation", PROVIDED)
    exact = ("n", "accuracy", "accuracy_95", "top3", "macro_f1", "recall", "failures")
    assert {name: found[name] for name in exact} == {name: FIGURES[name] for name in exact}
    assert found["ece"] == pytest.approx(FIGURES["ece"], abs=1e-3)


@needs_photographs
def test_it_is_chosen_for_its_own_data_set_unless_the_reader_has_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    data = ImageFolder(PHOTOGRAPHS / "train")
    assert model.choose(data_digest(data.sizes), data.classes) == PROVIDED
    model.save(model.load(PROVIDED), config.trained_model())
    assert model.choose(data_digest(data.sizes), data.classes) == config.trained_model()


@needs_photographs
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tutorial_runs_without_training(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(tmp_path / ".sandbox"))
    monkeypatch.setenv("TUTORIAL_BACKEND", "local")
    try:
        folder = run_tutorial(str(PHOTOGRAPHS), {}, train=False)
    finally:
        sandbox.stop(tmp_path / ".sandbox")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["predictions"], summary["rows_written_back"]) == (FIGURES["n"], FIGURES["n"])
    assert summary["accuracy"] == pytest.approx(FIGURES["accuracy"], abs=1.5 / FIGURES["n"])
    assert json.loads((folder / "run.json").read_text())["model_digest"] == FIGURES["model_digest"]
