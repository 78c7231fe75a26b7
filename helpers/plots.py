"""Pictures in one style: each comes with its alt text and the data behind it."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.files import written_whole

RIGHT, WRONG, DARK, LIGHT = "#0072B2", "#D55E00", "#222222", "#8A8678"
NARROW, WIDE = 6.4, 9.6  # inches
STYLE = Path(__file__).with_suffix(".mplstyle")


@dataclass(frozen=True)
class Picture:
    """A figure for a notebook, a file or a report, with what it shows in words and the data it was drawn from."""

    figure: Figure
    alt: str
    data: pd.DataFrame

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer, format="png", metadata={"Software": None, "Description": self.alt}
        )
        return buffer.getvalue()

    def html(self) -> str:
        encoded = base64.b64encode(self.png()).decode()
        return f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(self.alt)}" style="max-width:100%">'

    def save(self, folder: Path, name: str) -> "Picture":
        """Write <name>.png and <name>.csv."""
        with written_whole(folder / f"{name}.png") as unfinished:
            unfinished.write_bytes(self.png())
        with written_whole(folder / f"{name}.csv") as unfinished:
            self.data.to_csv(unfinished, index=False)
        return self

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def axes_grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) in the project's style, in inches; not shown by themselves in a notebook."""
    plt.style.use(STYLE)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    plt.close(figure)
    return figure, axes


def learning_curves(history: list[dict]) -> Picture:
    """Loss and accuracy by epoch, as `fit` returns them, in training and in validation."""
    table = pd.DataFrame(history)
    figure, (axes,) = axes_grid(1, 2, WIDE, 3.6)
    for ax, name in zip(axes, ("loss", "accuracy")):
        for column, look, word in (
            (name, "o-", "training"),
            (f"validation_{name}", "s--", "validation"),
        ):
            colour = DARK if word == "training" else RIGHT
            ax.plot(
                table.epoch,
                table[column],
                look,
                color=colour,
                label=word,
                markevery=max(1, len(table) // 12),
            )
        ax.set(
            xlabel="epoch",
            ylabel=name,
            title=f"{name} by epoch",
            ylim=(0, 1.02 if name == "accuracy" else None),
        )
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    best = table.validation_accuracy.max()
    return Picture(
        figure,
        f"Loss and accuracy over {len(table)} epochs; best validation accuracy {best:.3f}.",
        table,
    )


def image_grid(
    images: list, titles: list[str], right: list[bool] | None = None, columns: int = 6
) -> Picture:
    """Images row by row, each under its title, which says in words whether it is right or wrong.

    images: (3, H, W) uint8 tensors or (H, W, 3) arrays, None where there is none. right: draws a frame, blue and
    solid for a right prediction, vermillion and dashed for a wrong one.
    """
    columns = max(1, min(columns, len(images)))
    rows, lines = (
        max(1, -(-len(images) // columns)),
        max([t.count("\n") + 1 for t in titles], default=1),
    )
    width = min(WIDE, 1.9 * columns)
    figure, axes = axes_grid(rows, columns, max(width, 4), rows * (width / columns + 0.19 * lines))
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_anchor("N")
    for index, (ax, image, title) in enumerate(zip(axes.flat, images, titles)):
        ax.set_title(title, fontsize=9.5, fontweight="normal", linespacing=1.15, pad=5)
        if image is not None:
            ax.imshow(image.permute(1, 2, 0) if hasattr(image, "permute") else image)
            if right is not None:
                _frame(ax, right[index])
    if not images:
        axes[0, 0].text(0.5, 0.5, "no image to show", ha="center", va="center")
    said = [title.replace("\n", ", ") for title in titles if title]
    names = (
        f": {'; '.join(said[:6])}{'; and more' if len(said) > 6 else ''}" if said else " to show"
    )
    alt = f"{len(said)} images{names}."
    return Picture(figure, alt, pd.DataFrame({"title": said}))


def _frame(ax, right: bool) -> None:
    look = {"edgecolor": RIGHT} if right else {"edgecolor": WRONG, "linestyle": (0, (4, 2))}
    ax.add_patch(
        plt.Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, lw=4, clip_on=False, **look)
    )


def caption(row) -> str:
    """Right or wrong with the confidence, predicted class, true class, and the end of the path, a line each."""
    verdict = "✓ right" if row.right else "✗ wrong"
    return f"{verdict}, {row.confidence:.2f}\npredicted {row.type}\ntrue {row.label}\n…{row.relative_path[-18:]}"


def gallery(table: pd.DataFrame, images: dict, columns: int = 4, by_class: bool = False) -> Picture:
    """The table's images (by relative_path in `images`) under their captions; by_class starts a row for each label."""
    groups = (
        [group.head(columns) for _, group in table.groupby("label")]
        if by_class and len(table)
        else [table]
    )
    rows = []
    for group in groups:
        rows += [*group.itertuples(), *[None] * (-len(group) % columns if by_class else 0)]
    shown = [row and images.get(row.relative_path) for row in rows]
    titles, right = (
        [caption(row) if row else "" for row in rows],
        [bool(row and row.right) for row in rows],
    )
    picture = image_grid(shown, titles, right, columns)
    return Picture(picture.figure, picture.alt, pd.concat(groups).drop(columns="phash"))
