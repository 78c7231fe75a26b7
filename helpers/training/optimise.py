"""What the optimizer moves, and how fast: frozen early layers, a faster head, a running average."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from helpers.networks import head_of, maps_of

EARLY = 8  # layers whose maps have at least this part of the image's side are early: an eighth
HEAD_FASTER = 7.0  # times the learning rate of pretrained layers that the new last layer gets


def freeze_early(net: nn.Module, image_size: int) -> list[nn.Module]:
    """Keep the early layers of a pretrained network as they are; returns its frozen parts.

    They see edges and textures, which are the same in all photographs, and take half of the time to
    train. The parts that are returned belong into evaluation mode: their statistics stay as well.
    """
    maps = maps_of(net, torch.zeros(1, 3, image_size, image_size))
    early = [module for module, shape in maps if min(shape[-2:]) >= image_size / EARLY]
    seen_early = {id(p) for module in early for p in module.parameters(recurse=False)}
    parameters = list(net.parameters())
    last = max(i for i, parameter in enumerate(parameters) if id(parameter) in seen_early)
    for parameter in parameters[: last + 1]:
        parameter.requires_grad_(False)
    return [module for module in net.modules() if _is_frozen(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def parameter_groups(net: nn.Module, lr: float, head_lr: float, weight_decay: float) -> list[dict]:
    """The parameters to train: the head at `head_lr`, the rest at `lr`.

    Weight decay is for matrices and kernels only: it does biases and normalisation no good.
    """
    head = {id(parameter) for parameter in head_of(net).parameters()}
    groups = []
    for in_head, rate in ((False, lr), (True, head_lr)):
        for is_matrix, decay in ((True, weight_decay), (False, 0.0)):
            chosen = [
                parameter
                for parameter in net.parameters()
                if parameter.requires_grad
                and (id(parameter) in head) == in_head
                and (parameter.ndim > 1) == is_matrix
            ]
            groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


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
