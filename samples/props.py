"""What carries the clothes: a hanger, a mannequin's neck, arms, legs and head."""

from numpy.random import Generator

from samples.shapes import SHARP, Limb, Mark, curve, fill, line, pair, symmetric


def hanger(y: float, half_width: float = 0.42) -> list[Mark]:
    hook = [
        (0, y + 0.02),
        (0, y - 0.13),
        (0.09, y - 0.18),
        (0.06, y - 0.29),
        (-0.04, y - 0.29),
        (-0.07, y - 0.22),
    ]
    bar = [(-half_width, y + 0.12), (0, y), (0, y), (half_width, y + 0.12)]
    return [line(hook, 0.025, "metal", prop=True), line(bar, 0.05, "wood", prop=True)]


def clips(y: float, half_width: float) -> list[Mark]:
    """A hanger that holds a waistband."""
    bar = [(-half_width, y - 0.1), (half_width, y - 0.1)]
    hook = [(0, y - 0.1), (0, y - 0.2), (0.09, y - 0.25), (0.05, y - 0.35), (-0.06, y - 0.3)]
    teeth = [
        line([(s * half_width * 0.8, y - 0.12), (s * half_width * 0.8, y + 0.06)], 0.07, "metal")
        for s in (-1, 1)
    ]
    return [line(hook, 0.025, "metal", prop=True), line(bar, 0.035, "metal", prop=True), *teeth]


def neck(half_width: float) -> list[Mark]:
    w = half_width * 0.8
    post = [(w * 0.5, -0.26), (w, -0.16), (w * 0.95, 0), (w * 1.5, 0.1), (w, 0.3), (0.05, 0.4)]
    return [fill(symmetric(post), "skin", prop=True)]


def arms(sleeve: Limb) -> list[Mark]:
    """The arms that come out of a pair of sleeves, down to the hands."""
    rest = max(0.05, 1.02 - 0.8 * sleeve.length)
    arm = Limb(sleeve.at(0.8, 0), sleeve.angle * 0.6, rest + 0.2 * sleeve.length, (0.17, 0.12))
    x, y = arm.at(1, 0)
    hand = [
        (x - 0.07, y - 0.05),
        (x + 0.07, y - 0.05),
        (x + 0.07, y + 0.12),
        (x, y + 0.17),
        (x - 0.06, y + 0.1),
    ]
    return pair(arm.part(0, 1), "skin", prop=True) + pair(hand, "skin", prop=True)


def legs(top: float, spread: float, length: float) -> list[Mark]:
    leg = Limb((0.2, top), spread, length, (0.34, 0.13))
    foot = [
        leg.at(0.96, -1),
        (*leg.at(0.97, 1), SHARP),
        leg.at(1.04, 1.9),
        leg.at(1.08, 1.2),
        leg.at(1.06, -1),
    ]
    return pair(foot, "skin", prop=True) + pair(leg.part(0, 1), "skin", prop=True)


def trunk(waist: float, hip: float) -> list[Mark]:
    """The waist above trousers or a skirt."""
    side = [(0.05, -0.5), (waist, -0.45), (waist * 0.92, -0.2), (hip, 0.3), (0.05, 0.4)]
    return [fill(symmetric(side), "skin", prop=True)]


def head(rng: Generator, y: float) -> list[Mark]:
    """A faceless head whose brow is at y."""
    w = rng.uniform(0.36, 0.4)
    face = [(0.1, y - 0.4), (w, y - 0.15), (w, y + 0.25), (w * 0.62, y + 0.6), (0.1, y + 0.68)]
    post = [(0.17, y + 0.4, SHARP), (0.17, y + 0.8), (0.5, y + 0.95), (0.6, y + 1.3)]
    return [fill(symmetric(post), "skin", prop=True), fill(symmetric(face), "skin", prop=True)]


def ankle(x: float, y: float, width: float) -> list[Mark]:
    leg = Limb((x, y - 1.2), 0, 1.2, (1.5 * width, width))
    return [Mark(curve(leg.part(0, 1)), "skin", prop=True)]


def carried_at_waist(way: str, waist: float, hip: float) -> list[Mark]:
    """What is behind a garment for the lower body."""
    if way == "worn":
        return legs(0.3, 0.06, 1.95) + trunk(waist, hip)
    return clips(0.0, waist) if way == "hung" else []
