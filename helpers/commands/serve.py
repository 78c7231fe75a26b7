"""Answer over HTTP with a trained model."""

import argparse
import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
import uvicorn
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
BODIES = 16  # requests held in memory at a time; the others wait
IMAGE_BODY = {
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}


class Candidate(BaseModel):
    label: str
    confidence: float


class Prediction(Candidate):
    top3: list[Candidate]


class Problem(BaseModel):
    """Why a request got no prediction."""

    thing: str
    value: str
    remedy: str


class Refused(Exception):
    """Ends a request with an HTTP status and the three fields of a Problem."""


class Service:
    """One model that computes in a thread of its own, one image at a time, while the event loop serves others."""

    def __init__(self, path: Path):
        self.classifier = model.load(path, model.device_named())
        card = {
            name: value
            for name, value in asdict(self.classifier.card).items()
            if name != "parameters"
        }
        self.about = {"file": path.name, "digest": digest_of(path), "max_bytes": MAX_BYTES} | card
        self._places, self._compute = asyncio.Semaphore(BODIES), ThreadPoolExecutor(1, "predict")

    async def answer(self, request: Request) -> Prediction:
        async with self._places:
            data = await read_body(request)
            return await asyncio.get_running_loop().run_in_executor(
                self._compute, self.predict, data
            )

    def predict(self, data: bytes) -> Prediction:
        """Decoded, prepared and calibrated as in the notebooks. Raises Refused."""
        try:
            image = self.classifier.prepare(decode(data))
        except ImageError as error:
            raise Refused(
                422, "image", error.reason, "Send a whole JPEG, PNG or WebP file as the body."
            ) from None
        with torch.inference_mode():
            logits = self.classifier(image[None].to(self.classifier.mean.device))
        top = self.classifier.probabilities(logits)[0].topk(min(3, logits.shape[1]))
        labels = [self.classifier.card.classes[index] for index in top.indices.tolist()]
        found = [
            Candidate(label=label, confidence=share)
            for label, share in zip(labels, top.values.tolist())
        ]
        return Prediction(**found[0].model_dump(), top3=found)


async def read_body(request: Request) -> bytes:
    """The request's body, of which little more than MAX_BYTES is ever held. Raises Refused."""
    too_large = Refused(
        413,
        "image",
        f"more than {MAX_BYTES} bytes",
        "Send a smaller file, or make its sides shorter.",
    )
    if (
        int(request.headers.get("content-length", 0)) > MAX_BYTES
    ):  # the server has refused what is no number
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(
            408, "body", f"not here after {BODY_SECONDS} s", "Send all that content-length says."
        ) from None
    except ClientDisconnect:  # nobody reads this answer, but it keeps a traceback out of the log
        raise Refused(
            400, "body", f"cut off after {len(body)} bytes", "Send all that content-length says."
        ) from None
    return bytes(body)


def create_app(path: Path) -> FastAPI:
    """The web application for a checkpoint. Raises what model.load raises."""
    service = Service(path)
    # FastAPI's own docs pages load scripts from the internet: the start page lists the routes instead
    app = FastAPI(
        title="Image classification",
        version=service.about["digest"][:12],
        docs_url=None,
        redoc_url=None,
    )
    problems = {status: {"model": Problem} for status in (408, 413, 422)}

    @app.post("/predict", responses=problems, openapi_extra={"requestBody": IMAGE_BODY})
    async def predict(request: Request) -> Prediction:
        """The class of the image in the body, its calibrated confidence, and the three likeliest classes."""
        return await service.answer(request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Answers while the service runs."""
        return {"status": "ok", "model": service.about["digest"]}

    @app.get("/model")
    async def about() -> dict:
        """What the checkpoint says of itself, its SHA-256, and the size limit of an image in bytes."""
        return service.about

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(Path(__file__).with_name("serve.html"))

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> JSONResponse:
        status, thing, value, remedy = error.args
        return JSONResponse({"thing": thing, "value": value, "remedy": remedy}, status)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        problem = Refused(
            error.status_code,
            "request",
            f"{request.method} {request.url.path}",
            "Routes: /openapi.json",
        )
        return await refused(request, problem)

    return app


def default_model() -> Path:
    """The model that notebook 02 trained here, else the one that came with the repository."""
    provided = config.PROJECT_ROOT / "model" / "model_provided.pt"
    return (
        config.trained_model()
        if config.trained_model().exists() or not provided.exists()
        else provided
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers serve", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: this machine only"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--model", type=Path, help="checkpoint; default: the trained model, else the provided one"
    )
    options = parser.parse_args(arguments)
    try:
        app = create_app(options.model or default_model())
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    uvicorn.run(app, host=options.host, port=options.port)
    return 0
