"""Judge a network on images that it was not trained on, while they are read in the background."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from helpers.images import ImageError
from helpers.model import Classifier
from helpers.training.dataset import LabelledImages


def split(
    labels: Tensor, share: float, seed: int, downsample_to: float = 1.0
) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: `share` of each class is held back.

    Each class is thinned to the share `downsample_to` of its images before.

    >>> training, validation = split(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), share=0.25, seed=0)
    >>> len(training), len(validation)
    (6, 2)
    """
    generator = Generator().manual_seed(seed)
    training, validation = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)].tolist()
        members = members[: max(1, round(len(members) * downsample_to))]
        # a class of one image trains
        held = min(max(int(share > 0), round(len(members) * share)), len(members) - 1)
        validation += members[:held]
        training += members[held:]
    return sorted(training), sorted(validation)


@torch.inference_mode()
def logits_of(
    model: Classifier, data: LabelledImages, indices: list[int], batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Logits (N, n_classes) and labels (N,) of the images that can be read, on the CPU.

    Raises ImageError, a ValueError, if none can.
    """
    model.eval()
    logits, labels = [], []
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    for items in prefetched(
        batches, lambda batch: data.map(lambda i: model.prepare(data.load(i)), batch)
    ):
        if items:
            images = torch.stack([image for _, image in items])  # (B, 3, S, S) uint8
            logits.append(model(images.to(model.mean.device)).cpu())
            labels.append(data.labels[[index for index, _ in items]])
    if not logits:
        raise ImageError(
            f"None of {len(indices)} images could be read: {dict(islice(data.broken.items(), 3))}"
        )
    return torch.cat(logits), torch.cat(labels)


def judged(logits: Tensor, labels: Tensor, classes: list[str]) -> dict:
    """How good logits (N, n_classes) are for labels (N,), beside always naming one class."""
    n_most, most_frequent = torch.bincount(labels).max(0)
    return {
        "n": len(labels),
        "accuracy": (logits.argmax(1) == labels).float().mean().item(),
        "loss": cross_entropy(logits, labels).item(),
        "most_frequent": classes[most_frequent],
        "baseline": n_most.item() / len(labels),
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in [0.1, 10] that makes the probabilities likeliest (Guo et al. 2017).

    As if one image more were wrong (Platt 1999): a few images that are all right do not prove
    certainty. logits: (N, n_classes), labels: (N,).

    >>> sure_but_often_wrong = 10 * torch.eye(2)[[0, 0, 0, 1]]
    >>> fit_temperature(sure_but_often_wrong, torch.tensor([0, 0, 1, 1])) > 5
    True
    """
    candidates = torch.logspace(-1, 1, 401, dtype=torch.float64)
    losses = [
        cross_entropy(
            logits.double() / temperature, labels, label_smoothing=1 / (len(labels) + 2)
        ).item()
        for temperature in candidates
    ]
    return candidates[losses.index(min(losses))].item()


def prefetched(jobs: Iterable, load: Callable, depth: int = 2) -> Iterator:
    """load(job) of each job in order; the next `depth` run in a thread while the caller computes.

    >>> list(prefetched([1, 2, 3], lambda job: 10 * job))
    [10, 20, 30]
    """
    jobs = iter(jobs)
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        waiting = deque(pool.submit(load, job) for job in islice(jobs, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(load, job) for job in islice(jobs, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
