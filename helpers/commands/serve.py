"""Answer over HTTP with a trained model."""

import argparse
import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
import uvicorn.server
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from helpers import config, model
from helpers.files import digest_of
from helpers.images import ImageError, decode

MAX_BYTES = 16 * 2**20
BODY_SECONDS = 30  # in which a request's body must have come
BODIES = 64  # requests that are read or wait at a time; one more is told that it is full
# what ends it, after the answers that are due
ENDS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
IMAGE_BODY = {
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}


class Candidate(BaseModel):
    """A class, and how likely it is."""

    label: str
    confidence: float


class Prediction(Candidate):
    """The likeliest class, and the three likeliest with it."""

    top3: list[Candidate]


class Problem(BaseModel):
    """Why a request got no prediction."""

    thing: str
    value: str
    remedy: str


class Refused(Exception):
    """Ends a request with an HTTP status and the three fields of a Problem."""


class Service:
    """One model that computes in a thread of its own, one image at a time.

    Meanwhile the event loop serves others.
    """

    def __init__(self, path: Path) -> None:
        self.device = model.device_named()
        self.classifier = model.load(path, self.device)
        self.digest = digest_of(path)
        card = asdict(self.classifier.card)
        del card["parameters"]  # may name folders of the machine that trained it
        self.about = {"file": path.name, "digest": self.digest, "max_bytes": MAX_BYTES} | card
        self._n_bodies = 0
        self._one_thread = ThreadPoolExecutor(1, "predict")

    async def answer(self, request: Request) -> Prediction:
        """What `predict` says of the image in the request's body. Raises Refused."""
        if self._n_bodies >= BODIES:  # before anything of it is read
            raise Refused(503, "service", f"{BODIES} images wait", "Send it again in a second.")
        self._n_bodies += 1
        try:
            data = await read_body(request)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._one_thread, self.predict, data)
        finally:
            self._n_bodies -= 1

    def predict(self, data: bytes) -> Prediction:
        """Decoded, prepared and calibrated as in the notebooks. Raises Refused."""
        try:
            image = self.classifier.prepare(decode(data))  # (3, side, side) uint8
        except ImageError as error:
            remedy = "Send a whole JPEG, PNG or WebP file as the body."
            raise Refused(422, "image", error.reason, remedy) from None
        with torch.inference_mode():
            logits = self.classifier(image[None].to(self.device))  # (1, n_classes)
        classes = self.classifier.card.classes
        top = self.classifier.probabilities(logits)[0].topk(min(3, len(classes)))
        top3 = [
            Candidate(label=classes[index], confidence=confidence)
            for index, confidence in zip(top.indices.tolist(), top.values.tolist())
        ]
        return Prediction(label=top3[0].label, confidence=top3[0].confidence, top3=top3)


async def read_body(request: Request) -> bytes:
    """The request's body, of which little more than MAX_BYTES is ever held. Raises Refused."""
    smaller = "Send a smaller file, or make its sides shorter."
    whole = "Send all that content-length says."
    too_large = Refused(413, "image", f"more than {MAX_BYTES} bytes", smaller)
    announced = int(request.headers.get("content-length", 0))  # uvicorn refuses what is no number
    if announced > MAX_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "body", f"not here after {BODY_SECONDS} s", whole) from None
    except ClientDisconnect:  # nobody reads this answer, but it keeps a traceback out of the log
        raise Refused(400, "body", f"cut off after {len(body)} bytes", whole) from None
    return bytes(body)


def create_app(path: Path) -> FastAPI:
    """The web application for a checkpoint. Raises what model.load raises."""
    service = Service(path)
    version = service.digest[:12]
    # FastAPI's own pages load scripts from the internet: the start page lists the routes instead
    app = FastAPI(title="Image classification", version=version, docs_url=None, redoc_url=None)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    problems: dict[int | str, dict] = {
        status: {"model": Problem} for status in (408, 413, 422, 503)
    }

    @app.post("/predict", responses=problems, openapi_extra={"requestBody": IMAGE_BODY})
    async def predict(request: Request) -> Prediction:
        """Class and confidence of the image in the body, and the three likeliest classes."""
        return await service.answer(request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Answers while the service runs."""
        return {"status": "ok", "model": service.digest}

    @app.get("/model")
    async def about() -> dict:
        """What the checkpoint says of itself, its SHA-256, and an image's size limit in bytes."""
        return service.about

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        """Classify a picture from the browser."""
        return FileResponse(Path(__file__).with_name("serve.html"))

    return app


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    status, thing, value, remedy = error.args
    later = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse({"thing": thing, "value": value, "remedy": remedy}, status, later)


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    asked = f"{request.method} {request.url.path}"
    return await _refused(request, Refused(status, "request", asked, "Routes: /openapi.json"))


def default_model() -> Path:
    """The model that notebook 02 trained here, else the one that came with the repository."""
    trained = config.trained_model()
    provided = config.PROJECT_ROOT / "model" / "model_provided.pt"
    return provided if provided.exists() and not trained.exists() else trained


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 stopped by Ctrl-C.

    Other signals that end it, once what it was asked is answered, go on to the caller.
    """
    parser = argparse.ArgumentParser(prog="python -m helpers serve", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: this machine only"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--model", type=Path, help="checkpoint; default: the trained model, else the provided one"
    )
    options = parser.parse_args(arguments)
    app = create_app(options.model or default_model())
    # a closed terminal ends it in order as well, where that is not ignored
    uvicorn.server.HANDLED_SIGNALS = tuple(  # ty: ignore[invalid-assignment]
        number for number in ENDS if signal.getsignal(number) != signal.SIG_IGN
    )
    try:
        uvicorn.Server(uvicorn.Config(app, host=options.host, port=options.port)).run()
    except KeyboardInterrupt as stop:
        if stop.args:  # not by Ctrl-C
            raise
    return 0
