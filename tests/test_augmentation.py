import pytest
import torch

from helpers.training.augmentation import GREY, _recolour, distort, mix, random_crop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(6, 3, 32, 32, generator=generator()) * 255


def test_crop_has_its_size_and_repeats_with_its_generator():
    image = torch.randint(0, 255, (3, 50, 70), dtype=torch.uint8, generator=generator())
    first, again, other = (random_crop(image, 24, 0.3, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, 24, 24) and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_crop_of_the_whole_keeps_the_whole():
    image = torch.arange(16).repeat(16, 1).expand(3, 16, 16).to(torch.uint8)
    crops = [random_crop(image, 16, 1.0, generator(seed)) for seed in range(20)]
    widths = [(crop[0, 0].max() - crop[0, 0].min()).item() for crop in crops]
    assert min(widths) >= 11  # at a ratio of 3/4 the height is whole and the width three quarters
    mirrored = [bool(crop[0, 0, 0] > crop[0, 0, -1]) for crop in crops]
    assert 4 <= sum(mirrored) <= 16


def test_strength_nought_changes_nothing():
    assert torch.equal(distort(IMAGES, 0, generator()), IMAGES)


def test_distort_stays_in_range_and_repeats():
    first, again, other = (distort(IMAGES, 1.0, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == IMAGES.shape and first.min() >= 0 and first.max() <= 255
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_recolour_is_the_same_colour_change_over_one_image():
    flat = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    changed = _recolour(flat, 1.0, generator())
    assert changed.std((2, 3)).max() < 1e-3  # a plain image stays plain
    assert (
        len({tuple(colour.round().tolist()) for colour in changed[:, :, 0, 0]}) == 4
    )  # each its own


def test_recolour_without_strength_is_identity():
    assert torch.allclose(_recolour(IMAGES, 0.0, generator()), IMAGES, atol=1e-3)
    assert GREY.sum() == pytest.approx(1)


def test_mixed_targets_follow_the_mixed_pixels():
    """Images that are plain pictures of their own class tell how much of each class is in the mixture."""
    labels = torch.tensor([0, 1, 2, 3])
    images = torch.zeros(4, 3, 20, 20)
    for seed in range(12):
        plain = images + labels.view(4, 1, 1, 1)
        mixed, targets = mix(plain, labels, 4, generator(seed))
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-4)


def test_mixing_is_both_kinds():
    plain = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 20, 20)
    kinds = {
        len(mix(plain, torch.arange(4), 4, generator(seed))[0][0].unique()) > 1
        for seed in range(20)
    }
    assert kinds == {True, False}  # CutMix leaves two values in an image, MixUp one
