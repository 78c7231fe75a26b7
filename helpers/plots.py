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

from helpers.review import Predictions, calibration_bins, calibration_error, threshold_for

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
        self.figure.savefig(buffer, format="png", metadata={"Software": None, "Description": self.alt})
        return buffer.getvalue()

    def html(self) -> str:
        encoded = base64.b64encode(self.png()).decode()
        return f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(self.alt)}" style="max-width:100%">'

    def save(self, folder: Path, name: str) -> "Picture":
        """Write <name>.png and <name>.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(self.png())
        self.data.to_csv(folder / f"{name}.csv", index=False)
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
        for column, look, word in ((name, "o-", "training"), (f"validation_{name}", "s--", "validation")):
            colour = DARK if word == "training" else RIGHT
            ax.plot(table.epoch, table[column], look, color=colour, label=word, markevery=max(1, len(table) // 12))
        ax.set(xlabel="epoch", ylabel=name, title=f"{name} by epoch", ylim=(0, 1.02 if name == "accuracy" else None))
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    best = table.validation_accuracy.max()
    return Picture(figure, f"Loss and accuracy over {len(table)} epochs; best validation accuracy {best:.3f}.", table)


def confusion_matrix(counts: pd.DataFrame, title: str = "") -> Picture:
    """Shares of each true class (rows, summing to 1) by predicted class (columns), with the counts written in."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    rows, columns = counts.shape
    figure, ((ax,),) = axes_grid(1, 1, max(NARROW, 2.6 + 0.55 * columns), max(3.2, 1.8 + 0.5 * rows))
    image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(columns), counts.columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(rows), counts.index)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.spines[:].set_visible(False)
    for row, column in np.argwhere(counts.to_numpy() > 0):
        colour = "black" if shares[row, column] > 0.55 else "white"
        ax.text(column, row, counts.iat[row, column], ha="center", va="center", color=colour, fontsize=11)
    figure.colorbar(image, label="share of the true class")
    hits = sum(counts.at[name, name] for name in counts.index if name in counts.columns)
    n = int(counts.to_numpy().sum())
    alt = f"Confusion matrix of {n} images, {hits} of them on the diagonal."
    return Picture(figure, alt, counts.rename_axis("label").reset_index())


def image_grid(images: list, titles: list[str], right: list[bool] | None = None, columns: int = 6) -> Picture:
    """Images row by row, each under its title, which says in words whether it is right or wrong.

    images: (3, H, W) uint8 tensors or (H, W, 3) arrays, None where there is none. right: draws a frame, blue and
    solid for a right prediction, vermillion and dashed for a wrong one.
    """
    columns = max(1, min(columns, len(images)))
    rows, lines = max(1, -(-len(images) // columns)), max([t.count("\n") + 1 for t in titles], default=1)
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
    names = f": {'; '.join(said[:6])}{'; and more' if len(said) > 6 else ''}" if said else " to show"
    alt = f"{len(said)} images{names}."
    return Picture(figure, alt, pd.DataFrame({"title": said}))


def _frame(ax, right: bool) -> None:
    look = {"edgecolor": RIGHT} if right else {"edgecolor": WRONG, "linestyle": (0, (4, 2))}
    ax.add_patch(plt.Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, lw=4, clip_on=False, **look))


def caption(row) -> str:
    """Right or wrong with the confidence, predicted class, true class, and the end of the path, a line each."""
    verdict = "✓ right" if row.right else "✗ wrong"
    return f"{verdict}, {row.confidence:.2f}\npredicted {row.type}\ntrue {row.label}\n…{row.relative_path[-18:]}"


def gallery(table: pd.DataFrame, images: dict, columns: int = 4, by_class: bool = False) -> Picture:
    """The table's images (by relative_path in `images`) under their captions; by_class starts a row for each label."""
    groups = [group.head(columns) for _, group in table.groupby("label")] if by_class and len(table) else [table]
    rows = []
    for group in groups:
        rows += [*group.itertuples(), *[None] * (-len(group) % columns if by_class else 0)]
    shown = [row and images.get(row.relative_path) for row in rows]
    titles, right = [caption(row) if row else "" for row in rows], [bool(row and row.right) for row in rows]
    picture = image_grid(shown, titles, right, columns)
    return Picture(picture.figure, picture.alt, pd.concat(groups).drop(columns="phash"))


def reliability(predictions: Predictions) -> Picture:
    """Accuracy by confidence, before and after temperature scaling, with 95 % intervals."""
    figure, (axes,) = axes_grid(1, 2, WIDE, 4.6)
    tables, right = [], predictions.table.right.to_numpy()
    scalings = {"before scaling": 1.0, f"after, temperature {predictions.temperature:.2f}": predictions.temperature}
    for ax, (name, temperature) in zip(axes, scalings.items()):
        confidence = predictions.probabilities(temperature).max(1, initial=0)
        bins = calibration_bins(confidence, right)
        error = ((bins.accuracy - bins.low).clip(lower=0), (bins.high - bins.accuracy).clip(lower=0))  # or -1e-17
        ax.plot([0, 1], [0, 1], "--", color=LIGHT, label="perfectly calibrated")
        ax.errorbar(
            bins.confidence, bins.accuracy, error, fmt="o", color=RIGHT, capsize=3, label="accuracy, 95 % interval"
        )
        ax.set(xlabel="mean confidence of a bin", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        ece = calibration_error(confidence, right)[0] if len(right) else float("nan")
        ax.set_title(f"{name}\ncalibration error {ece:.3f}, n = {len(right)}")
        tables.append(bins.assign(scaling=name, ece=ece))
    axes[0].legend(loc="upper left", fontsize=10)
    alt = "Reliability diagram; calibration error " + ", ".join(f"{t.ece.max():.3f} {t.scaling.max()}" for t in tables)
    return Picture(figure, alt, pd.concat(tables))


def coverage_curve(curve: pd.DataFrame, target: float = 0.95) -> Picture:
    """Accuracy on the most confident share of the images, with the threshold that reaches `target`."""
    figure, ((ax,),) = axes_grid(1, 1, NARROW, 4)
    ax.plot(curve.coverage, curve.accuracy, color=RIGHT)
    ax.axhline(target, linestyle="--", color=LIGHT)
    ax.set(
        xlabel="coverage (share of the images answered)", ylabel="accuracy on them", xlim=(0, 1.02), ylim=(None, 1.01)
    )
    point, sentence = threshold_for(curve, target)
    if point is not None:
        ax.plot(point.coverage, point.accuracy, "o", color=WRONG, markersize=9)
        ax.annotate(
            f"confidence ≥ {point.threshold:.2f}", (point.coverage, point.accuracy), (8, 8), textcoords="offset points"
        )
    return Picture(figure, f"Accuracy against coverage. {sentence}", curve)
