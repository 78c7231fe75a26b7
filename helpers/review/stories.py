"""The guide's stories about why the model errs, and the evidence for or against each in a run."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from helpers.review.figures import interval

VERDICTS = {1: "supports the story", 0: "does not settle it", -1: "speaks against the story"}
TOPS = ("longsleeve", "t-shirt", "shirt")


@dataclass(frozen=True)
class Story:
    """A guess why the model errs: it takes one class for another because of where it looks.

    Images of `labels` (empty: all others) are taken for one of `taken_for`, because the model
    looks more (or, with more=False, less) at a region of the picture than where it is right.
    """

    claim: str
    labels: tuple[str, ...]
    taken_for: tuple[str, ...]
    region: str  # "sides", "centre" or "top"
    more: bool = True


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
    """The mistakes on the story's images, with `told`: whether they are as it tells."""
    about = table.label.isin(story.labels) if story.labels else ~table.label.isin(story.taken_for)
    errors = table[about & ~table.right]
    return errors.assign(told=errors.type.isin(story.taken_for))


def evidence_in_counts(story: Story, table: pd.DataFrame, classes: list[str]) -> tuple[int, str]:
    """Whether the told mistakes are more (1) or fewer (-1) than if errors spread evenly.

    Returns the sign, 0 where it is open, and a sentence.
    """
    missing = {*story.labels, *story.taken_for} - set(classes)
    if missing:
        return 0, f"The model has no class {', '.join(sorted(missing))}."
    errors = errors_of(story, table)
    n = len(errors)
    told = int(errors.told.sum())
    # of the classes that a mistake can fall into, those that the story tells of
    told_classes = sum(len({*story.taken_for} - {label}) for label in errors.label)
    even = told_classes / max(1, n * (len(classes) - 1))
    low, high = interval(told, n)
    sign = int(low > even) - int(high < even)
    return sign, (
        f"{told} of {n} mistakes are of this kind; {even * n:.1f} would be, "
        "spread evenly over the classes."
    )


def evidence_in_heat(story: Story, told: list[Tensor], right: list[Tensor]) -> tuple[int, str]:
    """Whether the heat of the told mistakes differs from that of right predictions as told.

    told, right: heat maps (S, S). Returns the sign, 0 where it is open, and a sentence.
    """
    if min(len(told), len(right)) < 5:
        return 0, f"Only {len(told)} mistakes and {len(right)} right predictions to compare."
    told_shares = [heat_share(heat, story.region) for heat in told]
    right_shares = [heat_share(heat, story.region) for heat in right]
    p = mannwhitneyu(told_shares, right_shares).pvalue
    told_median = float(np.median(told_shares))
    right_median = float(np.median(right_shares))
    as_told = (told_median > right_median) == story.more
    sign = (1 if as_told else -1) if p < 0.05 else 0
    return sign, (
        f"Share of the heat in the {story.region}: "
        f"median {told_median:.2f} in {len(told)} such mistakes, "
        f"{right_median:.2f} in {len(right)} right predictions (p = {p:.2g})."
    )


def heat_share(heat: Tensor, region: str) -> float:
    """Share of the heat (S, S) that lies in a region.

    "sides": the outer quarters left and right; "centre": the middle; "top": the upper third.

    >>> heat_share(torch.eye(8), "centre")
    0.5
    """
    along = torch.linspace(-1, 1, heat.shape[-1]).abs()  # (S,)
    middle = (along < 0.5).expand_as(heat)  # (S, S), the inner half from left to right
    down = torch.linspace(0, 1, heat.shape[-1])[:, None]  # (S, 1)
    regions = {
        "sides": ~middle,
        "centre": middle & middle.T,
        "top": (down < 1 / 3).expand_as(heat),
    }
    return float(heat[regions[region]].sum() / heat.sum().clamp(min=1e-9))


def verdict(signs: Iterable[int]) -> str:
    """Supports only where all the evidence does, and against where some is and none for.

    >>> verdict([1, 0])
    'does not settle it'
    """
    signs = list(signs)
    none_for = min(signs) if max(signs) <= 0 else 0
    return VERDICTS[1 if min(signs) > 0 else none_for]
