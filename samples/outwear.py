"""Outer wear: jackets and coats, open or closed, with a hood, a collar or lapels."""

from numpy.random import Generator

from samples.shapes import SHARP, Limb, Mark, disc, fill, pair, pair_of_lines, symmetric
from samples.tops import carried, sleeve


def hood() -> list[Mark]:
    outside = symmetric([(0.1, -0.34), (0.36, -0.2), (0.33, 0.12), (0.1, 0.3)])
    inside = symmetric([(0.08, -0.22), (0.23, -0.14), (0.2, 0.12), (0.05, 0.3)])
    return [fill(outside), fill(inside, "lining")]


def front(length: float, gap: tuple[float, float], hem: float) -> list[tuple]:
    """The right front of a jacket; gap: half of what is open at the chest and at the hem."""
    side = [(0.16, -0.02, SHARP), (0.5, 0.09), (0.52, 0.16), (0.49, 0.3), (0.51, 0.5), (0.5, 0.9)]
    return [
        *side,
        (hem, length - 0.02, SHARP),
        (gap[1], length, SHARP),
        (gap[0], 0.5),
        (gap[0] * 0.8, 0.1),
    ]


def quilting(length: float, gap: float, arm: Limb) -> list[Mark]:
    """The seams of a padded jacket, across its fronts and its sleeves."""
    rows = [0.3 + 0.17 * i for i in range(int((length - 0.32) / 0.17))]
    marks = []
    for y in rows:
        marks += pair_of_lines([(gap + 0.05, y + 0.02), (0.28, y + 0.035), (0.5, y)], 0.022)
    for along in (0.25, 0.42, 0.6, 0.77):
        marks += pair_of_lines([arm.at(along, -0.95), arm.at(along, 0.95)], 0.022)
    return marks


def zipped(length: float, gap: tuple[float, float]) -> list[Mark]:
    edge = [(gap[0] * 0.8 + 0.01, 0.12), (gap[0] + 0.01, 0.5), (gap[1] + 0.015, length - 0.02)]
    collar = [(0.03, 0.1), (0.14, -0.14), (0.2, -0.04), (0.2, 0.08), (0.04, 0.24)]
    return pair_of_lines(edge, 0.028, "metal") + pair(collar, "collar")


def lapelled(gap: float) -> list[Mark]:
    lapel = [
        (gap, 0.62, SHARP),
        (0.09, 0.0),
        (0.17, -0.08),
        (0.26, 0.06),
        (0.32, 0.2, SHARP),
        (0.25, 0.27, SHARP),
    ]
    buttons = [disc(gap + 0.07, y, 0.032, "button") for y in (0.62, 0.8, 0.98)]
    return buttons + pair([*lapel, (0.33, 0.32, SHARP)], "collar")


def outwear(rng: Generator, way: str) -> list[Mark]:
    length = rng.uniform(1.2, 1.8)
    hem = rng.uniform(0.5, 0.62)
    closed, padded, hooded = rng.random(3) < (0.25, 0.4, 0.5)
    gap = (0.015, 0.015) if closed else (rng.uniform(0.1, 0.14), rng.uniform(0.16, 0.3))
    arm = sleeve(rng, way, rng.uniform(1.0, 1.12), (0.46, rng.uniform(0.26, 0.31)))
    marks = carried(rng, way, 0.17, arm) + (hood() if hooded else [])
    lining = [(0.05, 0.02), (0.2, 0.0), (0.45, 0.15), (0.45, length - 0.04, SHARP)]
    marks += [fill(symmetric(lining), "lining")]
    marks += pair(arm.part(0, 1)) + pair(arm.part(0.9, 1.01, 1.05), "rib" if padded else "fabric")
    marks += pair(front(length, gap, hem)) + (quilting(length, gap[0], arm) if padded else [])
    marks += zipped(length, gap) if padded or hooded else lapelled(gap[0])
    pocket = min(length - 0.3, 1.02)
    marks += pair_of_lines([(0.24, pocket - 0.1), (0.38, pocket + 0.12)], 0.035)
    if length > 1.5 and rng.random() < 0.5:
        belt = [(0.1, 0.84), (0.51, 0.83, SHARP), (0.51, 0.92, SHARP), (0.1, 0.94)]
        marks += [fill(symmetric(belt), "trim")]
    return marks
