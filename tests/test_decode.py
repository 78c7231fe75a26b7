"""What `decode` makes of pictures of any format, depth and state, beside what Pillow shows."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image, ImageOps

from helpers.images import ImageError, decode

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 17, 3), dtype=np.uint8)
# what Pillow can write: JPEG is the one that loses something
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["RGB", "L", "P", "1"],
    "BMP": ["RGB", "L", "P", "1"],
    "TIFF": ["RGB", "RGBA", "CMYK", "L", "LA", "P", "1", "I;16", "I;16B"],
}
KINDS = [(format, mode) for format, modes in MODES.items() for mode in modes]
NONSENSE = [0, 9, 257]


def picture(mode: str) -> Image.Image:
    if mode.startswith("I;16"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        deep = PIXELS[:, :, 0].astype(kind) * 257
        return Image.frombytes(mode, (17, 24), deep.astype(kind).tobytes())
    image = Image.fromarray(PIXELS).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(PIXELS[:, :, 1]))
    return image


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    lossless = {"lossless": True, "exact": True} if format == "WEBP" else {}
    image.save(buffer, format, **lossless, **options)
    return buffer.getvalue()


def reference(data: bytes) -> np.ndarray:
    """(H, W, 3) as Pillow shows the first frame."""
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I;16"):
        deep = np.asarray(ImageOps.exif_transpose(image)) // 257
        return np.repeat(deep[:, :, None], 3, axis=2).astype(int)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


@settings(max_examples=100)
@given(some.sampled_from(KINDS), some.sampled_from([*range(1, 9), *NONSENSE]), some.booleans())
def test_every_picture_comes_out_as_pillow_shows_it(kind, orientation, more):
    format, mode = kind
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(picture(mode), format, exif=exif) + bytes(100) * more
    image = decode(data)
    expected = reference(data)
    assert image.dtype == torch.uint8 and tuple(image.shape[1:]) == expected.shape[:2]
    difference = np.abs(image.permute(1, 2, 0).numpy() - expected)
    assert difference.mean() < 1 if format == "JPEG" else difference.max() <= 1


@settings(max_examples=100)
@given(some.sampled_from(KINDS), some.floats(0, 1), some.integers(0, 255))
def test_a_torn_or_damaged_file_is_an_image_or_an_image_error(kind, place, value):
    format, mode = kind
    data = saved(picture(mode), format)
    at = int(place * (len(data) - 1))
    for damaged in (data[:at], data[:at] + bytes([value]) + data[at + 1 :]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about the damage
            try:
                image = decode(damaged)
            except ImageError as error:
                assert error.reason
            else:
                assert image.dtype == torch.uint8 and image.shape[0] == 3


def deep_png(mode: str) -> tuple[bytes, np.ndarray]:
    """A PNG of 16 bits a channel, which Pillow cannot write, and its 8-bit pixels (H, W, C)."""
    import struct
    import zlib

    colour_type, n_channels = {"L": (0, 1), "RGB": (2, 3), "LA": (4, 2), "RGBA": (6, 4)}[mode]
    shallow = np.random.default_rng(1).integers(0, 255, (8, 8, n_channels), dtype=np.uint8)
    deep = shallow.astype(">u2") * 257

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts), shallow


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
def test_sixteen_bits_a_channel_are_the_picture_of_eight(mode):
    data, shallow = deep_png(mode)
    image = decode(data)
    colours = shallow[:, :, :3] if mode.startswith("RGB") else np.repeat(shallow[:, :, :1], 3, 2)
    assert image.dtype == torch.uint8 and image.shape == (3, 8, 8)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - colours).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_depth_without_a_white_is_refused_by_name(kind):
    data = saved(Image.fromarray(PIXELS[:, :, 0].astype(kind) * 100), "TIFF")
    with pytest.raises(ImageError, match=rf"TIFF.*{kind.__name__} has no agreed white; save it"):
        decode(data)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(format):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    assert decode(data)[:, 5, 5].tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_shows_its_own_colour(format):
    data = saved(Image.new("RGBA", (10, 10), (200, 100, 50, 0)), format)
    assert decode(data)[:, 5, 5].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it seems to be HEIC; save it as JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it seems to be HEIC; save it as JPEG"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "it seems to be AVIF; save it as JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull brings the image"),
    ],
)
def test_what_only_bears_an_image_name_is_told(data, reason):
    with pytest.raises(ImageError, match=rf"not a readable image \(.*{reason}"):
        decode(data)


@settings(max_examples=50)
@given(some.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]), some.binary(max_size=40))
def test_nonsense_in_exif_leaves_the_picture_as_it_is(format, nonsense):
    image = Image.fromarray(PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the nonsense
        try:
            data = saved(image, format, exif=b"Exif\0\0MM\0*" + nonsense)
        except Exception:  # TIFF is written with its own tags only
            data = saved(image, format)
        assert decode(data).shape in ((3, 24, 17), (3, 17, 24))
