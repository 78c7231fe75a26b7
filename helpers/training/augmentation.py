"""Random changes to training images, which a resumed run repeats."""

import math

from torch import Generator, Tensor, rand
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


def random_crop(image: Tensor, size: int, scale: float, generator: Generator) -> Tensor:
    """(3, size, size) uint8: a crop of `scale` to 1 of the area, maybe mirrored.

    The crop's sides are in a ratio of 3/4 to 4/3. torchvision's RandomResizedCrop takes no
    generator, and crops are made by several threads at once.
    """
    height, width = image.shape[-2:]
    area, log_ratio, top, left, flip = rand(5, generator=generator).tolist()
    area = height * width * (scale + (1 - scale) * area)
    ratio = math.exp((2 * log_ratio - 1) * math.log(4 / 3))
    crop_height = min(height, round(math.sqrt(area / ratio)))
    crop_width = min(width, round(math.sqrt(area * ratio)))
    crop = F.resized_crop(
        image,
        top=round(top * (height - crop_height)),
        left=round(left * (width - crop_width)),
        height=crop_height,
        width=crop_width,
        size=[size, size],
        antialias=True,
    )
    return crop.flip(-1) if flip < 0.5 else crop


def recolour(images: Tensor, strength: float) -> Tensor:
    """(B, 3, H, W) uint8 images in another brightness, contrast and saturation.

    strength: 0 changes nothing. Draws from torch's own random numbers, once for the batch.
    """
    return v2.ColorJitter(*[min(1.0, strength)] * 3)(images)


def mix(images: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with another: MixUp or CutMix, half the batches each.

    Returns images and (B, n_classes) float32 targets. Draws from torch's own random numbers.
    Sources: Zhang et al. 2018 (MixUp, alpha 0.2), Yun et al. 2019 (CutMix, alpha 1).
    """
    return v2.RandomChoice(
        [v2.MixUp(alpha=0.2, num_classes=n_classes), v2.CutMix(num_classes=n_classes)]
    )(images, labels)
