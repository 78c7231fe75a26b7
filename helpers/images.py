"""From a signed URL to a uint8 RGB tensor: download, decode, and the one evaluation transform."""

import io
import os
import random
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib import request

import numpy as np
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
# what often bears an image's name: how it begins
LOOKALIKES = {
    b"ftyphe": "it seems to be HEIC; save it as JPEG",
    b"ftypmif1": "it seems to be HEIC; save it as JPEG",
    b"ftypmsf1": "it seems to be HEIC; save it as JPEG",
    b"ftypavi": "it seems to be AVIF; save it as JPEG",
    b"version http": "it is a pointer of Git LFS; git lfs pull brings the image",
}
RETRIED_STATUS = {429, 500, 502, 503, 504}  # of HTTP: what may pass


class ImageError(ValueError):
    """An image that cannot be used; its text is the reason, without the URL."""

    def __init__(self, reason: str, attempts: int = 1):
        super().__init__(reason)
        self.reason = reason
        self.attempts = attempts


class UrlExpired(ImageError):
    """The signed URL was refused: expired, or not for this file. Sign the path anew."""


class Downloader:
    """Pooled HTTP downloads; safe to share between threads.

    Proxies and certificates are the environment's: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, and
    REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, else SSL_CERT_FILE or the system's. timeout_s: bounds the
    wait for a connection and between two reads. backoff_s: before the second attempt, twice as
    long before each further one. Raises FileNotFoundError for certificates that are not there.
    """

    def __init__(
        self,
        timeout_s: float = 10,
        attempts: int = 5,
        backoff_s: float = 0.2,
        max_bytes: int = MAX_BYTES,
    ):
        # here, so that training from a folder needs only torch, torchvision and numpy
        import requests.adapters
        import urllib3

        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle and not Path(bundle).exists():
            raise FileNotFoundError(
                f"Certificates {bundle} are not there: correct REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE."
            )
        options: Any = {
            "ca_cert_dir" if bundle and Path(bundle).is_dir() else "ca_certs": bundle,
            "timeout": urllib3.Timeout(timeout_s),
            "retries": False,
        }
        direct = urllib3.PoolManager(maxsize=32, **options)
        through = requests.adapters.HTTPAdapter(pool_maxsize=32)

        @cache  # of http://host:port: to ask requests takes as long as a small image
        def pool_to(place: str) -> Any:
            # requests itself compares no port of an address
            is_open = request.proxy_bypass(place.partition("//")[2])
            proxy = requests.utils.select_proxy(
                place, {} if is_open else requests.utils.get_environ_proxies(place, None)
            )
            return (
                through.proxy_manager_for(proxy if "://" in proxy else f"http://{proxy}", **options)
                if proxy
                else direct
            )

        self._pool_to = pool_to
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
                reason = str(error) if type(error) is OSError else type(error).__name__
            if attempt < self.attempts:
                # by chance, or many readers would come back all at once
                time.sleep(self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1))
        raise ImageError(f"download failed after {self.attempts} attempts: {reason}", self.attempts)

    def _get(self, url: str) -> bytes:
        response = self._pool_to("/".join(url.split("/", 3)[:3])).request(
            "GET", url, preload_content=False
        )
        try:
            # Google answers 400 for an expired URL
            if response.status == 403 or (
                response.status == 400 and b"ExpiredToken" in response.read(1024)
            ):
                raise UrlExpired(f"the signed URL was refused ({response.status})")
            if response.status in RETRIED_STATUS:
                raise OSError(f"HTTP status {response.status}")
            if response.status != 200:
                raise ImageError(f"HTTP status {response.status}")
            data = response.read(self.max_bytes + 1)  # raises IncompleteRead when cut off
            if len(data) > self.max_bytes:
                raise ImageError(f"file is larger than the limit of {self.max_bytes} bytes")
            return data
        finally:
            response.close()  # a fully read connection has gone back to the pool before this


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """(3, H, W) uint8 RGB, turned as its EXIF orientation says; of several frames the first.

    16 bits a channel become 8. Transparency is left off: the colour below it shows. Raises
    ImageError.
    """
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow raises many types, by format
        otherwise = type(error).__name__ if data else "the file is empty"
        kinds = (kind for start, kind in LOOKALIKES.items() if start in data[:12])
        raise ImageError(f"not a readable image ({next(kinds, otherwise)})") from None
    size = f"{header.width} x {header.height} pixels"
    if header.width * header.height > max_pixels:
        raise ImageError(f"image is {size}, over the limit of {max_pixels} pixels")
    if min(header.size) < MIN_SIDE:
        raise ImageError(f"image is {size}, under the least side of {MIN_SIDE} pixels")
    try:
        # torchvision is fast, and right for these alone: a damaged PNG ends the whole process in
        # it, a WebP is not turned (MPO is a JPEG with a second picture behind the first)
        if header.format in ("JPEG", "MPO"):
            image = decode_image(
                torch.frombuffer(bytearray(data), dtype=torch.uint8),
                mode=ImageReadMode.RGB,
                apply_exif_orientation=True,
            )
        else:
            image = _by_pillow(header)
        if image.dtype not in (torch.uint8, torch.uint16):
            raise ValueError(
                f"{image.dtype} has no agreed white; save it with 8 or 16 bits a channel"
            )
        return F.to_dtype(image, torch.uint8, scale=True)
    except Exception as error:  # again of many types
        # torchvision names a line of its own source first
        raise ImageError(
            f"{header.format} image cannot be decoded: {str(error).rsplit(', ', 1)[-1]}"
        ) from None


def _by_pillow(image: Image.Image) -> Tensor:
    # (3, H, W), in the bits that the file has
    image.load()
    with suppress(Exception):  # an orientation that makes no sense turns nothing
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # one deep channel, which Pillow would cut off at 255
        return torch.from_numpy(np.asarray(image) + 0).expand(3, -1, -1)  # 0: in this byte order
    return F.pil_to_tensor(image.convert("RGB"))


def shrink(image: Tensor, side: int) -> Tensor:
    """The image, centre kept, with its shorter side at most `side`, its longer at most twice that.

    >>> shrink(torch.zeros(3, 300, 900, dtype=torch.uint8), side=150).shape
    torch.Size([3, 150, 300])
    """
    height, width = image.shape[-2:]
    short = min(height, width)
    image = F.center_crop(image, [min(height, 2 * short), min(width, 2 * short)])
    return image if short <= side else F.resize(image, [side], antialias=True)


def evaluation_transform(image: Tensor, size: int, view: str = "centre") -> Tensor:
    """(3, size, size) uint8 of an image of any size.

    view: the central square ("centre"), or the whole frame squeezed into one ("whole").
    """
    if view == "centre":
        image = F.center_crop(image, [min(image.shape[-2:])])
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
    return str(imagehash.phash(F.to_pil_image(F.resize(image, [64, 64], antialias=True))))
