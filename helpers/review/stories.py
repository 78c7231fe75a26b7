"""The guide's stories about mistakes, examined on a run's own images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from helpers.review.figures import interval

VERDICTS = {1: "supports the story", 0: "does not settle it", -1: "speaks against the story"}


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
    Story(
        "It takes the round shape of a hat for a collar",
        ("hat",),
        (*TOPS, "outwear", "dress"),
        "top",
    ),
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
    even = sum(len(set(story.taken_for) - {label}) for label in errors.label) / max(
        1, n * (len(classes) - 1)
    )
    low, high = interval(told, n)
    sentence = f"{told} of {n} mistakes are of this kind; {even * n:.1f} would be, spread evenly over the classes."
    return (low > even) - (high < even), sentence


def evidence_in_heat(story: Story, told: list[Tensor], right: list[Tensor]) -> tuple[int, str]:
    """Whether the heat of the told mistakes differs from that of right predictions as the story has it."""
    wrong_share, right_share = (
        [heat_share(heat, story.region) for heat in heats] for heats in (told, right)
    )
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
