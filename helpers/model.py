"""Build, save, load and choose a classifier.

A checkpoint is one file with all that inference needs.
"""

import io
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from helpers import networks
from helpers.files import written_whole
from helpers.images import evaluation_transform

Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


@dataclass(config=ConfigDict(extra="forbid"))
class ModelCard:
    """What a checkpoint says of itself: plain values only, so that no code runs to load it.

    Raises ValidationError, a ValueError, for what cannot be.
    """

    arch: str
    classes: Annotated[list[str], Field(min_length=1)]
    image_size: Annotated[int, Field(ge=8, le=4096)]  # pixels
    data_set: str
    data_digest: str
    view: Literal["centre", "whole"] = "centre"  # what evaluation sees of an image
    flip: bool = False  # whether a prediction averages the image and its mirror image
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    # of the pixels, in [0, 1]
    mean: Channels = field(default_factory=lambda: list(networks.IMAGENET_MEAN))
    std: Channels = field(default_factory=lambda: list(networks.IMAGENET_STD))
    parameters: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    def standing(self) -> str:
        """How good the model was on images held back from its training, in a sentence.

        It is called no better than guessing where its accuracy is less than two standard errors
        above that of always naming the most frequent class.
        """
        judged = self.metrics.get("validation", {})
        if "baseline" not in judged:
            return "What this model does on images held back from its training was not noted."
        baseline = judged["baseline"]
        found = (
            f"Of {judged['n']} images held back {judged['accuracy']:.0%} were right; "
            f"always answering {judged['most_frequent']} would be right for {baseline:.0%}."
        )
        if judged["accuracy"] > baseline + 2 * (baseline * (1 - baseline) / judged["n"]) ** 0.5:
            return found
        return f"{found} This model is no better than guessing: train it longer or on more images."


class Classifier(nn.Module):
    """A network with its own preprocessing: (B, 3, S, S) uint8 images to (B, n_classes) logits.

    Training, evaluation and every Dask worker call this one module: none of them can differ.
    """

    mean: Tensor  # (1, 3, 1, 1), of pixels in [0, 255]
    std: Tensor

    def __init__(self, net: nn.Module, card: ModelCard):
        super().__init__()
        self.net = net
        self.card = card
        self.register_buffer(
            "mean", 255 * torch.tensor(card.mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer("std", 255 * torch.tensor(card.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images).contiguous(memory_format=torch.channels_last)
        logits = self.net(x).float()
        if self.card.flip and not self.training:
            logits = (logits + self.net(x.flip(3)).float()) / 2
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) pixels in [0, 255] to what the network takes."""
        return (images.float() - self.mean) / self.std

    def prepare(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 of any size to the (3, S, S) uint8 that forward takes."""
        return evaluation_transform(image, self.card.image_size, self.card.view)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, n_classes) in [0, 1], calibrated by the checkpoint's temperature (Guo et al.

        2017).
        """
        return (logits / self.card.temperature).softmax(1)


def device_named(name: str = "auto") -> torch.device:
    """The device `name`, or for "auto" the best there is: CUDA, MPS, CPU."""
    if name != "auto":
        return torch.device(name)
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def save(model: Classifier, path: Path, half: bool = False) -> None:
    """Write the checkpoint; half=True stores the weights as float16, half the size."""
    state = {
        name: value.half() if half and value.is_floating_point() else value
        for name, value in model.net.state_dict().items()
    }
    with written_whole(path) as unfinished:
        torch.save({"card": asdict(model.card), "state_dict": state}, unfinished)


def read_checkpoint(source: Path | str | bytes) -> dict:
    """The checkpoint's card and state_dict, from a path or from the file's bytes.

    Raises ValueError if it is none.
    """
    is_path = not isinstance(source, bytes)
    name = str(source) if is_path else "of these bytes"
    try:
        # mapped: who wants only the card does not read the weights
        content = torch.load(
            source if is_path else io.BytesIO(source), "cpu", weights_only=True, mmap=is_path
        )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Model file {name} does not exist. Run notebook 02_train_model first."
        ) from None
    except Exception as error:  # torch raises many types for a damaged file
        raise ValueError(
            f"Model file {name} cannot be read ({type(error).__name__}). Train it again."
        ) from None
    if not isinstance(content, dict) or not {"card", "state_dict"} <= content.keys():
        raise ValueError(
            f"Model file {name} is not a checkpoint of this project. Train one with notebook 02."
        )
    try:
        content["card"] = ModelCard(**content["card"])
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).partition("For further")[0].split())
        raise ValueError(f"Model file {name} has a wrong card. {said} Train it again.") from None
    return content


def read_card(source: Path | str | bytes) -> ModelCard:
    """What a checkpoint says of itself; its weights stay on the disk.

    Raises as `read_checkpoint`.
    """
    return read_checkpoint(source)["card"]


def load(source: Path | str | bytes, device: str | torch.device = "cpu") -> Classifier:
    """The classifier of a checkpoint, in float32, ready to predict. Raises as `read_checkpoint`.

    Raises ValueError too for weights that do not fit, or that compute what is no number.
    """
    content = read_checkpoint(source)
    card = content["card"]
    try:
        net = _unfilled(card)
        net.load_state_dict(content["state_dict"], assign=True)
        net.to(memory_format=torch.channels_last)
        model = Classifier(net, card).float().to(device).eval()
        with torch.inference_mode():
            logits = model(torch.full((1, 3, *[card.image_size] * 2), 127.0, device=device))
        if not logits.isfinite().all():
            raise ValueError("it computes what is no number")
    except (RuntimeError, ValueError) as error:
        name = "of these bytes" if isinstance(source, bytes) else source
        raise ValueError(
            f"Model file {name} is no working {card.arch}: {' '.join(str(error).split())[:300]}. "
            "Train it again."
        ) from None
    return model


def _unfilled(card: ModelCard) -> nn.Module:
    """The network without weights, of which random ones would take longer than reading a file."""
    try:
        with torch.device("meta"):
            return networks.construct(card.arch, len(card.classes))
    except NotImplementedError:  # RegNets compute their widths with tensors, which need values
        return networks.construct(card.arch, len(card.classes))
