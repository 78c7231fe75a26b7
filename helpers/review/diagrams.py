"""Diagrams of a run: where it errs, what its confidences are worth, and what abstaining gains."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from helpers.plots import LIGHT, NARROW, RIGHT, WIDE, WRONG, Picture, axes_grid, drawable, in_style
from helpers.review.figures import Predictions, calibration_bins, calibration_error, threshold_for

LARGEST = 27.5  # inches of a matrix: that of 50 classes, and of all that have more


@in_style()
def confusion_matrix(counts: pd.DataFrame, title: str = "") -> Picture:
    """Shares of each true class (rows, summing to 1) by predicted class, the counts written in."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    rows, columns = counts.shape
    cell = min(0.55, LARGEST / columns)  # inches; of many classes, the names shrink with it
    width = max(NARROW, 2.6 + cell * columns)
    height = max(3.2, 1.8 + cell * rows / 1.1)
    figure, ((ax,),) = axes_grid(1, 1, width, height)
    image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    names = {"fontsize": min(12, 60 * cell)}
    across = _named(counts.columns)
    ax.set_xticks(range(columns), across, rotation=45, ha="right", rotation_mode="anchor", **names)
    ax.set_yticks(range(rows), _named(counts.index), **names)
    ax.set(xlabel="predicted class", ylabel="true class", title=drawable([title])[0])
    ax.spines[:].set_visible(False)
    centred = {"ha": "center", "va": "center", "fontsize": min(11, 30 * cell)}
    for row, column in np.argwhere(counts.to_numpy() > 0):
        colour = "black" if shares[row, column] > 0.55 else "white"
        ax.text(column, row, counts.iat[row, column], color=colour, **centred)
    figure.colorbar(image, label="share of the true class")
    hits = sum(counts.at[name, name] for name in counts.index if name in counts.columns)
    alt = f"Confusion matrix of {counts.to_numpy().sum()} images, {hits} of them on the diagonal."
    return Picture(figure, alt, counts.rename_axis("label").reset_index(allow_duplicates=True))


def _named(classes: Iterable[str]) -> list[str]:
    """Drawable, and not so long that they leave no room for the matrix."""
    return [f"{name[:30]}…" if len(name) > 31 else name for name in drawable(classes)]


@in_style()
def reliability(predictions: Predictions) -> Picture:
    """Accuracy by confidence, before and after temperature scaling, with 95 % intervals."""
    figure, (axes,) = axes_grid(1, 2, WIDE, 4.6)
    right = predictions.table.right.to_numpy()
    scalings = {
        "before scaling": 1.0,
        f"after, temperature {predictions.temperature:.2f}": predictions.temperature,
    }
    tables = []
    errors = []
    for ax, (name, temperature) in zip(axes, scalings.items()):
        confidence = predictions.probabilities(temperature).max(axis=1, initial=0)
        bins = calibration_bins(confidence, right)
        ece = calibration_error(confidence, right)[0] if len(right) else float("nan")
        below = (bins.accuracy - bins.low).clip(lower=0)  # rounding makes -1e-17 of 0
        above = (bins.high - bins.accuracy).clip(lower=0)
        points = {"fmt": "o", "color": RIGHT, "capsize": 3, "label": "accuracy, 95 % interval"}
        ax.plot([0, 1], [0, 1], "--", color=LIGHT, label="perfectly calibrated")
        ax.errorbar(bins.confidence, bins.accuracy, (below, above), **points)
        ax.set(xlabel="mean confidence of a bin", ylabel="accuracy")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        ax.set_title(f"{name}\ncalibration error {ece:.3f}, n = {len(right)}")
        tables.append(bins.assign(scaling=name, ece=ece))
        errors.append(f"{ece:.3f} {name}")
    axes[0].legend(loc="upper left", fontsize=10)
    alt = "Reliability diagram; calibration error " + ", ".join(errors)
    return Picture(figure, alt, pd.concat(tables))


@in_style()
def coverage_curve(curve: pd.DataFrame, target: float = 0.95) -> Picture:
    """Accuracy on the most confident share of the images, and where it reaches `target`."""
    figure, ((ax,),) = axes_grid(1, 1, NARROW, 4)
    ax.plot(curve.coverage, curve.accuracy, color=RIGHT)
    ax.axhline(target, linestyle="--", color=LIGHT)
    ax.set(xlabel="coverage (share of the images answered)", ylabel="accuracy on them")
    ax.set(xlim=(0, 1.02), ylim=(None, 1.01))
    point, sentence = threshold_for(curve, target)
    if point is not None:
        at = (point.coverage, point.accuracy)
        ax.plot(*at, "o", color=WRONG, markersize=9)
        ax.annotate(f"confidence ≥ {point.threshold:.2f}", at, (8, 8), textcoords="offset points")
    return Picture(figure, f"Accuracy against coverage. {sentence}", curve)
