"""Grad-CAM: which places of a picture spoke for a class, as heat, and laid over the picture."""

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib import colormaps
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, rgb_to_grayscale

from helpers.images import evaluation_transform
from helpers.model import Classifier

SIDE = 224  # pixels of an overlay


def grad_cam(model: Classifier, image: Tensor, class_name: str) -> Tensor:
    """(S, S) heat in [0, 1] on model.prepare(image): what speaks for the class.

    Selvaraju et al. 2017.
    """
    x = model.normalise(model.prepare(image)[None].to(model.mean.device))  # (1, 3, S, S)
    layer = LayerGradCam(model.net, last_map(model.net, x))
    heat = layer.attribute(x, model.card.classes.index(class_name), relu_attributions=True)
    heat = LayerAttribution.interpolate(heat.detach(), x.shape[-2:], "bilinear")  # (1, 1, S, S)
    heat = heat[0, 0].cpu()
    return heat / heat.max().clamp(min=1e-9)


@torch.no_grad()
def last_map(net: nn.Module, x: Tensor) -> nn.Module:
    """The last part of the network whose output still has height and width."""
    found = []

    def note(module: nn.Module, _, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    net(x)
    for hook in hooks:
        hook.remove()
    return found[-1]


def overlay(model: Classifier, image: Tensor, class_name: str) -> np.ndarray:
    """The grey picture as the model sees it, brighter and yellower where it looked.

    (SIDE, SIDE, 3) uint8.
    """
    heat = resize(grad_cam(model, image, class_name)[None], [SIDE, SIDE])[0].numpy()
    grey = rgb_to_grayscale(evaluation_transform(image, SIDE, model.card.view))[0].numpy() / 255
    colours = colormaps["cividis"](heat)[:, :, :3]  # without the opacity
    return (255 * (0.45 * grey[:, :, None] + 0.55 * colours)).astype(np.uint8)
