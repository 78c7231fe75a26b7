"""Train a classifier: a pure function of data, parameters and seed, that survives a kill."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
import torchvision
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers import networks
from helpers.files import owned, written_whole
from helpers.images import ImageError
from helpers.labels import data_digest
from helpers.model import Classifier, ModelCard, device_named, save
from helpers.parameters import checked
from helpers.training.augmentation import mix, random_crop, recolour
from helpers.training.dataset import LabelledImages
from helpers.training.optimise import (
    HEAD_FASTER,
    freeze_early,
    has_fast_bfloat16,
    parameter_groups,
)
from helpers.training.pretrained import build
from helpers.training.validation import fit_temperature, judged, logits_of, prefetched, split

PARTS = ("model", "average", "optimizer", "schedule")  # of a run that have a state of their own


@dataclass(frozen=True)
class Parameters:
    """How to train: defaults for a network that has seen ImageNet, on a few thousand images.

    Raises ValueError for what `parameters.checked` refuses.
    """

    n_epochs: int = 5
    batch_size: int = 16
    base_lr: float = 0.0006  # the peak of a one-cycle schedule; for a new head HEAD_FASTER times it
    downsample_to: float = 1.0  # share of the training images to use
    arch: str = networks.DEFAULT  # one of networks.NETWORKS
    weights: str = "imagenet"  # "imagenet", "none" (from scratch), or a checkpoint's path
    image_size: int = 192  # pixels
    freeze: bool = True  # whether early layers stay as ImageNet taught them
    view: Literal["centre", "whole"] = "centre"  # what evaluation sees: a square or the frame
    flip: bool = True  # whether prediction averages the image and its mirror image
    augmentation: float = 0.3  # strength of changes of colour; 0 for none, and no mixing
    crop_scale: float = 0.35  # least share of the area that a random crop keeps
    mixing: float = 0.6  # share of the epochs, from the first, with MixUp and CutMix
    label_smoothing: float = 0.05
    weight_decay: float = 0.02
    averaging: float = 0.98  # decay of the running average of the weights; 0 for none
    validation_share: float = 0.2  # of the images, held back to choose epoch and temperature by
    seed: int = 0
    device: str = "auto"
    save_every_s: float = 30  # seconds between two saved states; one is saved after each epoch too

    def __post_init__(self) -> None:
        for name, value in checked(asdict(self)).items():
            object.__setattr__(self, name, value)  # converted, though frozen


@dataclass
class Progress:
    """Where a training stands: what `report` is told, and what a resumed one goes on from."""

    epoch: int = 0  # finished
    step: int = 0  # of this epoch
    loss_sum: float = 0.0  # of this epoch, over images
    hits: int = 0
    images: int = 0
    best: float = float("inf")  # validation loss at the temperature that suits it
    history: list[dict] = field(default_factory=list)  # an entry for each finished epoch

    @property
    def loss(self) -> float:
        """Mean of this epoch; NaN before its first step."""
        return self.loss_sum / self.images if self.images else float("nan")


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a number."""


def fit(
    data: LabelledImages,
    parameters: Parameters,
    path: Path,
    data_set: str = "",
    report: Callable[["TrainingRun"], None] = lambda run: None,
) -> list[dict]:
    """Train on `data`; the best model by calibrated validation loss becomes the checkpoint `path`.

    report: called before the first step, after each, and after each epoch. Returns the history, one
    dict an epoch, also written beside the checkpoint as CSV. Until the training is finished `path`
    stays what it was. One that was interrupted goes on from `<path>.state` when data and parameters
    are the same, and ends with the same weights. Raises TrainingDiverged, BlockingIOError where
    another training writes `path`, and ValueError where no image of an epoch can be read.
    """
    with owned(Path(path), "Wait until that training has ended, or name another path."):
        run = TrainingRun(data, parameters, Path(path), data_set)
        run.resume()
        report(run)
        try:
            while run.at.epoch < parameters.n_epochs:
                run.train_epoch(report)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Stopped in epoch {run.at.epoch + 1} of {parameters.n_epochs}. The same call goes "
                f"on from what is saved; until it is finished, {run.path.name} stays as it was."
            ) from None
        run.finish()
    return run.at.history


def new_classifier(data: LabelledImages, parameters: Parameters, data_set: str = "") -> Classifier:
    """The network to train, with its card. Raises as `pretrained.build`."""
    network = networks.known(parameters.arch)
    card = ModelCard(
        arch=parameters.arch,
        classes=data.classes,
        image_size=parameters.image_size,
        data_set=data_set,
        data_digest=data_digest(data.sizes),
        view=parameters.view,
        flip=parameters.flip,
        mean=list(network.mean),
        std=list(network.std),
        parameters=asdict(parameters),
        versions={"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)},
    )
    return Classifier(build(parameters.arch, len(card.classes), parameters.weights), card)


class TrainingRun:
    """One training run: the network and all that a resumed run needs to go on alike."""

    def __init__(self, data: LabelledImages, parameters: Parameters, path: Path, data_set: str):
        p = parameters
        self.data = data
        self.parameters = p
        self.path = path
        self.state_path = path.with_name(path.name + ".state")
        self.best_path = path.with_name(path.name + ".best")  # becomes `path` at the end
        self.training, self.validation = split(
            data.labels, p.validation_share, p.seed, p.downsample_to
        )
        self.n_steps = max(1, len(self.training) // p.batch_size)  # in an epoch
        self.device = device_named(p.device)
        torch.manual_seed(p.seed)
        self.model = new_classifier(data, p, data_set).to(self.device)
        is_pretrained = p.weights == "imagenet"
        # frozen parts stay in evaluation mode, in which their statistics do not move
        self.frozen = freeze_early(self.model.net) if is_pretrained and p.freeze else []
        head_lr = p.base_lr * HEAD_FASTER if is_pretrained else p.base_lr
        groups = parameter_groups(self.model.net, p.base_lr, head_lr, p.weight_decay)
        self.optimizer = torch.optim.AdamW(groups)
        total_steps = max(5, self.n_steps * p.n_epochs)  # a cycle of four divides by zero
        self.schedule = OneCycleLR(
            self.optimizer, [group["lr"] for group in groups], total_steps, pct_start=0.25
        )
        # over a tenth of a short training, which must not remember its first steps
        averaging = get_ema_multi_avg_fn(min(p.averaging, 1 - 10 / (10 + total_steps)))
        self.average = AveragedModel(self.model, multi_avg_fn=averaging, use_buffers=True)
        # what must be the same for a state to be taken up
        self.identity = {"parameters": asdict(p), "digest": self.model.card.data_digest}
        self.at = Progress()
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Take up the state that an interrupted run of the same data and parameters left."""
        if self.state_path.exists():
            state = torch.load(self.state_path, self.device, weights_only=True)
            if state["identity"] == self.identity:
                self.at = Progress(**state["at"])
                for name in PARTS:
                    getattr(self, name).load_state_dict(state[name])

    def save_state(self) -> None:
        """Write all that `resume` needs."""
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        with written_whole(self.state_path) as unfinished:
            torch.save({"identity": self.identity, "at": asdict(self.at)} | parts, unfinished)
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """Put the best model where the next notebook looks for it, with the history beside it."""
        if self.best_path.exists():  # not where a finished run was killed just before its end
            rows = [self.at.history[0], *(row.values() for row in self.at.history)]
            with written_whole(self.path.with_suffix(".history.csv")) as unfinished:
                unfinished.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
            os.replace(self.best_path, self.path)
        self.state_path.unlink(missing_ok=True)

    def train_epoch(self, report: Callable[["TrainingRun"], None]) -> None:
        """The steps of this epoch that are left, then a look at the validation images."""
        started = time.perf_counter()
        n_before = self.at.images
        self.model.train()
        for part in self.frozen:
            part.eval()
        for images, labels, used in prefetched(self.batches(), self.load):
            if used:  # of which some could be read
                self.train_step(images, labels, used)
            self.at.step += 1
            report(self)
            if time.monotonic() > self.saved_at + self.parameters.save_every_s:
                self.save_state()
        seconds = time.perf_counter() - started
        if not self.at.images:
            raise ImageError(
                f"No image of an epoch could be read: {dict([*self.data.broken.items()][:3])}"
            )
        row = {
            "epoch": self.at.epoch + 1,
            "loss": self.at.loss,
            "accuracy": self.at.hits / self.at.images,
            **self.validate(),
            "images_per_s": (self.at.images - n_before) / seconds,
            "seconds": seconds,
        }
        self.at = Progress(self.at.epoch + 1, best=self.at.best, history=[*self.at.history, row])
        self.save_state()
        report(self)

    def batches(self) -> list[list[int]]:
        """Indices of the images of each step that is left in this epoch."""
        order = torch.randperm(len(self.training), generator=self.random(0)).tolist()
        size = min(self.parameters.batch_size, len(order))
        return [
            [self.training[i] for i in order[step * size : (step + 1) * size]]
            for step in range(self.at.step, self.n_steps)
        ]

    def load(self, batch: list[int]) -> tuple[Tensor, Tensor, list[int]]:
        """Random crops (B, 3, S, S) uint8, labels (B,), and the indices that could be read.

        All three are empty where none could.
        """
        p = self.parameters
        items = self.data.map(
            lambda index: random_crop(
                self.data.load(index), p.image_size, p.crop_scale, self.random(index + 1)
            ),
            batch,
        )
        used = [index for index, _ in items]
        images = torch.stack([image for _, image in items]) if items else torch.empty(0)
        return images, self.data.labels[used], used

    def random(self, item: int) -> Generator:
        """Independent random numbers for one image or step, whatever was drawn before."""
        return Generator().manual_seed((self.parameters.seed << 44) + (self.at.epoch << 24) + item)

    def train_step(self, images: Tensor, labels: Tensor, used: list[int]) -> None:
        """Move the weights once. images: (B, 3, S, S) uint8; labels: (B,); used: their indices.

        Raises TrainingDiverged.
        """
        p = self.parameters
        # colours, mixing and dropout repeat themselves in a resumed run
        torch.manual_seed(self.random(2**23 + self.at.step).initial_seed())
        images = images.to(self.device)
        labels = labels.to(self.device)
        targets = labels
        if p.augmentation:
            images = recolour(images, p.augmentation)
            if self.at.epoch < p.mixing * p.n_epochs:
                images, targets = mix(images.float(), labels, len(self.data.classes))
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)
        ):
            logits = self.model(images)  # (B, n_classes)
        loss = cross_entropy(logits, targets, label_smoothing=p.label_smoothing)
        if not loss.item() < float("inf"):  # true for NaN as well
            paths = ", ".join(self.data.paths[i] for i in used[:5])
            raise TrainingDiverged(
                f"The loss is {loss.item()} in epoch {self.at.epoch + 1}, batch {self.at.step + 1} "
                f"({paths}, ...). Lower base_lr."
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.at.images += len(used)
        self.at.loss_sum += loss.item() * len(used)
        self.at.hits += int((logits.argmax(1) == labels).sum())

    def validate(self) -> dict:
        """Loss and accuracy of the averaged model on the validation images; the best is kept."""
        model = cast(Classifier, self.average.module)
        try:
            logits, labels = logits_of(model, self.data, self.validation)
        except ImageError:  # nothing to choose by: the newest is kept
            if self.data.on_error == "raise":
                raise
            save(model, self.best_path)
            return {"validation_loss": float("nan"), "validation_accuracy": float("nan")}
        found = judged(logits, labels, self.data.classes)
        temperature = fit_temperature(logits, labels)
        calibrated = cross_entropy(logits / temperature, labels).item()
        # accuracy moves in steps of one image, and would choose by luck
        if calibrated < self.at.best or not self.best_path.exists():
            self.at.best = calibrated
            model.card.temperature = temperature
            model.card.metrics = {"validation": found | {"epoch": self.at.epoch + 1}}
            save(model, self.best_path)
        return {"validation_loss": found["loss"], "validation_accuracy": found["accuracy"]}
