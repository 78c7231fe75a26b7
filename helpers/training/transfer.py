"""What pretraining is worth: the same small classifier on frozen features, with and without it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeClassifier
from torch import nn

from helpers import networks
from helpers.training.dataset import LabelledImages
from helpers.training.loop import Parameters, new_classifier
from helpers.training.validation import logits_of, split

AT_MOST = 1000  # images looked at, so that it takes seconds
SIDE = 96  # pixels of them, likewise


def worth_of_pretraining(data: LabelledImages, parameters: Parameters) -> pd.DataFrame:
    """Accuracy on held-back images of a linear classifier on a frozen network's features.

    A row for each number of training images a class, a column for the pretrained and one for the
    untrained network. At most AT_MOST images are looked at, and these are small.
    """
    training, validation = split(
        data.labels, share=0.2, seed=parameters.seed, downsample_to=min(1, AT_MOST / len(data))
    )
    accuracy: dict[str, dict[str, float]] = {}
    for name, weights in (("pretrained", "imagenet"), ("untrained", "none")):
        torch.manual_seed(parameters.seed)
        model = new_classifier(
            data, replace(parameters, weights=weights, image_size=SIDE, flip=False)
        )
        networks.replace_head(model.net, nn.Identity())  # what went into it comes out: features
        features, labels = (part.numpy() for part in logits_of(model, data, training))
        judged, truth = (part.numpy() for part in logits_of(model, data, validation))
        accuracy[name] = {}
        for n, said in ((10, "10"), (30, "30"), (len(labels), f"all {len(labels)}")):
            chosen = np.concatenate([np.flatnonzero(labels == c)[:n] for c in np.unique(labels)])
            ridge = RidgeClassifier().fit(features[chosen], labels[chosen])
            accuracy[name][said] = float(ridge.score(judged, truth))
    return pd.DataFrame(accuracy).rename_axis("images a class")
