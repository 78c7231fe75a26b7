"""What the optimizer moves, and how fast: frozen early layers and a faster head."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers.networks import head_of

EARLY = 0.3  # share of a pretrained network's layers, from its beginning, that stay as they are
CPU_INFO = Path("/proc/cpuinfo")  # on Linux
HEAD_FASTER = 7.0  # times the learning rate of pretrained layers that the new last layer gets


def freeze_early(net: nn.Module) -> list[nn.Module]:
    """Keep the early layers of a pretrained network; returns their normalisation layers.

    They see edges and textures, which are alike in all photographs, and their maps are the largest:
    they take half of the time to train. What is returned belongs into evaluation mode, so that its
    running statistics stay as well.
    """
    parameters = list(net.parameters())
    for parameter in parameters[: round(EARLY * len(parameters))]:
        parameter.requires_grad_(False)
    return [
        part
        for part in net.modules()
        if isinstance(part, _BatchNorm) and not part.bias.requires_grad
    ]


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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, which trains about twice as fast as float32.

    Intel's processors have avx512_bf16 too, but do no more of it at a time than of float32: there
    it takes AMX.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = CPU_INFO.read_text() if device.type == "cpu" and CPU_INFO.exists() else ""
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in flags)
