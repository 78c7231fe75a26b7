"""How a worker process reads and predicts: download, decode, forward.

Nothing here knows Snowflake.
"""

import os
import shutil
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# imagehash imports it for its first hash, which a whole batch would wait for
import scipy.fftpack  # noqa: F401
import torch
from filelock import FileLock
from torch import Tensor

from helpers.images import Downloader, ImageError, decode, perceptual_hash
from helpers.model import Classifier, device_named, load

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# images: for about so many of ResNet-50 the export to ONNX Runtime takes as long as it saves
EXPORT_AT = 32
# images that ONNX Runtime takes at once: more are no faster, and need memory in proportion
PASS = 8
READERS = 8  # threads that download and decode, for each worker process
POLL_S = 0.002  # how often a process that waits for the GPU looks: a pass takes ten times as long


class Predictor:
    """A checkpoint with the threads that feed it. One for each worker process.

    On a CPU it computes in ONNX Runtime, 1.1 to 1.8 times as fast as PyTorch for ResNet-50 on
    AVX-512, from the batch on that brings the `export_at`th image: a short run never waits for
    the export, which takes a second.
    """

    def __init__(
        self, source: Path | bytes, digest: str, compute_threads: int, export_at: int = EXPORT_AT
    ):
        # what the reading threads do must not multiply the compute threads
        torch.set_num_threads(1)
        self.digest = digest
        self.compute_threads = compute_threads
        self.device = device_named()
        self.model = load(source, self.device)
        self.classes = self.model.card.classes
        self.export_at = export_at
        self.may_export = self.device.type == "cpu" and find_spec("onnxruntime") is not None
        self.session: InferenceSession | None = None
        self.n_images = 0  # that were predicted
        self._turn = threading.Lock()  # one forward pass at a time, which uses all compute threads
        self._download = Downloader()
        self._threads = ThreadPoolExecutor(READERS, "images", torch.set_num_threads, (1,))

    def computes_on(self) -> str:
        """The device; where it is the CPU of a machine with a GPU, that too."""
        idle = self.device.type == "cpu" and shutil.which("nvidia-smi")
        return f"{self.device}, for PyTorch finds no CUDA on the GPU" if idle else str(self.device)

    def read_all(self, urls: list[str]) -> list[tuple[Tensor, str] | ImageError]:
        """What `read` returns for each URL, in order."""
        return list(self._threads.map(self.read, urls))

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
        except Exception as error:
            # one odd image must not end a run of millions; the error's text may hold the URL
            return ImageError(f"unexpected {type(error).__name__}", attempts)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw logits and calibrated probabilities, (B, n_classes) each.

        images: (B, 3, S, S) uint8.
        """
        with self._turn, torch.inference_mode():
            torch.set_num_threads(self.compute_threads)
            logits = self._on_gpu(images) if self.device.type == "cuda" else self._on_cpu(images)
            return logits, self.model.probabilities(logits)

    def _on_gpu(self, images: Tensor) -> Tensor:
        with gpu_turn(self.device), torch.autocast("cuda", torch.float16):
            return self.model(images.to(self.device)).cpu()

    def _on_cpu(self, images: Tensor) -> Tensor:
        self.n_images += len(images)
        if self.may_export and self.n_images >= self.export_at:
            self._export()
        if self.session is None:
            return self.model(images.to(self.device)).cpu()
        passes = [
            self.session.run(["logits"], {"images": part.numpy()})[0] for part in images.split(PASS)
        ]
        return torch.cat([torch.from_numpy(logits) for logits in passes])

    def _export(self) -> None:
        """Tries once: a model that cannot be exported is computed in PyTorch, only more slowly."""
        self.may_export = False
        try:
            self.session = onnx_session(self.model, self.compute_threads)
        except Exception as error:  # torch and ONNX Runtime raise many types
            warnings.warn(
                f"{self.model.card.arch} is computed in PyTorch, since its export to ONNX Runtime "
                f"failed ({type(error).__name__}: {error}). Predictions are the same, and take "
                "longer.",
                stacklevel=2,
            )


def onnx_session(model: Classifier, threads: int) -> "InferenceSession":
    """The same network, preprocessing included, in ONNX Runtime: "images" in, logits out."""
    import onnxruntime  # here: of no use on a GPU machine

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # it would take the memory of a batch once more, on the second batch
    options.enable_mem_pattern = False
    # the cores are the readers' as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        _exported(model), options, providers=["CPUExecutionProvider"]
    )


def _exported(model: Classifier) -> bytes:
    parts: list[bytes] = []
    # a file that only collects: io.BytesIO would copy the weights once more
    file: Any = SimpleNamespace(write=parts.append, flush=bool)
    example = torch.zeros(1, 3, *[model.card.image_size] * 2, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        # dynamo=True takes 4 to 19 s where this takes 2 to 3, and what it makes is no faster. This
        # way will be dropped one day: the two warnings that say so are not shown, any other is.
        known = "You are using the legacy|The feature will be removed"
        warnings.filterwarnings("ignore", known, DeprecationWarning)
        torch.onnx.export(
            model,
            (example,),
            file,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )
    return b"".join(parts)


def gpu_turn(device: torch.device) -> AbstractContextManager:
    """One process of this user at a time computes on a GPU that several share.

    It is that process's turn until the block ends. Each user has a lock of their own: one that
    somebody else made could not be opened.
    """
    name = f"gpu-{device.index or 0}-of-user-{os.geteuid()}.lock"
    return FileLock(Path(tempfile.gettempdir(), name)).acquire(poll_interval=POLL_S)
