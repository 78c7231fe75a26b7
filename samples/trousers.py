"""Pants and shorts."""

from numpy.random import Generator

from samples.props import carried_at_waist
from samples.shapes import SHARP, Limb, Mark, disc, fill, line, pair, pair_of_lines, symmetric


def waistband(rng: Generator, waist: float) -> list[Mark]:
    """A band with loops and a button, or a belt, or a drawstring."""
    band = [(0.05, 0.015), (waist, 0, SHARP), (waist + 0.01, 0.11, SHARP), (0.05, 0.13)]
    kind = rng.integers(3)
    marks = [fill(symmetric(band), "trim" if kind == 1 else "fabric")]
    if kind == 1:
        buckle = [(-0.06, 0.03), (0.06, 0.03), (0.06, 0.11), (-0.06, 0.11), (-0.06, 0.03)]
        return [*marks, line([(x, y, SHARP) for x, y in buckle], 0.025, "metal")]
    if kind == 2:
        return marks + pair_of_lines([(0.015, 0.1), (0.06, 0.2), (0.04, 0.36)], 0.022, "pale")
    loops = [
        line([(x * waist, -0.01), (x * waist, 0.13)], 0.03, "rib") for x in (-0.8, -0.35, 0.35, 0.8)
    ]
    return marks + loops + [disc(0, 0.07, 0.03, "button")]


def trousers(rng: Generator, way: str, length: float, ankle: float, spread: float) -> list[Mark]:
    """Two legs from a waistband; length is measured from the waist."""
    waist = rng.uniform(0.35, 0.4)
    hip = rng.uniform(0.43, 0.49)
    crotch = rng.uniform(0.56, 0.64)
    leg = Limb((0.23, crotch - 0.1), spread, length - crotch + 0.1, (0.45, ankle))
    outer = [leg.at(t, 1) for t in (0.35, 0.7)]
    inner = [leg.at(t, -1) for t in (0.7, 0.35)]
    half = [(0, 0.1, SHARP), (waist, 0.1, SHARP), (hip, 0.4), *outer, (*leg.at(1, 1), SHARP)]
    half += [(*leg.at(1, -1), SHARP), *inner, (0.02, crotch + 0.06), (0, crotch, SHARP)]
    marks = carried_at_waist(way, waist, hip) + pair(half)
    marks += [
        line([(0, 0.12), (0.01, crotch)]),
        line([(0.07, 0.12), (0.07, 0.36), (0.0, 0.45)], 0.01),
    ]
    marks += pair_of_lines([(waist * 0.55, 0.14), (hip * 0.7, 0.3), (hip * 0.98, 0.36)], 0.016)
    marks += pair_of_lines([leg.at(0.95, -0.97), leg.at(0.95, 0.97)], 0.012)
    if rng.random() < 0.4:
        marks += pair_of_lines([leg.at(0.1, 0), leg.at(0.92, 0)], 0.014, "fold")
    return marks + waistband(rng, waist)


def pants(rng: Generator, way: str) -> list[Mark]:
    spread = rng.uniform(0.02, 0.16) if way == "flat" else rng.uniform(0.01, 0.06)
    return trousers(rng, way, rng.uniform(1.9, 2.3), rng.uniform(0.2, 0.42), spread)


def shorts(rng: Generator, way: str) -> list[Mark]:
    length = rng.uniform(0.85, 1.12)
    ankle = rng.uniform(0.43, 0.52)
    return trousers(rng, way, length, ankle, rng.uniform(0.08, 0.26))
