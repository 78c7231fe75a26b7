"""T-shirt, long sleeves and shirt, and what every garment for the upper body shares."""

import math

import numpy as np
from numpy.random import Generator

from samples.props import arms, hanger, neck
from samples.shapes import (
    SHARP,
    Limb,
    Mark,
    curve,
    disc,
    fill,
    flip,
    line,
    pair,
    pair_of_lines,
    symmetric,
)


def neckline(rng: Generator, half_width: float) -> tuple[list[tuple], float]:
    """The right half of a round or pointed neckline, and its depth."""
    depth = rng.uniform(0.1, 0.24)
    if rng.random() < 0.3:
        tip = depth + 0.08
        pointed = [(0, tip, SHARP), (half_width * 0.55, depth * 0.6), (half_width, 0, SHARP)]
        return pointed, tip
    rounded = [(half_width * 0.4, depth), (half_width * 0.9, depth * 0.75), (half_width, 0, SHARP)]
    return rounded, depth


def torso(
    rng: Generator, top: list[tuple], length: float, hem: float, tail: float = 0.03
) -> list[tuple]:
    """The right half of a body from its neckline to its hem."""
    chest = rng.uniform(0.44, 0.49)
    shoulder = rng.uniform(0.46, 0.5)
    side = [
        (shoulder, 0.1),
        (shoulder, 0.14),
        (chest - 0.03, 0.26),
        (chest, 0.45),
        (chest - rng.uniform(0, 0.06), 0.8),
    ]
    return top + side + [(hem, length - tail, SHARP), (hem * 0.5, length + tail)]


def inside_of_neck(half_width: float, depth: float) -> Mark:
    half = [
        (half_width * 0.5, -0.025),
        (half_width, 0, SHARP),
        (half_width * 0.9, depth),
        (0.05, depth + 0.1),
    ]
    return fill(symmetric(half), "inside")


def carried(rng: Generator, way: str, half_width: float, arm: Limb) -> list[Mark]:
    """What is behind a garment for the upper body; arm is its right sleeve."""
    if way == "worn":
        return neck(half_width) + arms(arm)
    return hanger(rng.uniform(-0.06, 0)) if way == "hung" else []


def sleeve(rng: Generator, way: str, length: float, widths: tuple[float, float]) -> Limb:
    """The right sleeve: it hangs when hung or worn, and is spread out when laid flat."""
    spread = (0.4, 0.85) if way == "flat" else (0.34, 0.52)
    angle = rng.uniform(*spread) + (0.22 if length < 0.5 else 0)
    bend = rng.uniform(-0.5, 0.15) if length > 0.5 and way == "flat" else rng.uniform(-0.12, 0.02)
    half = widths[0] / 2
    start = (0.47 - half * math.cos(angle), 0.1 + half * math.sin(angle))
    return Limb(start, angle, length, widths, bend)


def prints(rng: Generator) -> list[Mark]:
    """A picture on the chest: a sun over hills, a star, bars, or words."""
    kind = rng.integers(4)
    y = rng.uniform(0.46, 0.58)
    size = rng.uniform(0.13, 0.21)
    if kind == 0:
        hills = [
            (-size, y + size, SHARP),
            (-size * 0.3, y - size * 0.2),
            (size * 0.2, y + size * 0.6),
            (size * 0.5, y + size * 0.1),
            (size, y + size, SHARP),
        ]
        return [disc(0, y, size, "trim"), fill(curve(hills), "accent", raised=False)]
    if kind == 1:
        points = [(0, -1), (0.24, -0.32), (0.95, -0.31), (0.38, 0.12), (0.59, 0.81), (0, 0.4)]
        star = points + flip(points[1:5])[::-1]
        corners = [(size * across, y + size * down, SHARP) for across, down in star]
        return [fill(curve(corners), "trim", raised=False)]
    end = 3 if kind == 2 else 1
    rows = [(y + row * size * 0.42, rng.uniform(0.5, 1) * size * 1.3) for row in range(-1, end)]
    if kind == 2:
        return [line([(-w, row), (w, row)], size * 0.22, "trim") for row, w in rows]
    letters = [(size * x, row) for row, _ in rows for x in (-0.9, -0.3, 0.3, 0.9)]
    return [
        line([(x - 0.03, y + 0.05), (x, y - 0.05), (x + 0.03, y + 0.05)], 0.025, "trim")
        for x, y in letters
    ]


def t_shirt(rng: Generator, way: str) -> list[Mark]:
    width = rng.uniform(0.15, 0.21)
    top, depth = neckline(rng, width)
    length = rng.uniform(1.15, 1.4)
    arm = sleeve(rng, way, rng.uniform(0.3, 0.44), (0.36, rng.uniform(0.28, 0.34)))
    marks = [*carried(rng, way, width, arm), inside_of_neck(width, depth)]
    marks += pair(arm.part(0, 1)) + pair_of_lines([arm.at(0.88, -0.95), arm.at(0.88, 0.95)])
    marks += [
        fill(symmetric(torso(rng, top, length, rng.uniform(0.43, 0.52)))),
        line(flip(top)[::-1] + top, 0.045, "trim" if rng.random() < 0.4 else "rib"),
        line([(-0.4, length - 0.07), (0, length - 0.04), (0.4, length - 0.07)]),
    ]
    return marks + (prints(rng) if rng.random() < 0.6 else [])


def longsleeve(rng: Generator, way: str) -> list[Mark]:
    width = rng.uniform(0.15, 0.2)
    top, depth = neckline(rng, width)
    length = rng.uniform(1.15, 1.35)
    hem = rng.uniform(0.42, 0.5)
    arm = sleeve(rng, way, rng.uniform(1.0, 1.15), (0.34, rng.uniform(0.15, 0.19)))
    band = "trim" if rng.random() < 0.25 else "rib"
    marks = [*carried(rng, way, width, arm), inside_of_neck(width, depth)]
    marks += pair(arm.part(0, 1)) + pair(arm.part(0.91, 1.01, 0.95), band)
    return [
        *marks,
        fill(symmetric(torso(rng, top, length, hem, 0.01))),
        line(flip(top)[::-1] + top, 0.05, band),
        line([(-hem + 0.02, length - 0.04), (hem - 0.02, length - 0.04)], 0.08, band),
    ]


def shirt(rng: Generator, way: str) -> list[Mark]:
    width = rng.uniform(0.15, 0.18)
    length = rng.uniform(1.3, 1.45)
    short = rng.random() < 0.2
    reach = 0.42 if short else rng.uniform(1.0, 1.12)
    arm = sleeve(rng, way, reach, (0.35, 0.31 if short else 0.19))
    marks = [*carried(rng, way, width, arm), inside_of_neck(width, 0.1)]
    marks += pair(arm.part(0, 1)) + pair(arm.part(0.88, 1.01, 0.8 if short else 1.12))
    top = [(0, 0.16, SHARP), (width, 0, SHARP)]
    marks += [fill(symmetric(torso(rng, top, length, rng.uniform(0.42, 0.48), tail=0.07)))]
    strip = [(0.045, 0.14, SHARP), (0.045, length + 0.03, SHARP)]
    marks += [fill(symmetric(strip)), *pair_of_lines([(0.045, 0.15), (0.045, length)], 0.01)]
    marks += [disc(0, y, 0.024, "button") for y in np.arange(0.24, length - 0.15, 0.17)]
    box = [(0.14, 0.42), (0.35, 0.42), (0.35, 0.62), (0.245, 0.68), (0.14, 0.62), (0.14, 0.42)]
    for side in (1, -1)[: rng.integers(3)]:
        marks += [line([(side * x, y, SHARP) for x, y in box])]
    tip = rng.uniform(0.22, 0.28)
    fold = (width * 0.75, -0.06, SHARP)
    collar = [(0, 0.13, SHARP), fold, (width + 0.05, 0.03), (tip, 0.17), (0.15, tip + 0.03, SHARP)]
    return marks + pair(collar, "collar")
