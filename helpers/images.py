"""From a signed URL to a uint8 RGB tensor: download, decode, and the one evaluation transform."""

import io
import random
import time
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

MAX_BYTES = 64 * 2**20  # of a file
MAX_PIXELS = 50_000_000
MIN_SIDE = 8  # pixels
# Pillow knows more, and runs Ghostscript on an EPS
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
TORCHVISION_FORMATS = {"JPEG", "PNG", "WEBP"}  # the others are Pillow's to decode
RETRIED_STATUS = {429, 500, 502, 503, 504}  # of HTTP: what may pass


class ImageError(ValueError):
    """An image that cannot be used; its text is the reason, without the URL."""

    def __init__(self, reason: str, attempts: int = 1):
        super().__init__(reason)
        self.reason = reason
        self.attempts = attempts

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        # both fields survive the way from a worker to the client
        return type(self), (self.reason, self.attempts)


class UrlExpired(ImageError):
    """The signed URL was refused with 403: expired, or not for this file. Sign the path anew."""


class Downloader:
    """Pooled HTTP downloads; safe to share between threads.

    timeout_s: bounds the wait for a connection and between two reads. backoff_s: before the second
    attempt, twice as long before each further one.
    """

    def __init__(
        self,
        timeout_s: float = 10,
        attempts: int = 5,
        backoff_s: float = 0.2,
        max_bytes: int = MAX_BYTES,
    ):
        # here, so that training from a folder needs only torch, torchvision and numpy
        import urllib3

        timeout = urllib3.Timeout(timeout_s)
        self._pool = urllib3.PoolManager(maxsize=32, retries=False, timeout=timeout)
        self._errors = urllib3.exceptions.HTTPError
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.max_bytes = max_bytes

    def __call__(self, url: str) -> tuple[bytes, int]:
        """Body of `url` and the attempts it took; connection errors, 429 and 5xx are tried again.

        Raises ImageError, UrlExpired.
        """
        reason = ""
        for attempt in range(1, self.attempts + 1):
            try:
                return self._get(url), attempt
            except ImageError as error:
                error.attempts = attempt
                raise
            except (self._errors, OSError) as error:
                # urllib3 writes the URL, and so its signature, into its messages: only the kind
                # is kept
                reason = getattr(error, "status", None) or type(error).__name__
            if attempt < self.attempts:
                jitter = random.uniform(0.5, 1)  # many readers must not come back all at once
                time.sleep(self.backoff_s * 2 ** (attempt - 1) * jitter)
        raise ImageError(f"download failed after {self.attempts} attempts: {reason}", self.attempts)

    def _get(self, url: str) -> bytes:
        response = self._pool.request("GET", url, preload_content=False)
        try:
            if response.status == 403:
                raise UrlExpired("the signed URL was refused (403)")
            if response.status in RETRIED_STATUS:
                error: Any = self._errors()
                error.status = f"HTTP status {response.status}"
                raise error
            if response.status != 200:
                raise ImageError(f"HTTP status {response.status}")
            data = response.read(self.max_bytes + 1)  # raises IncompleteRead when cut off
            if len(data) > self.max_bytes:
                raise ImageError(f"file is larger than the limit of {self.max_bytes} bytes")
            return data
        finally:
            response.close()  # a fully read connection has gone back to the pool before this


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """(3, H, W) uint8 RGB, turned as its EXIF orientation says. Raises ImageError."""
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = header.size
    except Exception as error:  # Pillow raises many types, by format
        raise ImageError(f"not a readable image ({type(error).__name__})") from None
    size = f"{width} x {height} pixels"
    if width * height > max_pixels:
        raise ImageError(f"image is {size}, over the limit of {max_pixels} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"image is {size}, under the least side of {MIN_SIDE} pixels")
    # 16 bits of grey: torchvision leaves them, Pillow cuts them off at 255
    deep = header.mode.startswith("I;16")
    try:
        if header.format in TORCHVISION_FORMATS and not deep:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(buffer, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        image = header.point(lambda value: value / 256).convert("L") if deep else header
        return F.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # again of many types
        # torchvision names a line of its own source first
        reason = str(error).rsplit(", ", 1)[-1]
        raise ImageError(f"{header.format} image cannot be decoded: {reason}") from None


def shrink(image: Tensor, side: int) -> Tensor:
    """The image, centre kept, with its shorter side at most `side`, its longer at most twice that.

    >>> shrink(torch.zeros(3, 300, 900, dtype=torch.uint8), side=150).shape
    torch.Size([3, 150, 300])
    """
    height, width = image.shape[-2:]
    short = min(height, width)
    image = F.center_crop(image, [min(height, 2 * short), min(width, 2 * short)])
    if short <= side:
        return image
    return F.resize(image, [side], antialias=True)


def evaluation_transform(image: Tensor, size: int, view: str = "centre") -> Tensor:
    """(3, size, size) uint8 of an image of any size.

    view: the central square ("centre"), or the whole frame squeezed into one ("whole").
    """
    if view == "centre":
        side = min(image.shape[-2:])
        image = F.center_crop(image, [side, side])
    return F.resize(image, [size, size], antialias=True)


def perceptual_hash(image: Tensor) -> str:
    """64 bits as 16 hexadecimal digits, nearly the same once a picture is resized or saved anew.

    >>> stripes = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    >>> perceptual_hash(stripes) == perceptual_hash(F.resize(stripes, [300, 200]))
    True
    """
    # here, so that training from a folder needs only torch, torchvision and numpy
    import imagehash

    # the hash looks at 32 x 32 pixels; torch gets there faster
    small = F.resize(image, [64, 64], antialias=True)
    return str(imagehash.phash(F.to_pil_image(small)))
