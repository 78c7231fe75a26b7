"""From a signed URL to a uint8 RGB tensor: download, decode, and the one evaluation transform."""

import io
import random
import time

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 8
TORCHVISION_FORMATS = {"JPEG", "PNG", "WEBP"}
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
)  # Pillow knows more, and runs Ghostscript on an EPS
RETRIED_STATUS = {429, 500, 502, 503, 504}


class ImageError(ValueError):
    """An image that cannot be used; its text is the reason, without the URL."""

    def __init__(self, reason: str, attempts: int = 1):
        super().__init__(reason)
        self.reason, self.attempts = reason, attempts

    def __reduce__(self):  # both fields survive the way from a worker to the client
        return type(self), (self.reason, self.attempts)


class UrlExpired(ImageError):
    """The signed URL was refused with 403: expired, or not for this file. Sign the path anew."""


class Downloader:
    """Pooled HTTP downloads; safe to share between threads.

    timeout_s bounds the wait for a connection and between two reads. Raises ImageError, UrlExpired.
    """

    def __init__(
        self,
        timeout_s: float = 10,
        attempts: int = 5,
        backoff_s: float = 0.2,
        max_bytes: int = MAX_BYTES,
    ):
        import urllib3  # here, so that training from a folder needs only torch, torchvision and numpy

        self._pool = urllib3.PoolManager(
            maxsize=32, retries=False, timeout=urllib3.Timeout(timeout_s)
        )
        self._errors = urllib3.exceptions.HTTPError
        self.attempts, self.backoff_s, self.max_bytes = attempts, backoff_s, max_bytes

    def __call__(self, url: str) -> tuple[bytes, int]:
        """Body of `url` and the attempts it took; connection errors, 429 and 5xx are tried again."""
        for attempt in range(1, self.attempts + 1):
            try:
                return self._get(url), attempt
            except ImageError as error:
                error.attempts = attempt
                raise
            except (self._errors, OSError) as error:
                # urllib3 writes the URL, and so its signature, into its messages: only the kind is kept
                reason = getattr(error, "status", None) or type(error).__name__
            if attempt < self.attempts:
                time.sleep(self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1))
        raise ImageError(f"download failed after {self.attempts} attempts: {reason}", self.attempts)

    def _get(self, url: str) -> bytes:
        response = self._pool.request("GET", url, preload_content=False)
        try:
            if response.status == 403:
                raise UrlExpired("the signed URL was refused (403)")
            if response.status in RETRIED_STATUS:
                error = self._errors()
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
    if width * height > max_pixels:
        raise ImageError(
            f"image is {width} x {height} pixels, over the limit of {max_pixels} pixels"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"image is {width} x {height} pixels, under the least side of {MIN_SIDE} pixels"
        )
    try:
        if header.format in TORCHVISION_FORMATS and not header.mode.startswith("I;16"):
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(buffer, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        return F.pil_to_tensor(ImageOps.exif_transpose(_eight_bit(header)).convert("RGB"))
    except Exception as error:
        raise ImageError(
            f"{header.format} image cannot be decoded: {str(error).rsplit(', ', 1)[-1]}"
        ) from None


def _eight_bit(image: Image.Image) -> Image.Image:
    return (
        image.point(lambda value: value / 256).convert("L")
        if image.mode.startswith("I;16")
        else image
    )


def shrink(image: Tensor, side: int) -> Tensor:
    """Image with its shorter side at most `side` and its longer at most twice the shorter (centre kept)."""
    height, width = image.shape[-2:]
    short = min(height, width)
    image = F.center_crop(image, [min(height, 2 * short), min(width, 2 * short)])
    return F.resize(image, [side], antialias=True) if short > side else image


def evaluation_transform(image: Tensor, size: int, view: str = "centre") -> Tensor:
    """(3, size, size) uint8: the central square ("centre") or the whole frame squeezed into one ("whole")."""
    if view == "centre":
        image = F.center_crop(image, [min(image.shape[-2:])] * 2)
    return F.resize(image, [size, size], antialias=True)


def perceptual_hash(image: Tensor) -> str:
    """64 bits as 16 hexadecimal digits, which hardly change when a picture is resized or saved anew."""
    import imagehash  # here, so that training from a folder needs only torch, torchvision and numpy

    small = F.resize(
        image, [64, 64], antialias=True
    )  # the hash looks at 32 x 32 pixels; torch gets there faster
    return str(imagehash.phash(F.to_pil_image(small)))
