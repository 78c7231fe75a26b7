"""Colours, fabrics and floors: arrays (H, W, 3) of float32 from 0 to 1."""

import colorsys

import numpy as np
from numpy.random import Generator
from PIL import Image

LUMINANCE = np.array([0.3, 0.59, 0.11], dtype=np.float32)
WOODS = (
    (1.35, 1.0, 0.65),
    (1.2, 1.02, 0.78),
    (1.4, 0.95, 0.7),
    (1.03, 1.0, 0.97),
)  # red, green, blue, mean 1


def cloud(rng: Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of mean 0 and deviation about 1; cells: blobs across the longer side."""
    longest = max(shape)
    coarse = [max(2, round(cells * side / longest)) + 1 for side in shape]
    grid = rng.standard_normal(coarse).astype(np.float32)
    fine = Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(fine) * 1.4


def colour(rng: Generator) -> np.ndarray:
    """One colour: a neutral, a muted or a strong one, from nearly black to nearly white."""
    strengths = (rng.uniform(0, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.55, 0.9))
    strength = strengths[rng.integers(3)]
    mixed = colorsys.hsv_to_rgb(rng.random(), strength, rng.uniform(0.15, 0.97))
    return np.array(mixed, dtype=np.float32)


def apart(rng: Generator, others: list[np.ndarray], distance: float) -> np.ndarray:
    """A colour that the eye tells from the others, by its brightness; the best of sixty draws.

    distance: of luminance, 0 to 1; the first colour that far from all others is taken.
    """
    found: tuple[float, np.ndarray] = (-1.0, LUMINANCE)
    for _ in range(60):
        candidate = colour(rng)
        gap = min(abs(float((candidate - other) @ LUMINANCE)) for other in others)
        if gap >= distance:
            return candidate
        found = max(found, (gap, candidate), key=lambda pair: pair[0])
    return found[1]


def steps(wave: np.ndarray, hardness: float = 4) -> np.ndarray:
    """A wave from -1 to 1 as bands of 0 and 1 with soft edges."""
    return np.clip(0.5 + hardness * wave, 0, 1)


def fabric(
    rng: Generator, u: np.ndarray, v: np.ndarray, main: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Plain, striped, checked, dotted, knitted or denim cloth.

    u, v: (H, W), where each pixel is on the cloth; 1 is 200 pixels.
    """
    kind = rng.integers(10)
    turns = 2 * np.pi / rng.uniform(0.07, 0.18)
    sway = np.float32(0.012) * cloud(rng, u.shape, 6)
    u = u + sway
    v = v + sway
    share = np.zeros_like(u)
    grain = np.float32(0.02) * rng.standard_normal(u.shape, dtype=np.float32)
    if kind == 2:
        share = steps(np.sin((u if rng.random() < 0.5 else v) * turns) + rng.uniform(-0.4, 0.3))
    elif kind == 3:
        share = 0.4 * steps(np.sin(u * turns)) + 0.4 * steps(np.sin(v * turns))
    elif kind == 4:
        row = np.floor(v * turns / 6.28)
        across = (u * turns / 6.28 + row / 2) % 1 - 0.5
        along = (v * turns / 6.28) % 1 - 0.5
        share = np.clip(8 * (rng.uniform(0.2, 0.32) - np.hypot(across, along)), 0, 1)
    elif kind == 5:
        grain = grain + 0.07 * np.sin(u * 150) * np.sin(v * 90 + 2 * np.abs(np.sin(u * 75)))
    elif kind == 6:
        grain = 1.6 * grain + 0.04 * np.sin((u + v) * 190) + 0.06 * cloud(rng, u.shape, 7)
    grain *= 0.35 + float(main @ LUMINANCE)  # dark cloth shows less of it
    return main + (second - main) * share[..., None] + grain[..., None]


def boards(rng: Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Floor boards: each its own tone, with grain and dark joints."""
    width = rng.uniform(0.18, 0.4)
    number = np.floor(u / width).astype(int)
    within = (u / width) % 1
    tone = rng.normal(0, 0.06, 64)[number % 64]
    grain = 0.04 * np.sin(90 * u + 5 * cloud(rng, u.shape, 4))
    return tone + grain - 0.25 * (np.abs(within - 0.5) > 0.48)


def tiles(rng: Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    size = rng.uniform(0.35, 0.7)
    edge = np.maximum(np.abs((u / size) % 1 - 0.5), np.abs((v / size) % 1 - 0.5))
    joint = np.clip((edge - 0.47) * 60, 0, 1)
    return 0.03 * cloud(rng, u.shape, 9) + joint * rng.choice([-0.22, 0.15])


def carpet(rng: Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    fibre = cloud(rng, u.shape, 110)
    return 0.07 * fibre + 0.015 * cloud(rng, u.shape, 25)


def sheet(rng: Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A bed sheet: long folds that come and go."""
    phase = u * rng.uniform(6, 12) + 0.8 * cloud(rng, u.shape, 3)
    depth = np.clip(0.5 + 0.5 * cloud(rng, u.shape, 4), 0, 1.2)
    return 0.06 * depth * (np.sin(phase) + np.abs(np.sin(2.3 * phase)) - 0.6)


def wall(rng: Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.02 * cloud(rng, u.shape, 3) + 0.015 * cloud(rng, u.shape, 90)


def ground(rng: Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What the garment lies on or hangs before, turned by chance, and its mean colour."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / 200
    turn = rng.normal(0, 0.2) + np.pi / 2 * rng.integers(2)
    u = x * np.cos(turn) + y * np.sin(turn) + 9
    v = y * np.cos(turn) - x * np.sin(turn) + 9
    kind = (boards, tiles, carpet, sheet, wall)[rng.integers(5)]
    strength = rng.uniform(0.5, 0.75) if rng.random() < 0.15 else rng.uniform(0, 0.3)
    bright = rng.uniform(0.6, 0.98) if rng.random() < 0.75 else rng.uniform(0.2, 0.4)
    base = np.array(colorsys.hsv_to_rgb(rng.random(), strength, bright), dtype=np.float32)
    if kind is boards:
        base = base.mean() * np.array(WOODS[rng.integers(len(WOODS))], dtype=np.float32)
    pixels = base * (1 + 0.75 * kind(rng, u, v)[..., None])
    return pixels.astype(np.float32), base
