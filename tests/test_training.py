import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from scenery.drawing import draw_folder

from helpers import model
from helpers.training.dataset import ImageFolder
from helpers.training.loop import (
    Parameters,
    TrainingDiverged,
    TrainingRun,
    fit,
    image_size_at,
    split,
)
from helpers.training.optimise import uphill
from helpers.training.validation import fit_temperature, prefetched

SMALL = Parameters(
    n_epochs=3, batch_size=8, arch="resnet18", image_size=32, averaging=0.9, validation_share=0.25, device="cpu"
)  # fmt: skip


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
    history = fit(data, parameters, tmp_path / "m.pt", "colours", told.append)
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
        "n": 9, "accuracy": kept["validation_accuracy"], "loss": kept["validation_loss"], "epoch": kept["epoch"]
    }  # fmt: skip
    assert card.parameters["batch_size"] == 8 and card.versions["torch"] == str(torch.__version__)
    assert len([p for p in told if p.validation]) == 6
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
    data, parameters = ImageFolder(folder, side=40), replace(SMALL, n_epochs=2, checkpoint_every=1)
    fit(data, parameters, tmp_path / "whole.pt")
    steps, step = [], TrainingRun.train_step

    def interrupted(run, *batch):
        steps.append(1)
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        step(run, *batch)

    monkeypatch.setattr(TrainingRun, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"cut\.pt\.state continues it"):
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
        ]
        command += [
            "--image-size",
            "32",
            "--n-epochs",
            "8",
            "--batch-size",
            "8",
            "--checkpoint-every",
            "1",
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
    while not (tmp_path / "cut.history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(20) == -signal.SIGKILL and (tmp_path / "cut.pt.state").exists()
    assert train("cut.pt").wait(250) == 0
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "cut.pt"))


def test_state_of_other_parameters_is_not_taken(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    run = TrainingRun(data, replace(SMALL, n_epochs=1), tmp_path / "m.pt", "")
    run.epoch = 1
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
        run.train_epoch(lambda progress: None)


def test_broken_images_are_left_out_and_named(folder, tmp_path):
    (folder / "hat" / "000.jpg").write_text("no image")
    data = ImageFolder(folder, side=40)
    with pytest.warns(UserWarning, match=r"hat/000\.jpg is left out"):
        fit(
            data, replace(SMALL, n_epochs=1, batch_size=36, validation_share=0.0), tmp_path / "m.pt"
        )
    assert list(data.broken) == ["hat/000.jpg"]


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


def test_uphill_moves_the_weights_along_their_gradient_and_back():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    x = torch.randn(8, 3)
    net(x).square().mean().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = torch.cat([p.grad.flatten() for p in net.parameters()])
    with uphill(net, 0.5):
        moved = torch.cat([(p - before[name]).flatten() for name, p in net.named_parameters()])
        net(x)  # leaves the running statistics alone
    assert torch.allclose(moved, 0.5 * gradients / gradients.norm(), atol=1e-6)
    assert same(net.state_dict(), before)
    net(x)
    assert net[1].num_batches_tracked == before["1.num_batches_tracked"] + 1


def test_sharpness_aware_training_learns_and_resumes(folder, tmp_path):
    data = ImageFolder(folder, side=40, cache=tmp_path / "cache")
    parameters = replace(SMALL, augmentation=0, sharpness=0.05)

    def stop(progress):
        if progress.epoch == 2 and not progress.validation:
            raise KeyboardInterrupt

    history = fit(data, parameters, tmp_path / "whole.pt")
    assert history[-1]["loss"] < history[0]["loss"]
    often = replace(parameters, report_every=1, checkpoint_every=1)
    for report in (stop, lambda progress: None):
        with contextlib.suppress(KeyboardInterrupt):
            fit(data, often, tmp_path / "parts.pt", report=report)
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "parts.pt"))
    fit(data, replace(parameters, sharpness=0.0), tmp_path / "plain.pt")
    assert not same(weights(tmp_path / "whole.pt"), weights(tmp_path / "plain.pt"))


def test_image_size_grows():
    sizes = [
        image_size_at(epoch, Parameters(n_epochs=8, image_size=128, start_size=96))
        for epoch in range(8)
    ]
    assert sizes[0] == 96 and sizes[-1] == 128 and sizes == sorted(sizes)


def test_weights_of_another_model_start_a_new_one(folder, tmp_path):
    data = ImageFolder(folder, side=40)
    fit(data, replace(SMALL, n_epochs=1), tmp_path / "first.pt")
    net = model.build("resnet18", 5, str(tmp_path / "first.pt"))
    assert torch.equal(net.conv1.weight, weights(tmp_path / "first.pt")["conv1.weight"])
    assert net.fc.out_features == 5
    with pytest.raises(ValueError, match="do not fit resnet50"):
        model.build("resnet50", 3, str(tmp_path / "first.pt"))


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
