"""What pretraining is worth: the same small classifier on frozen features, with and without it."""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from helpers import networks
from helpers.model import Classifier, ModelCard, build
from helpers.training.dataset import LabelledImages
from helpers.training.loop import Parameters, split
from helpers.training.validation import logits_of

PER_CLASS = (10, 30)  # images; besides all
AT_MOST = 1000  # images looked at, so that it takes seconds


def worth_of_pretraining(data: LabelledImages, parameters: Parameters) -> pd.DataFrame:
    """Accuracy on held-back images of a linear classifier on a frozen network's features.

    A row for each number of training images a class, a column for the pretrained and one for the
    untrained network. At most AT_MOST images are looked at.
    """
    share = min(1.0, AT_MOST / len(data))
    training, validation = split(
        data.labels, parameters.validation_share or 0.2, parameters.seed, share
    )
    columns = {}
    for name, weights in (("pretrained", "imagenet"), ("untrained", "none")):
        torch.manual_seed(parameters.seed)
        features, labels = _features(data, training, parameters, weights)
        judged, truth = _features(data, validation, parameters, weights)
        accuracies = {}
        for n in (*PER_CLASS, len(training)):
            chosen = _first_of_each_class(labels, n)
            classifier = LogisticRegression(max_iter=1000)
            classifier.fit(features[chosen], labels[chosen])
            said = str(n) if n in PER_CLASS else f"all {len(training)}"
            accuracies[said] = float((classifier.predict(judged) == truth).mean())
        columns[name] = accuracies
    return pd.DataFrame(columns).rename_axis("images a class")


def _features(
    data: LabelledImages, indices: list[int], parameters: Parameters, weights: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) that go into the network's last layer, and labels (N,)."""
    network = networks.known(parameters.arch)
    net = build(parameters.arch, len(data.classes), weights)
    collected: list[Tensor] = []
    networks.head_of(net).register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0]))
    card = ModelCard(
        arch=parameters.arch,
        classes=data.classes,
        image_size=parameters.image_size,
        data_set="",
        data_digest="",
        mean=list(network.mean),
        std=list(network.std),
    )
    _, labels = logits_of(Classifier(net, card), data, indices)
    features = nn.functional.layer_norm(torch.cat(collected), collected[0].shape[1:])
    return features.numpy(), labels.numpy()


def _first_of_each_class(labels: np.ndarray, n: int) -> np.ndarray:
    """Indices of at most n images of each class."""
    chosen = [np.flatnonzero(labels == label)[:n] for label in np.unique(labels)]
    return np.concatenate(chosen)
