import torch

from helpers.training.augmentation import mix, random_crop, recolour


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator())


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


def test_recolour_without_strength_is_identity():
    assert torch.equal(recolour(IMAGES, 0), IMAGES)


def test_recolour_keeps_type_and_shape_and_repeats_with_the_seed():
    changed = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        changed.append(recolour(IMAGES, 1.0))
    assert changed[0].shape == IMAGES.shape and changed[0].dtype == torch.uint8
    assert torch.equal(changed[0], changed[1]) and not torch.equal(changed[0], changed[2])


def test_recolour_is_the_same_colour_change_over_one_image():
    flat = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    torch.manual_seed(0)
    assert recolour(flat, 1.0).float().std((2, 3)).max() < 1e-3  # a plain image stays plain


def test_mixed_targets_follow_the_mixed_pixels():
    """Plain pictures of their own class tell how much of each class is in the mixture."""
    labels = torch.tensor([0, 1, 2, 3])
    plain = torch.zeros(4, 3, 20, 20) + labels.view(4, 1, 1, 1)
    for seed in range(12):
        torch.manual_seed(seed)
        mixed, targets = mix(plain, labels, 4)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-4)


def test_mixing_is_both_kinds():
    plain = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 20, 20)
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        kinds.add(len(mix(plain, torch.arange(4), 4)[0][0].unique()) > 1)
    assert kinds == {True, False}  # CutMix leaves two values in an image, MixUp one
