import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.images import MIN_SIDE, ImageError, UrlExpired, decode, evaluation_transform, shrink

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def encoded(mode: str, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if mode == "I;16":
        image = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)
    (image if mode == "I;16" else image.convert(mode)).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode, format",
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"),
     ("RGB", "WEBP"), ("RGB", "GIF"), ("RGB", "BMP")],
)  # fmt: skip
def test_every_kind_of_image_comes_out_as_rgb(mode, format):
    data = encoded(mode, format)
    image = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert image.dtype == torch.uint8 and image.shape == (3, 40, 30)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 1


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = decode(encoded("I;16", "PNG"))
    assert grey.dtype == torch.uint8
    assert np.abs(grey[0].numpy().astype(int) - PIXELS[:, :, 0]).max() <= 1


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    assert decode(encoded("RGB", "JPEG", exif=exif)).shape == (3, 30, 40)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "not a readable image"),
        (b"just text", "not a readable image"),
        (encoded("RGB", "JPEG")[:300], "not a readable image"),
        (encoded("RGB", "JPEG")[:-100], "JPEG image cannot be decoded"),
        (encoded("RGB", "PNG")[:900], "PNG image cannot be decoded"),
    ],
)
def test_broken_images_are_refused_with_a_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_size_limits_name_the_limit():
    with pytest.raises(ImageError, match="over the limit of 1000 pixels"):
        decode(encoded("RGB", "JPEG"), max_pixels=1000)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    with pytest.raises(ImageError, match=f"least side of {MIN_SIDE}"):
        decode(buffer.getvalue())


def test_evaluation_sees_the_centre_or_the_whole():
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, 20:60] = 200
    assert evaluation_transform(image, 16).shape == (3, 16, 16)
    assert evaluation_transform(image, 16).min() == 200
    whole = evaluation_transform(image, 16, "whole")
    assert whole[0, 0, 0] == 0 and whole[0, 0, 8] == 200


def test_shrink_bounds_extreme_shapes():
    assert shrink(torch.zeros(3, 10, 10_000, dtype=torch.uint8), 64).shape == (3, 10, 20)
    assert shrink(torch.zeros(3, 300, 400, dtype=torch.uint8), 150).shape == (3, 150, 200)
    assert shrink(torch.zeros(3, 30, 40, dtype=torch.uint8), 150).shape == (3, 30, 40)


def test_errors_cross_processes_whole():
    error = pickle.loads(pickle.dumps(UrlExpired("refused", 3)))
    assert (type(error), error.reason, error.attempts) == (UrlExpired, "refused", 3)


def test_importing_does_no_work():
    """No network or connector code comes with the decoder."""
    code = "import sys, json, helpers.images; print(json.dumps([m in sys.modules for m in ('urllib3', 'snowflake')]))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", code])) == [False, False]
