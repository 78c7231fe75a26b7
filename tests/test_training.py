import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from scenery.drawing import draw_folder

from helpers import model
from helpers.images import ImageError
from helpers.training.image_folder import ImageFolder
from helpers.training.loop import (
    Parameters,
    TrainingDiverged,
    TrainingRun,
    fit,
    split,
)
from helpers.training.optimise import freeze_early
from helpers.training.pretrained import build
from helpers.training.progress import forecast
from helpers.training.transfer import worth_of_pretraining
from helpers.training.validation import fit_temperature, prefetched

SMALL = Parameters(
    n_epochs=3,
    batch_size=8,
    base_lr=0.003,
    arch="resnet18",
    weights="none",
    image_size=32,
    augmentation=1.0,
    averaging=0.9,
    validation_share=0.25,
    device="cpu",
)


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "train")


def weights(path) -> dict:
    return model.read_checkpoint(path)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("batch_size", [6, 12, 27], ids=["four steps", "two steps", "one step"])
def test_a_training_of_few_steps_ends_with_a_model(folder, tmp_path, batch_size):
    parameters = replace(SMALL, n_epochs=1, batch_size=batch_size)
    history = fit(ImageFolder(folder, side=40), parameters, tmp_path / "m.pt", "colours")
    assert (
        len(history) == 1 and model.load(tmp_path / "m.pt").card.metrics["validation"]["epoch"] == 1
    )


def test_fit_learns_and_tells(folder, tmp_path):
    told = []
    data = ImageFolder(folder, side=40, cache=tmp_path / "cache")
    parameters = replace(SMALL, n_epochs=6, augmentation=0)
    history = fit(data, parameters, tmp_path / "m.pt", "colours", lambda run: told.append(run.at))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert max(row["validation_accuracy"] for row in history) > 0.6  # a third by guessing
    card = model.load(tmp_path / "m.pt").card
    assert (card.classes, card.data_set, card.arch) == (
        ["hat", "shirt", "t-shirt"],
        "colours",
        "resnet18",
    )
    kept = history[card.metrics["validation"]["epoch"] - 1]
    assert card.metrics["validation"] == {
        "n": 9,
        "accuracy": kept["validation_accuracy"],
        "loss": kept["validation_loss"],
        "epoch": kept["epoch"],
        "most_frequent": "hat",
        "baseline": 3 / 9,
    }
    assert card.parameters["batch_size"] == 8 and card.versions["torch"] == str(torch.__version__)
    assert len(told[-1].history) == 6
    with (tmp_path / "m.history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    assert not (tmp_path / "m.pt.state").exists()


def test_same_seed_same_weights_other_seed_others(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(data, replace(SMALL, n_epochs=1, seed=seed), tmp_path / f"{name}.pt")
    assert same(weights(tmp_path / "a.pt"), weights(tmp_path / "b.pt"))
    assert not same(weights(tmp_path / "a.pt"), weights(tmp_path / "c.pt"))


@pytest.mark.parametrize("stop_at", [2, 5], ids=["in an epoch", "in the next epoch"])
def test_interrupted_run_ends_with_the_same_weights(folder, tmp_path, stop_at, monkeypatch):
    data, parameters = ImageFolder(folder, side=40), replace(SMALL, n_epochs=2, save_every_s=0)
    fit(data, parameters, tmp_path / "whole.pt")
    steps, step = [], TrainingRun.train_step

    def interrupted(run, *batch):
        steps.append(1)
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        step(run, *batch)

    monkeypatch.setattr(TrainingRun, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"in epoch \d of 2\. .* goes on"):
        fit(data, parameters, tmp_path / "cut.pt")
    monkeypatch.undo()
    history = fit(data, parameters, tmp_path / "cut.pt")
    assert [row["epoch"] for row in history] == [1, 2]
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "cut.pt"))


@pytest.mark.slow
def test_killed_command_resumes_to_the_same_weights(folder, tmp_path):
    def train(name: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "helpers",
            "train",
            "--images",
            str(folder),
            "--arch",
            "resnet18",
            "--weights",
            "none",
        ]
        command += [
            "--image-size",
            "32",
            "--n-epochs",
            "8",
            "--batch-size",
            "8",
            "--save-every-s",
            "0",
        ]
        command += [
            "--device",
            "cpu",
            "--cache",
            str(tmp_path / "cache"),
            "--checkpoint",
            str(tmp_path / name),
        ]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    assert train("whole.pt").wait(250) == 0
    killed = train("cut.pt")
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut.pt.state").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(20) == -signal.SIGKILL and (tmp_path / "cut.pt.state").exists()
    assert train("cut.pt").wait(250) == 0
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "cut.pt"))


def test_state_of_other_parameters_is_not_taken(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    run = TrainingRun(data, replace(SMALL, n_epochs=1), tmp_path / "m.pt", "")
    run.at.epoch = 1
    run.save_state()
    assert len(fit(data, replace(SMALL, n_epochs=1, seed=7), tmp_path / "m.pt")) == 1


def test_nan_loss_names_epoch_batch_and_paths(folder, tmp_path, monkeypatch):
    data = ImageFolder(folder, side=40)
    run = TrainingRun(data, SMALL, tmp_path / "m.pt", "")
    with torch.no_grad():
        run.model.net.fc.bias.fill_(float("nan"))
    with pytest.raises(
        TrainingDiverged, match=r"nan in epoch 1, batch 1 \((hat|shirt|t-shirt)/\d+\.jpg"
    ):
        run.train_epoch(lambda run: None)


def test_broken_images_are_left_out_and_named(folder, tmp_path):
    (folder / "hat" / "000.jpg").write_text("no image")
    data = ImageFolder(folder, side=40)
    with pytest.warns(UserWarning, match=r"hat/000\.jpg is left out"):
        fit(
            data, replace(SMALL, n_epochs=1, batch_size=36, validation_share=0.0), tmp_path / "m.pt"
        )
    assert list(data.broken) == ["hat/000.jpg"]


def break_images(folder, *names):
    for name in names:
        (folder / name).write_text("no image")


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_batch_of_broken_images_is_passed_over(folder, tmp_path, batch_size):
    names = [f"{label}/{n:03}.jpg" for label in ("hat", "shirt") for n in range(9)]
    break_images(folder, *names)
    data = ImageFolder(folder, side=80)
    parameters = replace(SMALL, n_epochs=2, batch_size=batch_size, image_size=64)
    assert "(h:mm:ss)" in forecast(data, parameters)
    history = fit(data, parameters, tmp_path / "m.pt")
    assert len(history) == 2 and all(math.isfinite(row["loss"]) for row in history)
    assert set(data.broken) == set(names)
    assert model.load(tmp_path / "m.pt").card.metrics["validation"]["n"] < 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_training_that_passes_over_batches_resumes_to_the_same_weights(folder, tmp_path):
    break_images(folder, *(f"hat/{n:03}.jpg" for n in range(10)))
    data = ImageFolder(folder, side=80)
    parameters = replace(SMALL, n_epochs=2, batch_size=2, image_size=64, save_every_s=0)
    fit(data, parameters, tmp_path / "whole.pt")

    def stop(run):
        if (run.at.epoch, run.at.step) == (1, 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, parameters, tmp_path / "cut.pt", report=stop)
    fit(data, parameters, tmp_path / "cut.pt")
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "cut.pt"))


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_training_without_any_image_ends_and_says_why(folder, tmp_path):
    break_images(folder, *(path.relative_to(folder) for path in folder.rglob("*.jpg")))
    data = ImageFolder(folder, side=40)
    for train in (forecast, lambda data, parameters: fit(data, parameters, tmp_path / "m.pt")):
        with pytest.raises(ValueError, match=r"could be read: .*\.jpg.*not a readable image"):
            train(data, replace(SMALL, n_epochs=1))
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_training_whose_held_back_images_are_broken_keeps_the_newest(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    _, held_back = split(data.labels, SMALL.validation_share, SMALL.seed)
    break_images(folder, *(data.paths[index] for index in held_back))
    history = fit(data, replace(SMALL, n_epochs=1), tmp_path / "m.pt")
    assert math.isnan(history[0]["validation_loss"])
    assert "not noted" in model.load(tmp_path / "m.pt").card.standing()
    with pytest.raises(ImageError, match=r"\.jpg: not a readable image"):
        fit(
            ImageFolder(folder, side=40, on_error="raise"),
            replace(SMALL, n_epochs=1),
            tmp_path / "strict.pt",
        )


def test_a_second_training_of_the_same_file_is_told_at_once(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    parameters = replace(SMALL, n_epochs=1)
    told = []

    def second(run):
        with pytest.raises(BlockingIOError, match=r"m\.pt is in use .*Wait until .* another path"):
            fit(data, parameters, tmp_path / "m.pt")
        told.append(fit(data, parameters, tmp_path / "other.pt"))

    fit(data, parameters, tmp_path / "m.pt", report=lambda run: told or second(run))
    assert told and same(weights(tmp_path / "m.pt"), weights(tmp_path / "other.pt"))
    fit(data, parameters, tmp_path / "m.pt")  # the lock ended with the training


def test_split_is_stratified_and_seeded():
    labels = torch.tensor([0] * 80 + [1] * 20)
    training, validation = split(labels, 0.25, seed=3)
    assert sorted(training + validation) == list(range(100))
    assert labels[validation].bincount().tolist() == [20, 5]
    assert (training, validation) == split(labels, 0.25, seed=3) != split(labels, 0.25, seed=4)
    thinned, held = split(labels, 0.25, seed=3, downsample_to=0.5)
    assert labels[thinned + held].bincount().tolist() == [40, 10]
    assert split(torch.tensor([0, 1, 1]), 0.2, 0)[
        0
    ]  # a class of one image trains, and is not held back


def test_temperature_undoes_a_known_scale():
    torch.manual_seed(0)
    logits = torch.randn(4000, 5) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.06)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, abs=0.2)


def test_images_that_are_all_right_do_not_prove_certainty():
    labels = torch.arange(80) % 10
    logits = 6 * torch.nn.functional.one_hot(labels, 10).float()
    confidence = (logits / fit_temperature(logits, labels)).softmax(1).max(1).values.mean().item()
    assert confidence == pytest.approx(1 - 0.9 / 82, abs=2e-3)


def test_early_layers_stay_as_imagenet_taught_them(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    parameters = replace(SMALL, arch="efficientnet_lite0", weights="imagenet", n_epochs=1)
    fit(data, parameters, tmp_path / "m.pt")
    pretrained = build("efficientnet_lite0", 3, "imagenet").state_dict()
    trained = weights(tmp_path / "m.pt")
    moved = {name for name, value in pretrained.items() if not torch.equal(value, trained[name])}
    early = ("conv_stem.", "bn1.", "blocks.0.")
    assert not [name for name in moved if name.startswith(early)]
    assert {"conv_head.weight", "classifier.weight"} <= moved


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "efficientnet_lite0"])
def test_what_is_frozen_is_the_beginning(arch):
    net = build(arch, 3)
    frozen = freeze_early(net)
    flags = [parameter.requires_grad for parameter in net.parameters()]
    assert flags == sorted(flags) and 0.02 < flags.count(False) / len(flags) < 0.7
    assert frozen and not any(p.requires_grad for part in frozen for p in part.parameters())
    assert all(hasattr(part, "running_mean") for part in frozen)


def test_an_unfinished_training_leaves_the_finished_model(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    fit(data, replace(SMALL, n_epochs=1), tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    history = (tmp_path / "m.history.csv").read_bytes()

    def stop(run):
        if (run.at.epoch, run.at.step) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"epoch 2 of 3.*m\.pt stays as it was"):
        fit(data, SMALL, tmp_path / "m.pt", report=stop)
    assert (tmp_path / "m.pt").read_bytes() == before
    assert (tmp_path / "m.history.csv").read_bytes() == history
    assert len(fit(data, SMALL, tmp_path / "m.pt")) == 3
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"m.pt", "m.history.csv"}


def test_progress_begins_at_nothing_and_counts_every_step(folder, tmp_path):
    told = []

    def note(run):
        told.append((run.at.epoch, run.at.step))

    data = ImageFolder(folder, side=40)
    parameters = replace(SMALL, n_epochs=2)
    fit(data, parameters, tmp_path / "m.pt", report=note)
    steps = TrainingRun(data, parameters, tmp_path / "m.pt", "").n_steps
    within = [(epoch, step) for epoch in (0, 1) for step in range(1, steps + 1)]
    assert told == [(0, 0), *within[:steps], (1, 0), *within[steps:], (2, 0)]


def test_the_forecast_keeps_nothing_and_advises_where_it_is_long(folder, tmp_path, monkeypatch):
    data = ImageFolder(folder, side=40)
    monkeypatch.chdir(tmp_path)
    short = forecast(data, SMALL)
    assert re.search(r"about 0:0\d:\d\d \(h:mm:ss\)", short) and "Quicker" not in short
    long = forecast(data, replace(SMALL, n_epochs=20_000))
    assert "Quicker: fewer epochs" in long
    assert {path.name for path in tmp_path.iterdir()} == {"train"}


def test_pretraining_is_worth_something(folder):
    table = worth_of_pretraining(
        ImageFolder(folder, side=40), replace(SMALL, arch="efficientnet_lite0", image_size=64)
    )
    assert list(table.columns) == ["pretrained", "untrained"]
    assert list(table.index)[:2] == ["10", "30"]
    assert table.pretrained.between(0, 1).all() and table.pretrained.iloc[-1] > 0.8


def test_weights_of_another_model_start_a_new_one(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    fit(data, replace(SMALL, n_epochs=1), tmp_path / "first.pt")
    net = build("resnet18", 5, str(tmp_path / "first.pt"))
    assert torch.equal(net.conv1.weight, weights(tmp_path / "first.pt")["conv1.weight"])
    assert net.fc.out_features == 5
    with pytest.raises(ValueError, match="do not fit resnet50"):
        build("resnet50", 3, str(tmp_path / "first.pt"))


def test_prefetched_keeps_order_and_raises_in_the_caller():
    assert list(prefetched(range(10), lambda n: n * n)) == [n * n for n in range(10)]
    with pytest.raises(ZeroDivisionError):
        list(prefetched([1, 0, 2], lambda n: 1 / n))


def test_command_refuses_what_it_cannot_train(tmp_path):
    command = [sys.executable, "-m", "helpers", "train", "--images", str(tmp_path / "none")]
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"TUTORIAL_HOME": str(tmp_path)}
    )
    assert (
        result.returncode == 1
        and "does not exist" in result.stderr
        and "Traceback" not in result.stderr
    )
