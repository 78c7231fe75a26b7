"""Where a garment is in the picture, and how its marks become pixels."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from samples.shapes import Mark

DARKENING = {"seam": 0.42, "fold": 0.3}


def pose(rng: Generator, marks: list[Mark], size: tuple[int, int]) -> np.ndarray:
    """The projective map (3, 3) from garment units to pixels.

    size: width, height. The garment fills 82 to 95 % of the shorter side.
    """
    points = np.vstack([mark.points for mark in marks if not mark.prop])  # (N, 2)
    middle = (points.min(0) + points.max(0)) / 2
    turn = rng.normal(0, 0.07)
    lean = rng.normal(0, 0.03)
    mirror = rng.choice([-1, 1])
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = linear @ np.array([[mirror, lean], [0, rng.uniform(0.93, 1.07)]])
    extent = np.ptp((points - middle) @ linear.T, axis=0)
    linear = linear * rng.uniform(0.82, 0.95) * min(size) / max(extent)
    free = min(size) * 0.98 - np.ptp((points - middle) @ linear.T, axis=0)
    shift = np.array(size) / 2 + rng.uniform(-0.25, 0.25, 2) * np.maximum(free, 0)
    # The third row of the map is what makes it a perspective: a camera held a little askew.
    tilt = rng.normal(0, 0.04, 2) / max(np.ptp(points, axis=0))
    around = np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [*tilt, 1 - tilt @ middle]])
    return np.array([[*linear[0], shift[0]], [*linear[1], shift[1]], [0, 0, 1]]) @ around


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) in garment units as pixels (N, 2)."""
    flat = np.c_[points, np.ones(len(points))] @ matrix.T  # (N, 3), homogeneous
    return flat[:, :2] / flat[:, 2:]


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, dtype=np.float32) / 255


class Canvas:
    """Pixels that marks are painted on.

    pixels: (H, W, 3). relief: (H, W), the light on crumpled cloth. Outlines are drawn at twice the
    size, then halved, so that their edges are smooth.
    """

    def __init__(self, pixels: np.ndarray, matrix: np.ndarray, relief: np.ndarray):
        self.pixels = pixels
        self.matrix = matrix
        self.relief = relief
        self.scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        self.size = np.array(relief.shape[::-1])
        self.thickness = 0.028 * min(relief.shape)

    def mask(self, mark: Mark) -> tuple[tuple[slice, slice], np.ndarray]:
        """The window of the picture that the mark and its soft edge reach, and its coverage there.

        Coverage: (h, w) of the window, from 0 to 1.
        """
        points = project(self.matrix, mark.points)
        margin = mark.width * self.scale + (3 * self.thickness if mark.raised else 2)
        low = np.clip(np.floor(points.min(0) - margin), 0, self.size - 1).astype(int)
        high = np.clip(np.ceil(points.max(0) + margin), low + 1, self.size).astype(int)
        large = Image.new("L", tuple(2 * (high - low)))
        corners = [tuple(point) for point in 2 * (points - low)]
        if mark.width:
            stroke = max(2, round(2 * mark.width * self.scale))
            ImageDraw.Draw(large).line(corners, fill=255, width=stroke, joint="curve")
        else:
            ImageDraw.Draw(large).polygon(corners, fill=255)
        window = slice(low[1], high[1]), slice(low[0], high[0])
        return window, np.asarray(large.reduce(2), dtype=np.float32) / 255

    def paint(self, mark: Mark, paints: dict[str, np.ndarray]) -> None:
        window, mask = self.mask(mark)
        pixels = self.pixels[window]  # a view: what is done to it is done to the picture
        if mark.paint in DARKENING:
            pixels *= 1 - DARKENING[mark.paint] * mask[..., None]
            return
        light = self.relief[window]
        if mark.raised:
            soft = blurred(mask, self.thickness)
            pixels *= 1 - 0.38 * soft[..., None]
            light = light * (0.62 + 0.4 * np.clip((soft - 0.3) / 0.55, 0, 1))  # darker at the edge
        colours = paints[mark.paint]
        colours = colours[window] if colours.ndim == 3 else colours
        pixels += mask[..., None] * (colours * light[..., None] - pixels)

    def shadow(self, marks: list[Mark], offset: np.ndarray, depth: float) -> None:
        """Darken the ground beside the garment, away from the light."""
        whole = np.zeros_like(self.relief)
        for mark in marks:
            if mark.raised:
                window, mask = self.mask(mark)
                np.maximum(whole[window], mask, out=whole[window])
        moved = np.roll(whole, offset.round().astype(int), axis=(1, 0))
        self.pixels *= 1 - depth * blurred(moved, 2 * self.thickness)[..., None]

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel is on the cloth; 1 is about 200 pixels."""
        width, height = self.size
        x = np.arange(width, dtype=np.float32)
        y = np.arange(height, dtype=np.float32)[:, None]
        to_cloth = np.linalg.inv(self.matrix).astype(np.float32)
        u, v, w = (a * x + b * y + c for a, b, c in to_cloth)
        unit = np.float32(self.scale / 200)
        return u / w * unit, v / w * unit
