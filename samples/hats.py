"""Hats: cap, sun hat, beanie."""

import numpy as np
from numpy.random import Generator

from samples.props import head
from samples.shapes import SHARP, Mark, curve, disc, fill, line, symmetric


def cap(rng: Generator) -> list[Mark]:
    """A baseball cap from the side."""
    dome = [
        (-0.5, 0.1, SHARP),
        (-0.52, -0.25),
        (-0.2, -0.52),
        (0.2, -0.5),
        (0.5, -0.25),
        (0.48, 0.08, SHARP),
    ]
    reach = rng.uniform(0.9, 1.1)
    brim = [
        (0.2, 0.12),
        (0.46, 0.0, SHARP),
        (reach * 0.85, 0.06),
        (reach, 0.2),
        (reach * 0.75, 0.22),
        (0.4, 0.17),
    ]
    marks = [
        fill(curve([*dome, (0, 0.14)])),
        fill(curve(brim), "trim" if rng.random() < 0.5 else "fabric"),
        line([(0, -0.46), (0.12, -0.2), (0.12, 0.12)]),
        line([(0, -0.46), (-0.3, -0.25), (-0.32, 0.11)]),
        line([(-0.48, 0.05), (0, 0.09), (0.46, 0.03)]),
        disc(0, -0.47, 0.04, "trim", 0.6),
    ]
    return marks + ([disc(0.27, -0.16, 0.1, "accent", 1.2)] if rng.random() < 0.7 else [])


def brimmed(rng: Generator) -> list[Mark]:
    """A sun hat or a fedora: crown, ribbon, wide brim."""
    reach = rng.uniform(0.8, 1.05)
    top = rng.uniform(0.5, 0.62)
    brim = [(0.1, 0.0), (0.5, 0.02), (reach, 0.0), (reach * 1.04, 0.12), (0.6, 0.24), (0.1, 0.28)]
    dent = rng.uniform(0, 0.12)
    crown = [
        (0.08, -top + dent),
        (0.25, -top - 0.03),
        (0.4, -top + 0.1),
        (0.46, 0.1, SHARP),
        (0.2, 0.16),
    ]
    ribbon = [(0.1, 0.0), (0.44, -0.06, SHARP), (0.465, 0.1, SHARP), (0.2, 0.17)]
    return [fill(symmetric(brim)), fill(symmetric(crown)), fill(symmetric(ribbon), "trim")]


def beanie(rng: Generator) -> list[Mark]:
    top = rng.uniform(0.55, 0.75)
    dome = [(0.1, -top), (0.36, -top + 0.08), (0.5, -0.2), (0.5, 0.12, SHARP), (0.2, 0.14)]
    cuff = [(0.1, -0.1), (0.52, -0.14, SHARP), (0.53, 0.15, SHARP), (0.1, 0.19)]
    marks = [fill(symmetric(dome))]
    for x in np.linspace(-0.85, 0.85, 7):
        marks += [line([(x * 0.1, -top), (x * 0.42, -0.4), (x * 0.5, -0.1)], 0.014, "fold")]
    marks += [fill(symmetric(cuff), "trim" if rng.random() < 0.4 else "fabric")]
    marks += [line([(x, -0.11), (x, 0.16)], 0.014, "fold") for x in np.linspace(-0.47, 0.47, 13)]
    if rng.random() < 0.6:
        marks += [Mark(disc(0, -top - 0.06, 0.17, "accent").points, "accent")]
    return marks


def hat(rng: Generator, way: str) -> list[Mark]:
    kind = (cap, brimmed, beanie)[rng.integers(3)]
    return (head(rng, 0.05) if way == "worn" else []) + kind(rng)
