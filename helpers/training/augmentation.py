"""Random changes to training images, each a function of its generator, which can be repeated."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot
from torchvision.transforms.v2 import functional as F

GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601


def random_crop(image: Tensor, size: int, scale: float, generator: Generator) -> Tensor:
    """(3, size, size) uint8: a crop of `scale` to 1 of the area, maybe mirrored.

    The crop's sides are in a ratio of 3/4 to 4/3.
    """
    height, width = image.shape[-2:]
    area, log_ratio, top, left, flip = torch.rand(5, generator=generator).tolist()
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


def distort(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """(B, 3, H, W) float images in [0, 255], rotated, sheared, recoloured and partly erased.

    strength: 0 changes nothing.
    """
    if strength == 0:
        return images
    images = _warp(images, strength, generator)
    images = _recolour(images, strength, generator).clamp_(0, 255)
    return _erase(images, strength, generator)


def _uniform(shape: tuple[int, ...], reach: float, generator: Generator) -> Tensor:
    """Values in [-reach, reach]."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * reach


def _warp(images: Tensor, strength: float, generator: Generator) -> Tensor:
    n = len(images)
    angle = _uniform((n,), math.radians(25) * strength, generator)
    shear = _uniform((n,), 0.2 * strength, generator)
    dx = _uniform((n,), 0.1 * strength, generator)
    dy = _uniform((n,), 0.1 * strength, generator)
    x_row = torch.stack([angle.cos(), -angle.sin() + shear, dx], 1)  # (B, 3)
    y_row = torch.stack([angle.sin(), angle.cos(), dy], 1)
    matrices = torch.stack([x_row, y_row], 1)  # (B, 2, 3)
    grid = affine_grid(matrices, list(images.shape), align_corners=False).to(images)  # (B, H, W, 2)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Another brightness, contrast, saturation and tint for each image.

    All are linear in the colour: one matrix (B, 3, 3) and one offset (B, 3, 1).
    """
    n = len(images)
    brightness = _uniform((n, 1, 1), 0.4 * strength, generator)
    contrast = _uniform((n, 1, 1), 0.4 * strength, generator)
    saturation = _uniform((n, 1, 1), 0.6 * strength, generator)
    gain = 1 + brightness + _uniform((n, 3, 1), 0.15 * strength, generator)
    towards_grey = (1 + saturation) * torch.eye(3) - saturation * GREY.expand(3, 3)
    matrix = gain * (1 + contrast) * towards_grey
    thinned = images[:, :, ::4, ::4]  # every fourth pixel tells the mean well enough
    mean = thinned.mean((2, 3)).cpu() @ GREY  # (B,)
    offset = -gain * contrast * mean[:, None, None]
    flat = torch.baddbmm(offset.to(images), matrix.to(images), images.flatten(2))  # (B, 3, H * W)
    return flat.view_as(images)


def _erase(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """A rectangle of its mean colour on a third of the images (on all at strength 3).

    It covers at most 9 % of the image.
    """
    is_chosen = torch.rand(len(images), generator=generator) < strength / 3
    chosen = is_chosen.nonzero().flatten().tolist()
    places = torch.rand(len(chosen), 3, generator=generator).tolist()
    for i, (share, top, left) in zip(chosen, places, strict=True):
        rows, columns = _box(images.shape[-2:], 0.3 * share, top, left)
        images[i, :, rows, columns] = images[i].mean((1, 2), keepdim=True)
    return images


def _box(shape: Sequence[int], side: float, top: float, left: float) -> tuple[slice, slice]:
    """Rows and columns of a rectangle with `side` (0 to 1) of the height and width.

    top and left, from 0 to 1, place it inside.

    >>> _box((10, 20), side=0.5, top=1, left=0)
    (slice(5, 10, None), slice(0, 10, None))
    """
    height, width = shape
    box_height = round(side * height)
    box_width = round(side * width)
    first_row = round(top * (height - box_height))
    first_column = round(left * (width - box_width))
    rows = slice(first_row, first_row + box_height)
    columns = slice(first_column, first_column + box_width)
    return rows, columns


def mix(
    images: Tensor, labels: Tensor, n_classes: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Each image mixed with another: MixUp or CutMix, half the batches each.

    Returns images and (B, n_classes) float32 targets. Sources: Zhang et al. 2018 (MixUp, alpha
    0.2), Yun et al. 2019 (CutMix, alpha 1).
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
        cut = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - cut / (height * width)
    return mixed, torch.lerp(targets[order], targets, share)


def _beta(alpha: float, generator: Generator) -> float:
    """A draw of Beta(alpha, alpha) by the quotient of two powers (Joehnk 1964)."""
    while True:
        draws = torch.rand(2, generator=generator, dtype=torch.float64)
        x, y = (draws ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
