"""Pictures in one style: each comes with its alt text and the data behind it."""

import io
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from torch import Tensor

RIGHT = "#0072B2"  # blue
WRONG = "#D55E00"  # vermillion
DARK = "#222222"
LIGHT = "#8A8678"
NARROW, WIDE = 6.4, 9.6  # inches
DASHED = (0, (4, 2))  # lengths of dash and gap, in line widths
N_MARKERS = 12  # of a curve, at most about so many
STYLE = Path(__file__).with_suffix(".mplstyle")
# for what DejaVu Sans cannot draw, where they are installed
MORE_FONTS = ("Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Noto Emoji")


@contextmanager
def in_style() -> Generator[None]:
    """What draws or saves a figure does it so, and leaves the reader's own style as it was."""
    more = sorted({*MORE_FONTS} & {*font_manager.get_font_names()}, key=MORE_FONTS.index)
    with plt.style.context([STYLE, {"font.family": ["DejaVu Sans", *more]}]):
        yield


def drawable(texts: Iterable[str]) -> list[str]:
    """The texts in this style's fonts: a code point, as \\u670d, for what none of them has."""
    files = map(font_manager.findfont, plt.rcParams["font.family"])
    known = {10}.union(*(font_manager.get_font(file).get_charmap() for file in files))
    return [
        "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)
        for text in texts
    ]


@dataclass(frozen=True)
class Picture:
    """A figure for a notebook, a file or a report, with what it shows in words and its data."""

    figure: Figure
    alt: str
    data: pd.DataFrame

    @in_style()
    def png(self) -> bytes:
        """The picture as a file, with the alt text as its description."""
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer, format="png", metadata={"Software": None, "Description": self.alt}
        )
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def axes_grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns), in inches; not shown by themselves in a notebook."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    plt.close(figure)
    return figure, axes


@in_style()
def learning_curves(history: list[dict] | pd.DataFrame) -> Picture:
    """Loss and accuracy by epoch, as `fit` returns them, in training and in validation."""
    table = pd.DataFrame(history)
    every = max(1, len(table) // N_MARKERS)
    figure, (axes,) = axes_grid(1, 2, WIDE, 3.6)
    for ax, name in zip(axes, ("loss", "accuracy")):
        for column, line, colour, label in (
            (name, "o-", DARK, "training"),
            (f"validation_{name}", "s--", RIGHT, "validation"),
        ):
            ax.plot(table.epoch, table[column], line, color=colour, label=label, markevery=every)
        ax.set(xlabel="epoch", ylabel=name, title=f"{name} by epoch")
        ax.set_ylim(0, 1.02 if name == "accuracy" else None)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    best = f"best validation accuracy {table.validation_accuracy.max():.3f}"
    return Picture(figure, f"Loss and accuracy over {len(table)} epochs; {best}.", table)


@in_style()
def image_grid(
    images: Sequence[Tensor | np.ndarray | None],
    titles: Sequence[str],
    right: Sequence[bool] | None = None,
    columns: int = 6,
) -> Picture:
    """Images row by row, each under its title, which says in words whether it is right or wrong.

    images: (3, H, W) uint8 tensors or (H, W, 3) arrays, None where there is none. right: draws a
    frame, blue and solid for a right prediction, vermillion and dashed for a wrong one.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    width = min(WIDE, 1.9 * columns)
    n_lines = max([title.count("\n") + 1 for title in titles], default=1)
    row_height = width / columns + 0.19 * n_lines  # a square above its title
    figure, axes = axes_grid(rows, columns, max(width, 4), rows * row_height)
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_anchor("N")
    for index, (ax, image, title) in enumerate(zip(axes.flat, images, drawable(titles))):
        ax.set_title(title, fontsize=9.5, fontweight="normal", linespacing=1.15, pad=5)
        if image is not None:
            ax.imshow(image.permute(1, 2, 0) if isinstance(image, Tensor) else image)
            if right is not None:
                colour, line = (RIGHT, "-") if right[index] else (WRONG, DASHED)
                ax.add_patch(
                    plt.Rectangle(
                        (0, 0),
                        1,
                        1,
                        transform=ax.transAxes,
                        fill=False,
                        linewidth=4,
                        clip_on=False,
                        edgecolor=colour,
                        linestyle=line,
                    )
                )
    if not images:
        axes[0, 0].text(0.5, 0.5, "no image to show", ha="center", va="center")
    whole = [title.encode(errors="backslashreplace").decode() for title in titles]
    said = [title.replace("\n", ", ") for title in whole if title]
    alt = "; ".join([*said[:6], "and more"] if len(said) > 6 else said) or "none to show"
    return Picture(figure, f"{len(said)} images: {alt}.", pd.DataFrame({"title": said}))
