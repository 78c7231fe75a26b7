"""Outlines and the marks that a garment is drawn with.

In garment units: x to the right, y down, shoulders 1 wide.
"""

import math
from dataclasses import dataclass

import numpy as np

SHARP = 1


@dataclass(frozen=True)
class Mark:
    """One thing to paint: a filled outline, or a line where width is above 0.

    points: (N, 2), garment units. paint: a key of the picture's paints. raised: rounded edges and
    a shadow below. prop: a hanger or a mannequin, left out when the garment is fitted to the
    picture.
    """

    points: np.ndarray
    paint: str = "fabric"
    width: float = 0
    raised: bool = True
    prop: bool = False


def curve(points: list[tuple], closed: bool = True, rounds: int = 3) -> np.ndarray:
    """Points (x, y) as a smooth curve, by cutting corners; (x, y, SHARP) keeps its corner."""
    # A point that stands there twice keeps its corner: cut between the two, it is where it was.
    corners = []
    for point in points:
        corners += [point[:2]] * (2 if len(point) == 3 else 1)
    xy = np.array(corners, dtype=float)  # (N, 2)
    for _ in range(rounds):
        ahead = np.roll(xy, -1, axis=0) if closed else xy[1:]
        here = xy if closed else xy[:-1]
        cuts = np.stack([0.75 * here + 0.25 * ahead, 0.25 * here + 0.75 * ahead], axis=1)
        cut = cuts.reshape(-1, 2)  # (N, 2 cuts, 2) to (2 N, 2), in order
        xy = cut if closed else np.vstack([xy[:1], cut, xy[-1:]])
    return xy


def flip(points: list[tuple]) -> list[tuple]:
    """The points mirrored at the garment's middle."""
    return [(-p[0], *p[1:]) for p in points]


def symmetric(half: list[tuple]) -> np.ndarray:
    """The closed outline whose right half runs from top to bottom."""
    return curve(half + flip(half)[::-1])


def fill(points: np.ndarray, paint: str = "fabric", **options: bool) -> Mark:
    return Mark(points, paint, **options)


def line(points: list[tuple], width: float = 0.012, paint: str = "seam", **options: bool) -> Mark:
    return Mark(curve(points, closed=False), paint, width=width, raised=False, **options)


def disc(x: float, y: float, radius: float, paint: str, squash: float = 1) -> Mark:
    turn = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    rim = np.c_[x + radius * np.cos(turn), y + squash * radius * np.sin(turn)]
    return Mark(rim, paint, raised=False)


@dataclass(frozen=True)
class Limb:
    """A sleeve, an arm or a leg: a tube from start, bent half way.

    angle: from straight down, radians. widths: at the start and at the end.
    """

    start: tuple[float, float]
    angle: float
    length: float
    widths: tuple[float, float]
    bend: float = 0

    def at(self, along: float, across: float) -> tuple[float, float]:
        """The point at along (0 start, 1 end) and across (-1 one edge, 1 the other)."""
        first = min(along, 0.5)
        second = max(along - 0.5, 0)
        lower = self.angle + self.bend
        turned = self.angle + self.bend * min(1, max(0, (along - 0.35) / 0.3))
        half = across * (self.widths[0] + (self.widths[1] - self.widths[0]) * along) / 2
        x = self.start[0] + self.length * (first * math.sin(self.angle) + second * math.sin(lower))
        y = self.start[1] + self.length * (first * math.cos(self.angle) + second * math.cos(lower))
        return x + half * math.cos(turned), y - half * math.sin(turned)

    def part(self, begin: float, end: float, swell: float = 1) -> list[tuple]:
        """The outline of the stretch from begin to end."""
        steps = np.linspace(begin, end, 5)
        edge = [[self.at(t, side * swell) for t in steps] for side in (1, -1)]
        corners = [[(*e[0], SHARP), *e[1:-1], (*e[-1], SHARP)] for e in edge]
        return corners[0] + corners[1][::-1]


def pair(points: list[tuple], paint: str = "fabric", **options: bool) -> list[Mark]:
    """The outline and its mirror image."""
    return [Mark(curve(points), paint, **options), Mark(curve(flip(points)), paint, **options)]


def pair_of_lines(points: list[tuple], width: float = 0.012, paint: str = "seam") -> list[Mark]:
    return [line(points, width, paint), line(flip(points), width, paint)]
