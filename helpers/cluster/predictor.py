"""How a worker process reads and predicts: download, decode, forward. Nothing here knows Snowflake."""

import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import scipy.fftpack  # noqa: F401 - imagehash imports it for its first hash, which a whole batch would wait for
import torch
from torch import Tensor

from helpers.images import Downloader, ImageError, decode, perceptual_hash
from helpers.model import Classifier, device_named, load

EXPORT_AT = 32  # images: for about so many of ResNet-50 the export to ONNX Runtime takes as long as it saves
PASS = (
    8  # images that ONNX Runtime takes at once: more are no faster, and need memory in proportion
)
READERS = 8  # threads that download and decode, for each worker process


class Predictor:
    """A checkpoint with the threads that feed it. One for each worker process.

    On a CPU it computes in ONNX Runtime, 1.1 to 1.8 times as fast as PyTorch for ResNet-50 on AVX-512, from the batch
    on that brings the `export_at`th image: a short run never waits for the export, which takes a second.
    """

    def __init__(
        self, source: Path | bytes, digest: str, compute_threads: int, export_at: int = EXPORT_AT
    ):
        torch.set_num_threads(
            1
        )  # what the reading threads do must not multiply the compute threads
        self.digest, self.compute_threads, self.device = digest, compute_threads, device_named()
        self.model, self.export_at = load(source, self.device), export_at
        self.classes, self.session, self.n_images = self.model.card.classes, None, 0
        self._turn = threading.Lock()  # one forward pass at a time, which uses all compute threads
        self._download = Downloader()
        self._threads = ThreadPoolExecutor(READERS, "images", torch.set_num_threads, (1,))

    def read(self, url: str) -> tuple[Tensor, str] | ImageError:
        """The prepared image and its perceptual hash, 16 hex digits; or why there is none."""
        attempts = 1
        try:
            data, attempts = self._download(url)
            image = decode(data)
            return self.model.prepare(image), perceptual_hash(image)
        except ImageError as error:
            error.attempts = max(error.attempts, attempts)
            return error
        except (
            Exception
        ) as error:  # one odd image must not end a run of millions; its text may hold the URL
            return ImageError(f"unexpected {type(error).__name__}", attempts)

    def read_all(self, urls: list[str]) -> list[tuple[Tensor, str] | ImageError]:
        return list(self._threads.map(self.read, urls))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw logits and calibrated probabilities, (B, n_classes) each, of (B, 3, S, S) uint8 images."""
        with self._turn, torch.inference_mode():
            torch.set_num_threads(self.compute_threads)
            logits = self._on_gpu(images) if self.device.type == "cuda" else self._on_cpu(images)
            return logits, self.model.probabilities(logits)

    def _on_gpu(self, images: Tensor) -> Tensor:
        with _gpu_turn(self.device), torch.autocast("cuda", torch.float16):
            return self.model(images.to(self.device)).cpu()

    def _on_cpu(self, images: Tensor) -> Tensor:
        self.n_images += len(images)
        pays = self.device.type == "cpu" and self.n_images >= self.export_at
        if self.session is None and pays and find_spec("onnxruntime"):
            self.session = onnx_session(self.model, self.compute_threads)
        if self.session is not None:
            run = partial(self.session.run, ["logits"])
            return torch.cat(
                [torch.from_numpy(run({"images": part.numpy()})[0]) for part in images.split(PASS)]
            )
        return self.model(images.to(self.device)).cpu()


def onnx_session(model: Classifier, threads: int):
    """The same network, preprocessing included, in ONNX Runtime: "images" in, logits out."""
    import onnxruntime  # here: of no use on a GPU machine

    parts, side = [], model.card.image_size
    exported = SimpleNamespace(
        write=parts.append, flush=bool
    )  # io.BytesIO would copy the weights once more
    axes = {"images": {0: "n"}, "logits": {0: "n"}}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(  # dynamo=False: traced in 1 s, where the newer exporter takes 13 s
            model, (torch.zeros(1, 3, side, side, dtype=torch.uint8),), exported, dynamo=False,
            input_names=["images"], output_names=["logits"], dynamic_axes=axes,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = (
        False  # it would take the memory of a batch once more, on the second batch
    )
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # the cores are the readers' as well
    return onnxruntime.InferenceSession(
        b"".join(parts), options, providers=["CPUExecutionProvider"]
    )


@contextmanager
def _gpu_turn(device: torch.device):
    """One process at a time computes on a GPU that several share."""
    import fcntl  # not on Windows

    with Path(tempfile.gettempdir(), f"gpu-{device.index or 0}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
