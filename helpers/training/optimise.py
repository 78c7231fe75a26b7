"""Parts of the optimiser."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and kernels only: it does biases and normalisation no good."""
    large = [p for p in model.parameters() if p.ndim > 1]
    small = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": large, "weight_decay": weight_decay}, {"params": small}]


def running_average(decay: float) -> Callable:
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        weight = min(decay, (1 + int(count)) / (10 + int(count)))
        for a, c in zip(averaged, current):
            a.lerp_(c, 1 - weight) if a.is_floating_point() else a.copy_(c)

    return update


@contextmanager
def uphill(model: nn.Module, radius: float) -> Iterator[None]:
    """The weights moved `radius` along their gradients, and back: the gradient of there favours flat minima.

    Source: Foret et al. 2021, Sharpness-Aware Minimization. Running statistics stay those of the weights themselves.
    """
    weights = [p for p in model.parameters() if p.grad is not None]
    length = torch.stack([p.grad.norm() for p in weights]).norm() + 1e-12
    before = [p.detach().clone() for p in weights]
    normalised = [
        module for module in model.modules() if getattr(module, "track_running_stats", False)
    ]
    with torch.no_grad():
        for p in weights:
            p.add_(p.grad, alpha=float(radius / length))
    for module in normalised:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in normalised:
            module.track_running_stats = True
        with torch.no_grad():
            for p, value in zip(weights, before):
                p.copy_(value)
