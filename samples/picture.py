"""One picture: a garment posed on a ground, lit, and seen through a plain camera."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from samples.canvas import Canvas, pose
from samples.dresses import dress, skirt
from samples.hats import hat
from samples.outwear import outwear
from samples.shoes import shoes
from samples.surfaces import apart, cloud, fabric, ground
from samples.tops import longsleeve, shirt, t_shirt
from samples.trousers import pants, shorts

GARMENTS = {
    "dress": dress,
    "hat": hat,
    "longsleeve": longsleeve,
    "outwear": outwear,
    "pants": pants,
    "shirt": shirt,
    "shoes": shoes,
    "shorts": shorts,
    "skirt": skirt,
    "t-shirt": t_shirt,
}
SKINS = (
    (0.93, 0.9, 0.86),
    (0.62, 0.6, 0.58),
    (0.85, 0.67, 0.53),
    (0.55, 0.38, 0.28),
    (0.25, 0.24, 0.24),
)
PAINTS = {
    "pale": (0.93, 0.92, 0.88),
    "dark": (0.13, 0.12, 0.12),
    "metal": (0.72, 0.72, 0.75),
    "wood": (0.7, 0.52, 0.34),
}


def palette(rng: Generator, canvas: Canvas, base: np.ndarray) -> dict[str, np.ndarray]:
    """What each kind of mark is painted with; the cloth stands out from base, the ground's colour.

    Each is a colour (3,), or one for each pixel (H, W, 3).
    """
    main = apart(rng, [base], 0.33)
    second = apart(rng, [main], 0.2)
    trim = apart(rng, [main], 0.3)
    cloth = fabric(rng, *canvas.coordinates(), main, second)
    plain = {name: np.array(value, dtype=np.float32) for name, value in PAINTS.items()}
    plain |= {
        "trim": trim,
        "accent": apart(rng, [main, trim], 0.15),
        "lining": apart(rng, [main], 0.2),
        "button": apart(rng, [main], 0.35),
        "skin": np.array(SKINS[rng.integers(len(SKINS))], dtype=np.float32),
    }
    return plain | {
        "fabric": cloth,
        "rib": cloth * 0.84,
        "inside": cloth * 0.45,
        "collar": cloth * 1.08,
    }


def creases(rng: Generator, shape: tuple[int, int], towards: np.ndarray) -> np.ndarray:
    """The light on crumpled cloth, about 1: soft hollows and a few sharp folds."""
    height = (
        0.5 * cloud(rng, shape, 4)
        - 0.5 * np.abs(cloud(rng, shape, 6))
        - 0.25 * np.abs(cloud(rng, shape, 11))
    )
    slope = np.gradient(height, axis=1) * towards[0] + np.gradient(height, axis=0) * towards[1]
    return np.clip(1 + rng.uniform(0.6, 1.5) * slope, 0.75, 1.25).astype(np.float32)


def camera(rng: Generator, pixels: np.ndarray, towards: np.ndarray) -> Image.Image:
    """Uneven light, a warm or cold cast, some blur, and sensor noise."""
    height, width = pixels.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = (
        1
        - rng.uniform(0, 0.16) * (x * towards[0] + y * towards[1])
        - rng.uniform(0, 0.08) * (x * x + y * y)
    )
    cast = (1 + rng.normal(0, 0.025, 3)) * rng.uniform(0.92, 1.06)
    pixels = np.clip(pixels * light[..., None].astype(np.float32) * cast.astype(np.float32), 0, 1)
    sharp = Image.fromarray((255 * pixels).astype(np.uint8))
    image = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 5))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def draw_picture(rng: Generator, garment: str) -> Image.Image:
    """A picture of the garment, 224 to 288 pixels on its longer side."""
    longer = int(rng.integers(224, 289))
    ratio = rng.uniform(0.8, 1)
    size = (
        (longer, round(longer * ratio)) if rng.random() < 0.3 else (round(longer * ratio), longer)
    )
    way = str(rng.choice(["flat", "flat", "flat", "hung", "hung", "worn"]))
    pixels, base = ground(rng, size[::-1])
    towards = rng.normal(0, 1, 2)  # away from the light, the same for relief, shadow and camera
    towards /= np.hypot(*towards)
    marks = GARMENTS[garment](rng, way)
    canvas = Canvas(pixels, pose(rng, marks, size), creases(rng, size[::-1], towards))
    canvas.shadow(marks, towards * rng.uniform(3, 9), rng.uniform(0.2, 0.5))
    paints = palette(rng, canvas, base)
    for mark in marks:
        canvas.paint(mark, paints)
    return camera(rng, canvas.pixels, towards)
