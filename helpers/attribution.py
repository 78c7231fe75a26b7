"""What a prediction rests on: Grad-CAM, and the guide's stories about mistakes examined on a run's own images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib import colormaps
from scipy.stats import mannwhitneyu
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, rgb_to_grayscale

from helpers.images import evaluation_transform
from helpers.model import Classifier
from helpers.review import interval

SIDE = 224  # pixels of an overlay
VERDICTS = {1: "supports the story", 0: "does not settle it", -1: "speaks against the story"}


def grad_cam(model: Classifier, image: Tensor, class_name: str) -> Tensor:
    """(S, S) heat in [0, 1] on model.prepare(image): what speaks for the class (Selvaraju et al. 2017)."""
    x = (model.prepare(image)[None].to(model.mean.device).float() - model.mean) / model.std
    layer = LayerGradCam(model.net, last_map(model.net, x))
    heat = layer.attribute(x, model.card.classes.index(class_name), relu_attributions=True)
    heat = LayerAttribution.interpolate(heat.detach(), x.shape[-2:], "bilinear")[0, 0].cpu()
    return heat / heat.max().clamp(min=1e-9)


@torch.no_grad()
def last_map(net: nn.Module, x: Tensor) -> nn.Module:
    """The last part of the network whose output still has height and width."""
    found = []

    def note(module: nn.Module, _, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    net(x)
    for hook in hooks:
        hook.remove()
    return found[-1]


def overlay(model: Classifier, image: Tensor, class_name: str) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: the grey picture as the model sees it, brighter and yellower where it looked."""
    heat = resize(grad_cam(model, image, class_name)[None], [SIDE, SIDE])[0].numpy()
    grey = rgb_to_grayscale(evaluation_transform(image, SIDE, model.card.view))[0].numpy() / 255
    colours = colormaps["cividis"](heat)[:, :, :3]
    return (255 * (0.45 * grey[:, :, None] + 0.55 * colours)).astype(np.uint8)


@dataclass(frozen=True)
class Story:
    """A guess why the model errs: images of `labels` (empty: all others) are taken for one of `taken_for`, because
    the model looks more (or, with more=False, less) at a region of the picture than where it is right."""

    claim: str
    labels: tuple[str, ...]
    taken_for: tuple[str, ...]
    region: str
    more: bool = True


TOPS = ("longsleeve", "t-shirt", "shirt")
STORIES = (
    Story("It does not know what long means on sleeves", TOPS, TOPS, "sides", more=False),
    Story("It takes a logo for shoes", (), ("shoes",), "centre"),
    Story("It takes the round shape of a hat for a collar", ("hat",), (*TOPS, "outwear", "dress"), "top"),
)


def errors_of(story: Story, table: pd.DataFrame) -> pd.DataFrame:
    """The mistakes on the images that the story is about, with `told`: whether they are as it tells."""
    about = table.label.isin(story.labels) if story.labels else ~table.label.isin(story.taken_for)
    errors = table[about & ~table.right]
    return errors.assign(told=errors.type.isin(story.taken_for))


def evidence_in_counts(story: Story, table: pd.DataFrame, classes: list[str]) -> tuple[int, str]:
    """Whether the told mistakes are more (1) or fewer (-1) than if errors spread evenly over the classes."""
    if missing := {*story.labels, *story.taken_for} - set(classes):
        return 0, f"The model has no class {', '.join(sorted(missing))}."
    errors = errors_of(story, table)
    n, told = len(errors), int(errors.told.sum())
    even = sum(len(set(story.taken_for) - {label}) for label in errors.label) / max(1, n * (len(classes) - 1))
    low, high = interval(told, n)
    sentence = f"{told} of {n} mistakes are of this kind; {even * n:.1f} would be, spread evenly over the classes."
    return (low > even) - (high < even), sentence


def evidence_in_heat(story: Story, told: list[Tensor], right: list[Tensor]) -> tuple[int, str]:
    """Whether the heat of the told mistakes differs from that of right predictions as the story has it."""
    wrong_share, right_share = ([heat_share(heat, story.region) for heat in heats] for heats in (told, right))
    if min(len(told), len(right)) < 5:
        return 0, f"Only {len(told)} mistakes and {len(right)} right predictions to compare."
    p = mannwhitneyu(wrong_share, right_share).pvalue
    medians = float(np.median(wrong_share)), float(np.median(right_share))
    sign = (1 if (medians[0] > medians[1]) == story.more else -1) if p < 0.05 else 0
    return sign, (
        f"Share of the heat in the {story.region}: median {medians[0]:.2f} in {len(told)} such mistakes, "
        f"{medians[1]:.2f} in {len(right)} right predictions (p = {p:.2g})."
    )


def heat_share(heat: Tensor, region: str) -> float:
    """Share of the heat (S, S) in a region: the outer quarters left and right, the middle, or the upper third."""
    along = torch.linspace(-1, 1, heat.shape[-1]).abs()
    middle = (along < 0.5).expand_as(heat)
    upper = torch.linspace(0, 1, heat.shape[-1])[:, None].expand_as(heat) < 1 / 3
    inside = {"sides": ~middle, "centre": middle & middle.T, "top": upper}[region]
    return float(heat[inside].sum() / heat.sum().clamp(min=1e-9))


def verdict(signs: Iterable[int]) -> str:
    """Supports only where all the evidence does, and against where some is and none for."""
    signs = list(signs)
    return VERDICTS[1 if min(signs) > 0 else -1 if min(signs) < 0 and max(signs) <= 0 else 0]
