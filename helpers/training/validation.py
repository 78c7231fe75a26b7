"""Validation."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from helpers.model import Classifier
from helpers.training.dataset import LabelledImages


@torch.inference_mode()
def logits_of(model: Classifier, data: LabelledImages, indices: list[int], batch_size: int = 64):
    """Logits (N, n_classes) and labels (N,) of the images that can be read, on the CPU."""
    device, results, model = next(model.parameters()).device, [], model.eval()
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    load = lambda batch: data.map(lambda index: model.prepare(data.load(index)), batch)  # noqa: E731
    for items in prefetched(batches, load):
        if items:
            logits = model(torch.stack([image for _, image in items]).to(device)).cpu()
            results.append((logits, data.labels[[index for index, _ in items]]))
    if not results:
        raise ValueError(
            f"None of {len(indices)} images could be read: {dict(islice(data.broken.items(), 3))}"
        )
    return torch.cat([logits for logits, _ in results]), torch.cat(
        [labels for _, labels in results]
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in [0.1, 10] that makes the probabilities likeliest (Guo et al. 2017).

    As if one image more were wrong (Platt 1999): a few images that are all right do not prove certainty.
    """
    candidates, doubt = torch.logspace(-1, 1, 401, dtype=torch.float64), 1 / (len(labels) + 2)
    losses = [
        cross_entropy(logits.double() / t, labels, label_smoothing=doubt).item() for t in candidates
    ]
    return candidates[losses.index(min(losses))].item()


def prefetched(jobs: Iterable, load: Callable, depth: int = 2) -> Iterator:
    """load(job) of each job in order, the next `depth` running in a thread while the caller computes."""
    jobs = iter(jobs)
    with ThreadPoolExecutor(1, "prefetch") as pool:
        waiting = deque(pool.submit(load, job) for job in islice(jobs, depth))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(load, job) for job in islice(jobs, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
