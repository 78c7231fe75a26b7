"""Train a classifier: a pure function of data, parameters and seed, that survives a kill."""

import csv
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

from helpers import networks
from helpers.files import written_whole
from helpers.folders import data_digest
from helpers.model import Classifier, ModelCard, build, device_named, has_fast_bfloat16, save
from helpers.training.augmentation import distort, mix, random_crop
from helpers.training.dataset import LabelledImages
from helpers.training.optimise import HEAD_FASTER, freeze_early, parameter_groups, running_average
from helpers.training.validation import fit_temperature, logits_of, prefetched


@dataclass(frozen=True)
class Parameters:
    """How to train: defaults for a network that has seen ImageNet, on a few thousand images."""

    n_epochs: int = 5
    batch_size: int = 32
    base_lr: float = (
        0.0006  # the peak of a one-cycle schedule; a new head gets HEAD_FASTER times it
    )
    downsample_to: float = 1.0  # share of the training images to use
    arch: str = networks.DEFAULT  # one of networks.NETWORKS
    weights: str = "imagenet"  # "imagenet", "none" (from scratch), or a checkpoint's path
    image_size: int = 192  # pixels
    freeze: bool = True  # whether early layers stay as ImageNet taught them
    view: str = "centre"  # what evaluation sees: the "centre" square or the "whole" frame
    flip: bool = True  # whether prediction averages the image and its mirror image
    augmentation: float = 0.3  # strength of rotation, colour and erasing; 0 for none
    crop_scale: float = 0.35  # least share of the area that a random crop keeps
    mixing: float = 0.6  # share of the epochs with MixUp and CutMix, unless augmentation is 0
    label_smoothing: float = 0.05
    weight_decay: float = 0.02
    averaging: float = 0.98  # decay of the running average of the weights; 0 for none
    validation_share: float = 0.2  # of the images, held back to choose epoch and temperature by
    seed: int = 0
    device: str = "auto"
    save_every_s: float = 30  # seconds between two saved states; one is saved after each epoch too


@dataclass
class Progress:
    """What `report` is told: before the first step, after each, and with `validation` after an
    epoch.
    """

    epoch: int  # from 1
    n_epochs: int
    step: int  # done in this epoch
    steps: int
    loss: float
    accuracy: float
    validation: dict | None = None


@dataclass
class Sums:
    """What an epoch's batches add up to."""

    loss: float = 0.0
    hits: int = 0
    images: int = 0


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number."""


def split(
    labels: Tensor, share: float, seed: int, downsample_to: float = 1.0
) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: `share` of each class is held back.

    Each class is thinned to the share `downsample_to` of its images before.

    >>> training, validation = split(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), share=0.25, seed=0)
    >>> len(training), len(validation)
    (6, 2)
    """
    generator = Generator().manual_seed(seed)
    training, validation = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)].tolist()
        members = members[: max(1, round(len(members) * downsample_to))]
        least = 1 if share else 0
        held = max(least, round(len(members) * share))
        held = min(held, len(members) - 1)  # a class of one image trains
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
    """Train on `data`; the best model by calibrated validation loss becomes the checkpoint `path`.

    Returns the history, one dict an epoch, also written beside the checkpoint as CSV. Until the
    training is finished `path` stays what it was. One that was interrupted goes on from
    `<path>.state` when data and parameters are the same, and ends with the same weights.
    Raises TrainingDiverged with epoch, batch and paths.
    """
    run = TrainingRun(data, parameters, Path(path), data_set)
    run.resume()
    report(run.progress())
    try:
        while run.epoch < parameters.n_epochs:
            run.train_epoch(report)
    except KeyboardInterrupt:
        saved = "from where it was" if run.state_path.exists() else "from the beginning"
        raise KeyboardInterrupt(
            f"Stopped in epoch {run.epoch + 1} of {parameters.n_epochs}. The same call again goes "
            f"on {saved}; until it is finished, {run.path.name} stays as it was."
        ) from None
    run.finish()
    return run.history


class TrainingRun:
    """One training run: the network and all that a resumed run needs to go on alike."""

    def __init__(self, data: LabelledImages, parameters: Parameters, path: Path, data_set: str):
        self.data = data
        self.parameters = parameters
        self.path = path
        self.state_path = path.with_name(path.name + ".state")
        self.best_path = path.with_name(path.name + ".best")  # becomes `path` at the end
        self.training, self.validation = split(
            data.labels, parameters.validation_share, parameters.seed, parameters.downsample_to
        )
        self.steps = max(1, len(self.training) // parameters.batch_size)
        self.device = device_named(parameters.device)
        torch.manual_seed(parameters.seed)
        self.model = self._new_model(data_set).to(self.device)
        self.average = AveragedModel(
            self.model, multi_avg_fn=running_average(parameters.averaging), use_buffers=True
        )
        self.optimizer, self.schedule = self._new_optimizer()
        self.epoch = 0
        self.step = 0
        self.history: list[dict] = []
        self.best = float("inf")  # validation loss at the temperature that suits it
        self.sums = Sums()
        self.saved_at = time.monotonic()

    def _new_model(self, data_set: str) -> Classifier:
        p = self.parameters
        network = networks.known(p.arch)
        versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
        card = ModelCard(
            arch=p.arch,
            classes=self.data.classes,
            image_size=p.image_size,
            data_set=data_set,
            data_digest=data_digest(self.data.sizes),
            view=p.view,
            flip=p.flip,
            mean=list(network.mean),
            std=list(network.std),
            parameters=asdict(p),
            versions=versions,
        )
        net = build(p.arch, len(card.classes), p.weights)
        # frozen parts stay in evaluation mode, in which their statistics do not move
        self.frozen: list[nn.Module] = []
        if p.freeze and p.weights == "imagenet":
            self.frozen = freeze_early(net, p.image_size)
        return Classifier(net, card)

    def _new_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        p = self.parameters
        head_lr = p.base_lr * (HEAD_FASTER if p.weights == "imagenet" else 1)
        groups = parameter_groups(self.model.net, p.base_lr, head_lr, p.weight_decay)
        optimizer = torch.optim.AdamW(groups)
        total_steps = max(5, self.steps * p.n_epochs)  # a cycle of four divides by zero
        peaks = [group["lr"] for group in groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peaks, total_steps=total_steps, pct_start=0.25
        )
        return optimizer, schedule

    def identity(self) -> dict:
        """What must be the same for a state to be taken up."""
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
        self.epoch = state["epoch"]
        self.step = state["step"]
        self.history = state["history"]
        self.best = state["best"]
        self.sums = Sums(**state["sums"])

    def save_state(self) -> None:
        """Write all that `resume` needs."""
        state = {
            "identity": self.identity(),
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "sums": asdict(self.sums),
        }
        for name in ("model", "average", "optimizer", "schedule"):
            state[name] = getattr(self, name).state_dict()
        with written_whole(self.state_path) as unfinished:
            torch.save(state, unfinished)
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """Put the best model where the next notebook looks for it, with the history beside it."""
        if self.best_path.exists():  # not where a finished run was killed just before its end
            with written_whole(self.path.with_suffix(".history.csv")) as unfinished:
                _write_csv(self.history, unfinished)
            os.replace(self.best_path, self.path)
        self.state_path.unlink(missing_ok=True)

    def train_epoch(self, report: Callable[[Progress], None]) -> None:
        """The steps of this epoch that are left, then a look at the validation images."""
        p = self.parameters
        started = time.perf_counter()
        first_step = self.step
        self.model.train()
        for part in self.frozen:
            part.eval()
        for images, labels, used in prefetched(self._batches(), self.load):
            self.train_step(images, labels, used)
            report(self.progress())
            if time.monotonic() > self.saved_at + p.save_every_s and self.step < self.steps:
                self.save_state()
        seconds = time.perf_counter() - started
        n_images = (self.step - first_step) * min(p.batch_size, len(self.training))
        self._end_epoch({"images_per_s": n_images / seconds, "seconds": seconds}, report)

    def _batches(self) -> list[list[int]]:
        """Indices of the images of each step that is left in this epoch."""
        p = self.parameters
        order = torch.randperm(len(self.training), generator=_generator(p.seed, self.epoch, 0))
        indices = [self.training[i] for i in order.tolist()]
        size = min(p.batch_size, len(indices))
        return [indices[step * size : (step + 1) * size] for step in range(self.step, self.steps)]

    def load(self, batch: list[int]) -> tuple[Tensor, Tensor, list[int]]:
        """Random crops (B, 3, S, S) uint8, labels (B,), and the indices that could be read."""
        p = self.parameters

        def crop(index: int) -> Tensor:
            generator = _generator(p.seed, self.epoch, index + 1)
            return random_crop(self.data.load(index), p.image_size, p.crop_scale, generator)

        items = self.data.map(crop, batch)
        if not items:
            raise ValueError(f"No image of a batch could be read: {self.data.broken}")
        used = [index for index, _ in items]
        return torch.stack([image for _, image in items]), self.data.labels[used], used

    def train_step(self, images: Tensor, labels: Tensor, used: list[int]) -> None:
        """Move the weights once. images: (B, 3, S, S) uint8; labels: (B,); used: their indices."""
        p = self.parameters
        seed = _seed(p.seed, self.epoch, 2**23 + self.step)
        torch.manual_seed(seed)  # dropout repeats itself in a resumed run
        generator = Generator().manual_seed(seed)
        labels = labels.to(self.device)
        images = distort(images.to(self.device).float(), p.augmentation, generator)
        targets = labels
        if p.augmentation and self.epoch < p.mixing * p.n_epochs:
            images, targets = mix(images, labels, len(self.data.classes), generator)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)
        ):
            logits = self.model(images)  # (B, n_classes)
        loss = cross_entropy(logits, targets, label_smoothing=p.label_smoothing)
        self._refuse_divergence(loss.item(), used)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.sums.loss += loss.item() * len(used)
        self.sums.hits += int((logits.argmax(1) == labels).sum())
        self.sums.images += len(used)
        self.step += 1

    def _refuse_divergence(self, loss: float, used: list[int]) -> None:
        if loss < float("inf"):  # false for NaN as well
            return
        paths = ", ".join(self.data.paths[i] for i in used[:5])
        raise TrainingDiverged(
            f"The loss is {loss} in epoch {self.epoch + 1}, batch {self.step + 1} ({paths}, ...). "
            "Lower base_lr."
        )

    def progress(self, validation: dict | None = None) -> Progress:
        """Where the run stands; loss and accuracy are NaN before an epoch's first step."""
        n = self.sums.images or float("nan")
        return Progress(
            epoch=min(self.epoch + 1, self.parameters.n_epochs),
            n_epochs=self.parameters.n_epochs,
            step=self.step,
            steps=self.steps,
            loss=self.sums.loss / n,
            accuracy=self.sums.hits / n,
            validation=validation,
        )

    def _end_epoch(self, speed: dict, report: Callable[[Progress], None]) -> None:
        result = self.validate()
        progress = self.progress(result)
        row = {"epoch": self.epoch + 1, "loss": progress.loss, "accuracy": progress.accuracy}
        row |= {f"validation_{name}": value for name, value in result.items()}
        self.history.append(row | speed)
        report(progress)
        self.epoch += 1
        self.step = 0
        self.sums = Sums()
        self.save_state()

    def validate(self) -> dict:
        """Loss and accuracy of the averaged model on the validation images; the best is kept."""
        model = self.average.module
        assert isinstance(model, Classifier)
        if not self.validation:  # nothing to choose by: the newest is kept
            self._keep(model, {})
            return {"loss": float("nan"), "accuracy": float("nan")}
        logits, labels = logits_of(model, self.data, self.validation)
        loss = cross_entropy(logits, labels).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        temperature = fit_temperature(logits, labels)
        calibrated = cross_entropy(logits / temperature, labels).item()
        # accuracy moves in steps of one image, and would choose by luck
        if calibrated < self.best or not self.best_path.exists():
            self.best = calibrated
            model.card.temperature = temperature
            counts = torch.bincount(labels)
            most_frequent = int(counts.argmax())
            figures = {
                "n": len(labels),
                "accuracy": accuracy,
                "loss": loss,
                "epoch": self.epoch + 1,
                "most_frequent": self.data.classes[most_frequent],
                "baseline": counts[most_frequent].item() / len(labels),
            }
            self._keep(model, {"validation": figures})
        return {"loss": loss, "accuracy": accuracy}

    def _keep(self, model: Classifier, metrics: dict) -> None:
        model.card.metrics = metrics
        save(model, self.best_path)


def _seed(seed: int, epoch: int, item: int) -> int:
    return (seed << 44) + (epoch << 24) + item


def _generator(seed: int, epoch: int, item: int) -> Generator:
    """Independent random numbers for one image or step of an epoch, whatever was drawn before."""
    return Generator().manual_seed(_seed(seed, epoch, item))


def _write_csv(rows: list[dict], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
