"""Tiny labelled images for tests: each class has a colour of its own, which is soon learnt."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"hat": (200, 40, 40), "shirt": (40, 200, 40), "t-shirt": (40, 40, 200)}


def draw_folder(folder: Path, n: int = 12, size: int = 40, colours: dict = COLOURS) -> Path:
    """`n` noisy JPEGs of about `size` pixels a class, in folder/<class>/."""
    rng = np.random.default_rng(0)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise = rng.normal(0, 25, (size, size + i % 3, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.jpg", quality=92)
    return folder
