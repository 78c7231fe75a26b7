"""Dress and skirt."""

import numpy as np
from numpy.random import Generator

from samples.props import carried_at_waist, legs
from samples.shapes import SHARP, Limb, Mark, fill, flip, line, pair, symmetric
from samples.tops import carried, inside_of_neck, neckline


def dress(rng: Generator, way: str) -> list[Mark]:
    width = rng.uniform(0.16, 0.22)
    waist = rng.uniform(0.24, 0.3)
    length = rng.uniform(1.75, 2.25)
    hem = rng.uniform(0.5, 0.85)
    waist_y = rng.uniform(0.66, 0.8)
    top, depth = neckline(rng, width)
    sleeves = rng.random() < 0.45
    marks = legs(waist_y + 0.4, 0.03, 1.75) if way == "worn" else []
    arm = Limb((0.29, 0.18), rng.uniform(0.5, 0.7), rng.uniform(0.26, 0.4), (0.28, 0.26))
    shown_arm = arm if sleeves else Limb((0.34, 0.12), 0.4, 0.1, (0.2, 0.2))
    marks += carried(rng, way, width, shown_arm)
    marks += [inside_of_neck(width, depth)] + (pair(arm.part(0, 1)) if sleeves else [])
    bare = [(width + 0.1, 0.02, SHARP), (0.24, 0.26), (0.36, 0.42, SHARP)]
    shoulder = [(0.4, 0.1, SHARP), (0.36, 0.3)] if sleeves else bare
    skirt = [
        (waist, waist_y),
        (waist + 0.04, waist_y + 0.15),
        (hem * 0.8, length * 0.75),
        (hem, length - 0.05, SHARP),
    ]
    outline = top + shoulder + [(0.35, 0.5)] + skirt + [(hem * 0.5, length + 0.03)]
    marks += [fill(symmetric(outline))]
    marks += [line(flip(top)[::-1] + top, 0.03, "rib")]
    for f in rng.uniform(-0.85, 0.85, rng.integers(4, 9)):
        fold = [
            (f * waist, waist_y + 0.06),
            (f * hem * 0.6, length * 0.7),
            (f * hem, length - 0.03),
        ]
        marks += [line(fold, 0.02, "fold")]
    if rng.random() < 0.6:
        w = waist + 0.015
        belt = [
            (0.1, waist_y - 0.03),
            (w, waist_y - 0.05, SHARP),
            (w, waist_y + 0.04, SHARP),
            (0.1, waist_y + 0.06),
        ]
        return [*marks, fill(symmetric(belt), "trim")]
    return [*marks, line([(-waist, waist_y), (0, waist_y + 0.02), (waist, waist_y)], 0.015)]


def skirt(rng: Generator, way: str) -> list[Mark]:
    waist = rng.uniform(0.33, 0.4)
    hip = rng.uniform(0.43, 0.5)
    length = rng.uniform(1.05, 1.6)
    hem = rng.uniform(0.46, 0.8)
    half = [
        (0.1, 0.08),
        (waist, 0.08, SHARP),
        (max(hip, waist + 0.3 * (hem - waist)), 0.42),
        (hem * 0.96, length * 0.85),
        (hem, length - 0.06, SHARP),
        (hem * 0.5, length + 0.04),
        (0.1, length + 0.05),
    ]
    marks = [*carried_at_waist(way, waist, hip), fill(symmetric(half))]
    if rng.random() < 0.35:
        for y in (0.4, 0.7):
            w = waist + (hem - waist) * y * 0.92
            flounce = [(-w, y * length), (0, y * length + 0.06), (w, y * length)]
            marks += [line(flounce, 0.03, "fold")]
    count = rng.integers(4, 11)
    for f in np.linspace(-0.9, 0.9, count + 1) + rng.uniform(0, 0.1, count + 1):
        middle = (f * (waist + hem) / 2, length / 2)
        marks += [line([(f * waist, 0.14), middle, (f * hem, length - 0.03)], 0.02, "fold")]
    band = [(0.05, 0.015), (waist, 0, SHARP), (waist + 0.01, 0.1, SHARP), (0.05, 0.12)]
    return [*marks, fill(symmetric(band), "trim" if rng.random() < 0.4 else "rib")]
