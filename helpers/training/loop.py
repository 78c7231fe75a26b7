"""Train a classifier: a pure function of data, parameters and seed, that survives a kill and resumes exactly."""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

from helpers.files import written_whole
from helpers.folders import data_digest
from helpers.model import Classifier, ModelCard, build, device_named, has_fast_bfloat16, save
from helpers.training.augmentation import distort, mix, random_crop
from helpers.training.dataset import LabelledImages
from helpers.training.optimise import parameter_groups, running_average, uphill
from helpers.training.validation import fit_temperature, logits_of, prefetched


@dataclass(frozen=True)
class Parameters:
    """How to train; the first four and arch as in the guide, the rest with defaults for training from scratch."""

    n_epochs: int = 25
    batch_size: int = 64
    base_lr: float = 0.003  # the peak of a one-cycle schedule
    downsample_to: float = 1.0  # share of the training images to use
    arch: str = "resnet50"  # any torchvision classification model
    weights: str = ""  # "", a torchvision weights name, or a checkpoint's path
    image_size: int = 224  # pixels
    start_size: int = (
        0  # pixels in the first epochs, growing to image_size; 0: image_size from the start
    )
    view: str = "centre"  # what evaluation sees: the "centre" square or the "whole" frame
    flip: bool = False  # whether prediction averages the image and its mirror image
    augmentation: float = 1.0  # strength of rotation, colour and erasing; 0 for none
    crop_scale: float = 0.35  # least share of the area that a random crop keeps
    mixing: float = 0.85  # share of the epochs with MixUp and CutMix, unless augmentation is 0
    label_smoothing: float = 0.1
    weight_decay: float = 0.05
    averaging: float = 0.0  # decay of the running average of the weights; 0 for none
    sharpness: float = 0.0  # radius of sharpness-aware steps, which take twice as long; 0 for none
    validation_share: float = 0.2
    seed: int = 0
    device: str = "auto"
    report_every: int = 10  # iterations
    checkpoint_every: int = 10  # iterations


@dataclass
class Progress:
    """What `report` is told: after every `report_every` iterations, and with `validation` set after each epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_s: float
    seconds_left: float
    validation: dict | None = None


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number."""


def split(
    labels: Tensor, share: float, seed: int, downsample_to: float = 1.0
) -> tuple[list[int], list[int]]:
    """Indices for training and for validation, `share` of each class, after thinning each class to `downsample_to`."""
    generator, training, validation = Generator().manual_seed(seed), [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)].tolist()
        members = members[: max(1, round(len(members) * downsample_to))]
        held = round(len(members) * share)
        held = min(max(held, 1 if share else 0), len(members) - 1)
        validation += members[:held]
        training += members[held:]
    return sorted(training), sorted(validation)


def fit(
    data: LabelledImages,
    parameters: Parameters,
    path: Path,
    data_set: str = "",
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[dict]:
    """Train on `data` and keep the best model by calibrated validation loss in the checkpoint `path`.

    Returns the history, one dict an epoch, also written beside the checkpoint as CSV. A run that was
    interrupted continues from `<path>.state` when data and parameters are the same.
    Raises TrainingDiverged with epoch, batch and paths.
    """
    run = TrainingRun(data, parameters, Path(path), data_set)
    run.resume()
    try:
        while run.epoch < parameters.n_epochs:
            run.train_epoch(report)
    except KeyboardInterrupt:
        where = (
            f"{run.state_path} continues it when you train again"
            if run.state_path.exists()
            else "nothing is saved yet"
        )
        raise KeyboardInterrupt(f"Stopped in epoch {run.epoch + 1}: {where}.") from None
    run.state_path.unlink(missing_ok=True)
    return run.history


class TrainingRun:
    """One training run: the network and all that a resumed run needs to go on alike."""

    def __init__(self, data: LabelledImages, parameters: Parameters, path: Path, data_set: str):
        self.data, self.parameters, self.path = data, parameters, path
        self.state_path = path.with_name(path.name + ".state")
        p = parameters
        self.training, self.validation = split(
            data.labels, p.validation_share, p.seed, p.downsample_to
        )
        self.device = device_named(p.device)
        torch.manual_seed(p.seed)
        card = ModelCard(
            p.arch, data.classes, p.image_size, data_set, data_digest(data.sizes), p.view, p.flip,
            parameters=asdict(p),
            versions={"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)},
        )  # fmt: skip
        self.model = Classifier(build(p.arch, len(data.classes), p.weights), card).to(self.device)
        self.average = AveragedModel(
            self.model, multi_avg_fn=running_average(p.averaging), use_buffers=True
        )
        self.steps = max(1, len(self.training) // p.batch_size)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, p.weight_decay), lr=p.base_lr, weight_decay=0
        )
        total_steps = max(5, self.steps * p.n_epochs)  # a cycle of four divides by zero
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, p.base_lr, total_steps=total_steps, pct_start=0.25
        )
        self.epoch = self.step = 0
        self.history: list[dict] = []
        self.best = float("inf")  # validation loss at the temperature that suits it
        self.sums = [0.0, 0, 0]  # loss, hits, images of this epoch

    def identity(self) -> dict:
        return {"parameters": asdict(self.parameters), "digest": self.model.card.data_digest}

    def resume(self) -> None:
        """Take up the state that an interrupted run of the same data and parameters left."""
        if not self.state_path.exists():
            return
        state = torch.load(self.state_path, self.device, weights_only=True)
        if state["identity"] != self.identity():
            return
        for name in ("model", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.best, self.sums = state["best"], state["sums"]

    def checkpoint(self) -> None:
        if (self.epoch * self.steps + self.step) % self.parameters.checkpoint_every == 0:
            self.save_state()

    def save_state(self) -> None:
        parts = {
            name: getattr(self, name).state_dict()
            for name in ("model", "average", "optimizer", "schedule")
        }
        counts = {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "sums": self.sums,
        }
        state = {"identity": self.identity()} | parts | counts
        with written_whole(self.state_path) as unfinished:
            torch.save(state, unfinished)

    def train_epoch(self, report: Callable[[Progress], None]) -> None:
        p, started, first = self.parameters, time.perf_counter(), self.step
        order = torch.randperm(
            len(self.training), generator=_generator(p.seed, self.epoch, 0)
        ).tolist()
        indices = [self.training[i] for i in order]
        size = min(p.batch_size, len(indices))
        batches = [indices[b * size : (b + 1) * size] for b in range(self.step, self.steps)]
        self.model.train()
        for images, labels, used in prefetched(batches, lambda batch: self.load(batch)):
            self.train_step(images, labels, used)
            rate = (self.step - first) * size / (time.perf_counter() - started)
            if self.step % p.report_every == 0 or self.step == self.steps:
                report(self.progress(rate))
            if self.step < self.steps:
                self.checkpoint()
        self.end_epoch(time.perf_counter() - started, rate, report)

    def load(self, batch: list[int]) -> tuple[Tensor, Tensor, list[int]]:
        """The batch's random crops (B, 3, S, S) uint8, its labels (B,), and the indices that could be read."""
        p, size = self.parameters, image_size_at(self.epoch, self.parameters)

        def crop(index: int) -> Tensor:
            return random_crop(
                self.data.load(index), size, p.crop_scale, _generator(p.seed, self.epoch, index + 1)
            )

        items = self.data.map(crop, batch)
        if not items:
            raise ValueError(f"No image of a batch could be read: {self.data.broken}")
        used = [index for index, _ in items]
        return torch.stack([image for _, image in items]), self.data.labels[used], used

    def train_step(self, images: Tensor, labels: Tensor, used: list[int]) -> None:
        p = self.parameters
        seed = _seed(p.seed, self.epoch, 2**23 + self.step)
        torch.manual_seed(seed)  # dropout repeats itself in a resumed run
        generator = Generator().manual_seed(seed)
        images, labels = images.to(self.device).float(), labels.to(self.device)
        images, targets = distort(images, p.augmentation, generator), labels
        if p.augmentation and self.epoch < p.mixing * p.n_epochs:
            images, targets = mix(images, labels, len(self.data.classes), generator)
        logits, loss = self.forward(images, targets)
        if not (value := loss.item()) < float("inf"):
            paths = ", ".join(self.data.paths[i] for i in used[:5])
            raise TrainingDiverged(
                f"The loss is {value} in epoch {self.epoch + 1}, batch {self.step + 1} ({paths}, ...). Lower base_lr."
            )
        self.optimizer.zero_grad()
        loss.backward()
        if p.sharpness:
            with uphill(self.model, p.sharpness):
                self.optimizer.zero_grad()
                self.forward(images, targets)[1].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        hits = (logits.argmax(1) == labels).sum().item()
        self.sums = [
            self.sums[0] + value * len(used),
            self.sums[1] + hits,
            self.sums[2] + len(used),
        ]
        self.step += 1

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)
        ):
            logits = self.model(images)
        return logits, cross_entropy(
            logits, targets, label_smoothing=self.parameters.label_smoothing
        )

    def progress(self, rate: float, validation: dict | None = None) -> Progress:
        loss, hits, n = self.sums
        steps_left = self.steps * (self.parameters.n_epochs - self.epoch) - self.step
        seconds_left = steps_left * self.parameters.batch_size / rate
        return Progress(
            self.epoch + 1,
            self.step,
            self.steps,
            loss / n,
            hits / n,
            rate,
            seconds_left,
            validation,
        )

    def end_epoch(self, seconds: float, rate: float, report: Callable[[Progress], None]) -> None:
        result = self.validate()
        progress = self.progress(rate, result)
        row = {"epoch": self.epoch + 1, "loss": progress.loss, "accuracy": progress.accuracy}
        row |= {f"validation_{name}": value for name, value in result.items()}
        self.history.append(row | {"images_per_s": rate, "seconds": seconds})
        report(progress)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0, 0]
        _write_csv(self.history, self.path.with_suffix(".history.csv"))
        self.checkpoint()

    def validate(self) -> dict:
        """Loss and accuracy of the averaged model on the validation images; the best model so far is saved."""
        model = self.average.module.eval()
        if not self.validation:  # nothing to choose by: the newest is kept
            save(model, self.path)
            return {"loss": float("nan"), "accuracy": float("nan")}
        logits, labels = logits_of(model, self.data, self.validation)
        loss = cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        temperature = fit_temperature(logits, labels)
        calibrated = cross_entropy(logits / temperature, labels).item()
        if calibrated < self.best:  # accuracy moves in steps of one image, and would choose by luck
            self.best, model.card.temperature = calibrated, temperature
            metrics = {
                "n": len(labels),
                "accuracy": accuracy,
                "loss": loss,
                "epoch": self.epoch + 1,
            }
            model.card.metrics = {"validation": metrics}
            save(model, self.path)
        return {"loss": loss, "accuracy": accuracy}


def image_size_at(epoch: int, p: Parameters) -> int:
    """Pixels of the training images in an epoch: from start_size up to image_size over the first 3/4 of the run."""
    if not p.start_size:
        return p.image_size
    done = min(1.0, epoch / max(1, round(0.75 * p.n_epochs)))
    return min(p.image_size, 16 * round((p.start_size + done * (p.image_size - p.start_size)) / 16))


def _seed(seed: int, epoch: int, item: int) -> int:
    return (seed << 44) + (epoch << 24) + item


def _generator(seed: int, epoch: int, item: int) -> Generator:
    """Independent random numbers for one image or step of an epoch, whatever was drawn before."""
    return Generator().manual_seed(_seed(seed, epoch, item))


def _write_csv(rows: list[dict], path: Path) -> None:
    with written_whole(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
