"""The network that training starts from: pretrained, from an own checkpoint, or untrained."""

import pickle
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from helpers import config, networks
from helpers.files import digest_of
from helpers.model import read_checkpoint
from helpers.networks import NETWORKS, Network


def build(arch: str, n_classes: int, weights: str = "none") -> nn.Module:
    """A network of `networks.NETWORKS` with `n_classes` outputs.

    weights: "imagenet" (pretrained), "none" (random), or the path of a checkpoint (.pt), from the
    project's root if it is relative; its last layer is left out where its classes are others.
    Raises ValueError, ConnectionError.
    """
    network = networks.known(arch)
    if weights == "imagenet":
        net = _with_packaged(arch, network) if network.package else _downloaded(arch)
        return networks.with_outputs(net, n_classes)
    net = networks.construct(arch, n_classes)
    if weights.endswith(".pt"):
        # from the project's root, wherever the notebook's kernel runs
        _load_matching(
            net, read_checkpoint(config.PROJECT_ROOT / weights)["state_dict"], arch, weights
        )
    elif weights != "none":
        raise ValueError(
            f'weights is {weights!r}. Use "imagenet", "none", or the path of a checkpoint (.pt).'
        )
    return net


def _load_matching(net: nn.Module, state: dict, arch: str, source: str) -> None:
    """All weights but those of another shape, which is the head where the classes differ."""
    own = net.state_dict()
    fitting = {
        name: value.float()
        for name, value in state.items()
        if name in own and own[name].shape == value.shape
    }
    if len(fitting) < len(own) - 2:
        raise ValueError(f"weights {source} do not fit {arch}. Name a checkpoint of the same arch.")
    net.load_state_dict(fitting, strict=False)


def _with_packaged(arch: str, network: Network) -> nn.Module:
    """The network with its installed weights: both list the same layers in the same order.

    Raises ValueError where the file is not the expected one.
    """
    net = networks.construct(arch, 1000)
    names = [name for name in net.state_dict() if "num_batches_tracked" not in name]
    values = [
        value for name, value in _packaged(network).items() if "num_batches_tracked" not in name
    ]
    net.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return net


def _packaged(network: Network) -> dict[str, Tensor]:
    """Weights by name from an installed package, whose code does not run."""
    spec = find_spec(network.package)  # finds it without running it
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"Package {network.package}, which holds these weights, is not installed. "
            'Run make setup, or use weights = "none".'
        )
    (file,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    if digest_of(file) != network.digest:
        raise ValueError(
            f"{file} has the SHA-256 {digest_of(file)}, not {network.digest}: "
            "it is not what was tested. "
            f"Install {network.package} anew: remove .venv, then make setup."
        )
    return torch.load(file, "cpu", weights_only=True)


def _downloaded(arch: str) -> nn.Module:
    try:
        return torchvision.models.get_model(arch, weights="DEFAULT")
    except (OSError, pickle.UnpicklingError) as error:
        offline = (repr(name) for name, network in NETWORKS.items() if network.package)
        raise ConnectionError(
            f"The ImageNet weights of {arch} could not be downloaded ({error}). Without "
            f"internet use arch = {' or '.join(offline)}, whose weights are "
            'installed, or weights = "none".'
        ) from None
