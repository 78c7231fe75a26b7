"""Random changes to training images, each a pure function of its generator, so that a resumed run repeats them."""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot
from torchvision.transforms.v2 import functional as F

GREY = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def random_crop(image: Tensor, size: int, scale: float, generator: Generator) -> Tensor:
    """(3, size, size) uint8: a crop of `scale` to 1 of the area, its sides in a ratio of 3/4 to 4/3, maybe mirrored."""
    height, width = image.shape[-2:]
    area, log_ratio, top, left, flip = torch.rand(5, generator=generator).tolist()
    area = height * width * (scale + (1 - scale) * area)
    ratio = math.exp((2 * log_ratio - 1) * math.log(4 / 3))
    h, w = min(height, round(math.sqrt(area / ratio))), min(width, round(math.sqrt(area * ratio)))
    box = [round(top * (height - h)), round(left * (width - w)), h, w]
    image = F.resized_crop(image, *box, [size, size], antialias=True)
    return image.flip(-1) if flip < 0.5 else image


def distort(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Rotated, sheared, recoloured, partly erased (B, 3, H, W) images in [0, 1]; strength 0 changes nothing."""
    if strength == 0:
        return images
    return _erase(_recolour(_warp(images, strength, generator), strength, generator), strength, generator).clamp(0, 1)


def _uniform(images: Tensor, reach: float, generator: Generator) -> Tensor:
    """(B, 1, 1, 1) values in [-reach, reach]."""
    return (torch.rand(len(images), 1, 1, 1, generator=generator) * 2 - 1).mul(reach).to(images.device)


def _warp(images: Tensor, strength: float, generator: Generator) -> Tensor:
    angle, shear, dx, dy = (
        _uniform(images, r * strength, generator).view(-1) for r in (math.radians(25), 0.2, 0.1, 0.1)
    )
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin + shear, dx], 1), torch.stack([sin, cos, dy], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, strength: float, generator: Generator) -> Tensor:
    brightness, contrast, saturation = (_uniform(images, r * strength, generator) for r in (0.4, 0.4, 0.6))
    tint = (torch.rand(len(images), 3, 1, 1, generator=generator) * 2 - 1).mul(0.15 * strength).to(images.device)
    grey = (images * GREY.to(images.device)).sum(1, keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = grey.mean((2, 3), keepdim=True)
    return (mean + (images - mean) * (1 + contrast)) * (1 + brightness + tint)


def _erase(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """A grey rectangle over at most 9 % of a third of the images (all at strength 3)."""
    mask = _boxes(images, torch.rand(len(images), generator=generator) * 0.3, generator)
    chosen = (torch.rand(len(images), 1, 1, 1, generator=generator) < strength / 3).to(images.device)
    return torch.where(mask & chosen, images.mean((2, 3), keepdim=True), images)


def _boxes(images: Tensor, side: Tensor, generator: Generator) -> Tensor:
    """(B, 1, H, W) bool: one rectangle an image, `side` (B,) of the height and width, wholly inside."""
    height, width = images.shape[-2:]
    top, left = torch.rand(2, len(images), generator=generator) * (1 - side)
    y, x = torch.arange(height) / height, torch.arange(width) / width
    rows = (y >= top[:, None]) & (y < (top + side)[:, None])
    columns = (x >= left[:, None]) & (x < (left + side)[:, None])
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)


def mix(images: Tensor, labels: Tensor, n_classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each image mixed with another: MixUp or CutMix, half the batches each. Targets are (B, n_classes) float32.

    Sources: Zhang et al. 2018 (MixUp, alpha 0.2), Yun et al. 2019 (CutMix, alpha 1).
    """
    targets = one_hot(labels, n_classes).float()
    order = torch.randperm(len(images), generator=generator).to(images.device)
    share, kind = torch.rand(2, generator=generator).tolist()
    if kind < 0.5:
        # Beta(0.2, 0.2) by the quotient of two powers (Joehnk 1964), redrawn until it is defined
        share = _beta(0.2, generator)
        mixed = images * share + images[order] * (1 - share)
    else:
        side = torch.full((len(images),), math.sqrt(1 - share))
        mask = _boxes(images, side, generator)
        mixed = torch.where(mask, images[order], images)
        kept = 1 - mask.float().mean((1, 2, 3))
        return mixed, targets * kept[:, None] + targets[order] * (1 - kept[:, None])
    return mixed, targets * share + targets[order] * (1 - share)


def _beta(alpha: float, generator: Generator) -> float:
    while True:
        x, y = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
