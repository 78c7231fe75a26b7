"""Pages of images under their captions."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import pandas as pd
from torch import Tensor

from helpers.plots import Picture, image_grid


def image_pairs(
    left: Iterable, left_titles: Iterable[str], right: Iterable, right_titles: Iterable[str]
) -> Picture:
    """Each left image beside its right one, three pairs a row.

    Images and titles are as in `image_grid`.
    """
    images = list(chain.from_iterable(zip(left, right)))
    titles = list(chain.from_iterable(zip(left_titles, right_titles)))
    return image_grid(images, titles, columns=6)


def caption(row: Any) -> str:
    """Right or wrong, confidence, predicted and true class, and the end of the path, a line each.

    row: of a table of predictions, as its `itertuples` gives it.
    """
    verdict = "✓ right" if row.right else "✗ wrong"
    return (
        f"{verdict}, {row.confidence:.2f}\n"
        f"predicted {row.type}\n"
        f"true {row.label}\n"
        f"…{row.relative_path[-18:]}"
    )


def gallery(
    table: pd.DataFrame, images: dict[str, Tensor], columns: int = 4, by_class: bool = False
) -> Picture:
    """The table's images (by relative_path in `images`) under their captions.

    by_class starts a row for each label, with at most `columns` of its images.
    """
    groups = [table]
    by_class = by_class and len(table) > 0
    if by_class:
        groups = [group.head(columns) for _, group in table.groupby("label")]
    shown = []
    titles = []
    right = []
    for group in groups:
        shown += [images.get(path) for path in group.relative_path]
        titles += [caption(row) for row in group.itertuples()]
        right += [bool(hit) for hit in group.right]
        if by_class:  # fill the row with gaps
            gaps = columns - len(group)
            shown += [None] * gaps
            titles += [""] * gaps
            right += [False] * gaps
    picture = image_grid(shown, titles, right, columns)
    return Picture(picture.figure, picture.alt, pd.concat(groups).drop(columns="phash"))
