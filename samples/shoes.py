"""Shoes: sneakers, boots, pumps and slippers."""

import numpy as np
from numpy.random import Generator

from samples.props import ankle
from samples.shapes import SHARP, Mark, curve, fill, line, symmetric


def sneaker(rng: Generator) -> list[Mark]:
    upper = [
        (-0.92, 0.3, SHARP),
        (-0.95, 0.0),
        (-0.86, -0.36),
        (-0.5, -0.3),
        (-0.28, -0.42),
        (-0.08, -0.34),
        (0.35, 0.0),
        (0.85, 0.05),
        (0.98, 0.3, SHARP),
    ]
    sole = [
        (-0.95, 0.24),
        (0, 0.27),
        (0.98, 0.22),
        (1.04, 0.34),
        (0.9, 0.4),
        (-0.9, 0.41),
        (-0.99, 0.34),
    ]
    toe = [(0.55, 0.28, SHARP), (0.62, 0.06), (0.9, 0.08), (1.0, 0.26, SHARP)]
    opening = [(-0.84, -0.3), (-0.5, -0.24), (-0.3, -0.34), (-0.32, -0.42), (-0.8, -0.42)]
    rows = [(x, 0.9 * x - 0.23, 0.62 * x - 0.2) for x in (-0.1, 0.02, 0.14, 0.26)]
    laces = [line([(x - 0.1, y), (x + 0.12, lower)], 0.035, "pale") for x, y, lower in rows]
    marks = [fill(curve(opening), "inside"), fill(curve(upper)), fill(curve(toe), "pale")]
    if rng.random() < 0.7:
        marks += [line([(-0.6, 0.15), (-0.2, 0.12), (0.2, -0.05)], 0.07, "trim")]
    return [*marks, *laces, fill(curve(sole), "pale")]


def boot(rng: Generator) -> list[Mark]:
    top = rng.uniform(-1.25, -0.8)
    upper = [
        (-0.8, 0.32, SHARP),
        (-0.82, 0),
        (-0.74, -0.4),
        (-0.8, top, SHARP),
        (-0.12, top - 0.03, SHARP),
        (-0.1, -0.4),
        (0.2, -0.1),
        (0.75, -0.02),
        (0.86, 0.32, SHARP),
    ]
    sole = [
        (-0.84, 0.28),
        (0, 0.3),
        (0.9, 0.26),
        (0.92, 0.38),
        (-0.1, 0.4, SHARP),
        (-0.2, 0.5, SHARP),
        (-0.84, 0.5, SHARP),
    ]
    opening = [(-0.78, top), (-0.45, top - 0.07), (-0.14, top - 0.02), (-0.45, top + 0.06)]
    rows = np.linspace(-0.16, top + 0.15, 5)
    laces = [
        line([(-0.02 - 0.1 * i / 4, y - 0.02), (-0.3, y + 0.05)], 0.03, "pale")
        for i, y in enumerate(rows)
    ]
    return [
        fill(curve(upper)),
        fill(curve(opening), "inside", raised=False),
        *laces,
        fill(curve(sole), "dark"),
    ]


def pump(rng: Generator) -> list[Mark]:
    heel = rng.uniform(0.35, 0.6)
    y = 0.4 - heel
    upper = [
        (-0.86, y + 0.1, SHARP),
        (-0.9, y - 0.3),
        (-0.76, y - 0.34),
        (-0.3, y + 0.1),
        (0.2, 0.12),
        (0.45, 0.0),
        (0.9, 0.24),
        (0.95, 0.38, SHARP),
        (0.3, 0.36),
        (-0.3, y + 0.24),
    ]
    inside = [(-0.84, y - 0.3), (-0.4, y), (0.2, 0.06), (0.44, 0.02), (0.1, 0.16), (-0.5, y + 0.1)]
    post = [(-0.88, y + 0.05), (-0.62, y + 0.16), (-0.74, 0.4, SHARP), (-0.84, 0.4, SHARP)]
    tread = line([(0.3, 0.37), (0.86, 0.385)], 0.04, "dark")
    return [fill(curve(post)), fill(curve(inside), "inside"), fill(curve(upper)), tread]


def from_above(rng: Generator) -> list[Mark]:
    """A laced shoe or a slipper seen from above, toe down."""
    sole = [(0.12, -0.92), (0.3, -0.75), (0.26, -0.1), (0.36, 0.4), (0.26, 0.86), (0.1, 0.95)]
    upper = [(x * 0.92, y * 0.96) for x, y in sole]
    mouth = [(0.08, -0.78), (0.2, -0.6), (0.17, -0.2), (0.06, -0.08)]
    laces = [line([(-0.16, y), (0, y + 0.05), (0.16, y)], 0.035, "pale") for y in (0.0, 0.12, 0.24)]
    seam = [line([(-0.3, 0.46), (0, 0.4), (0.3, 0.46)], 0.018)]
    return [
        fill(symmetric(sole), "pale"),
        fill(symmetric(upper)),
        fill(symmetric(mouth), "inside"),
        *seam,
        *laces,
    ]


def moved(marks: list[Mark], dx: float, dy: float, turn: float) -> list[Mark]:
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [Mark(m.points @ spin + (dx, dy), m.paint, m.width, m.raised, m.prop) for m in marks]


def shoes(rng: Generator, way: str) -> list[Mark]:
    """A pair: side by side from above, or one behind the other from the side."""
    kind = (sneaker, sneaker, boot, pump, from_above, from_above)[rng.integers(6)]
    if kind is from_above and way != "worn":
        one = kind(rng)
        turn = rng.uniform(-0.15, 0.15)
        gap = rng.uniform(0.42, 0.55)
        return moved(one, -gap, rng.uniform(-0.15, 0.15), turn) + moved(one, gap, 0, -turn)
    from_side = sneaker if kind is from_above else kind
    one = from_side(rng)
    leg = ankle(-0.5, 0.0, 0.42) if way == "worn" and kind is not boot else []
    dx = rng.uniform(0.15, 0.55)
    dy = rng.uniform(-0.6, -0.35)
    behind = moved(leg + one, dx, dy, rng.uniform(-0.1, 0.1))
    return behind + moved(leg + one, 0, 0, rng.uniform(-0.1, 0.1))
