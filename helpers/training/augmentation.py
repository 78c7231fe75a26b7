"""Random changes to training images, each a pure function of its generator, so that a resumed run repeats them."""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot
from torchvision.transforms.v2 import functional as F

GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601


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
    """Rotated, sheared, recoloured, partly erased (B, 3, H, W) float images in [0, 255]; strength 0 changes nothing."""
    if strength == 0:
        return images
    images = _warp(images, strength, generator)
    images = _recolour(images, strength, generator).clamp_(0, 255)
    return _erase(images, strength, generator)


def _uniform(shape: tuple, reach: float, generator: Generator) -> Tensor:
    """Values in [-reach, reach]."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * reach


def _warp(images: Tensor, strength: float, generator: Generator) -> Tensor:
    n = len(images)
    angle = _uniform((n,), math.radians(25) * strength, generator)
    shear, dx, dy = (_uniform((n,), reach * strength, generator) for reach in (0.2, 0.1, 0.1))
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin + shear, dx], 1), torch.stack([sin, cos, dy], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False).to(images)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and tint are all linear in the colour: one matrix and offset an image."""
    n = len(images)
    brightness, contrast, saturation = (
        _uniform((n, 1, 1), r * strength, generator) for r in (0.4, 0.4, 0.6)
    )
    gain = 1 + brightness + _uniform((n, 3, 1), 0.15 * strength, generator)
    matrix = (
        gain * (1 + contrast) * ((1 + saturation) * torch.eye(3) - saturation * GREY.expand(3, 3))
    )
    mean = (
        images[:, :, ::4, ::4].mean((2, 3)).cpu() @ GREY
    )  # every fourth pixel tells the mean well enough
    offset = -gain * contrast * mean[:, None, None]
    flat = torch.baddbmm(offset.to(images), matrix.to(images), images.flatten(2))
    return flat.view_as(images)


def _erase(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """A rectangle of its mean colour over at most 9 % of a third of the images (of all at strength 3)."""
    chosen = (
        (torch.rand(len(images), generator=generator) < strength / 3).nonzero().flatten().tolist()
    )
    for i, (share, top, left) in zip(
        chosen, torch.rand(len(chosen), 3, generator=generator).tolist()
    ):
        rows, columns = _box(images.shape[-2:], 0.3 * share, top, left)
        images[i, :, rows, columns] = images[i].mean((1, 2), keepdim=True)
    return images


def _box(shape: tuple, side: float, top: float, left: float) -> tuple[slice, slice]:
    """Rows and columns of a rectangle with `side` (0 to 1) of the height and width; top and left place it inside."""
    height, width = shape
    h, w = round(side * height), round(side * width)
    y, x = round(top * (height - h)), round(left * (width - w))
    return slice(y, y + h), slice(x, x + w)


def mix(
    images: Tensor, labels: Tensor, n_classes: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Each image mixed with another: MixUp or CutMix, half the batches each. Targets are (B, n_classes) float32.

    Sources: Zhang et al. 2018 (MixUp, alpha 0.2), Yun et al. 2019 (CutMix, alpha 1).
    """
    targets = one_hot(labels, n_classes).float()
    order = torch.randperm(len(images), generator=generator).to(images.device)
    kind, area, top, left = torch.rand(4, generator=generator).tolist()
    if kind < 0.5:
        share = _beta(0.2, generator)
        mixed = torch.lerp(images[order], images, share)
    else:
        rows, columns = _box(images.shape[-2:], math.sqrt(area), top, left)
        mixed = images.clone()
        mixed[:, :, rows, columns] = images[order][:, :, rows, columns]
        height, width = images.shape[-2:]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, torch.lerp(targets[order], targets, share)


def _beta(alpha: float, generator: Generator) -> float:
    """A draw of Beta(alpha, alpha) by the quotient of two powers (Joehnk 1964)."""
    while True:
        x, y = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
