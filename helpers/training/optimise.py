"""What the optimizer moves, and how fast: frozen early layers, a faster head, a running average."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helpers.networks import head_of

EARLY = 0.3  # share of a pretrained network's layers, from its beginning, that stay as they are
HEAD_FASTER = 7.0  # times the learning rate of pretrained layers that the new last layer gets


def freeze_early(net: nn.Module) -> list[nn.Module]:
    """Keep the early layers of a pretrained network as they are; returns its frozen parts.

    They see edges and textures, which are alike in all photographs, and their maps are the largest:
    they take half of the time to train. The parts that are returned belong into evaluation mode, so
    that their statistics stay as well.
    """
    parameters = list(net.parameters())
    for parameter in parameters[: round(EARLY * len(parameters))]:
        parameter.requires_grad_(False)
    return [module for module in net.modules() if _is_frozen(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def parameter_groups(net: nn.Module, lr: float, head_lr: float, weight_decay: float) -> list[dict]:
    """The parameters to train: the head at `head_lr`, the rest at `lr`.

    Weight decay is for matrices and kernels only: it does biases and normalisation no good.
    """
    head = {id(parameter) for parameter in head_of(net)[1].parameters()}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in net.parameters():
        if parameter.requires_grad:
            rate = head_lr if id(parameter) in head else lr
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": chosen, "lr": rate, "weight_decay": decay}
        for (rate, decay), chosen in groups.items()
    ]


def running_average(decay: float) -> Callable[..., None]:
    """For AveragedModel: a mean over about 1 / (1 - decay) steps, over fewer at the start.

    torch's own (get_ema_multi_avg_fn) has no such start, and would remember the untrained weights.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        steps = int(count)
        weight = min(decay, (1 + steps) / (10 + steps))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - weight)
            else:
                mean.copy_(value)

    return update
