"""Stage files over HTTP: signed URLs for anyone, uploads and downloads for the connector."""

from __future__ import annotations

import asyncio
import secrets
from mimetypes import guess_type
from pathlib import Path
from stat import S_ISREG

from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from standin.errors import SqlError
from standin.names import StageName
from standin.serve import BODY_S
from standin.signing import Signer
from standin.stages import Stage, StageStore
from standin.whole import written_whole

PATTERN = "/{database}/{schema}/{name}/{path:key}"
CLIENT_SIDE_KEY = 0xA5
ONE_PIECE = 2**20  # bytes


class KeyConvertor(PathConvertor):
    """Any text, with lines in it too."""

    regex = "(?s:.*)"


register_url_convertor("key", KeyConvertor())


class FileServer:
    """Serves and stores the files of stages."""

    def __init__(self, store: StageStore, signer: Signer, parts: Path) -> None:
        self._store = store
        self._signer = signer
        self._parts = parts

    @property
    def routes(self) -> list[Route]:
        """/stage for whoever holds a signed URL, /stage-files for the connector."""
        return [
            Route("/stage" + PATTERN, self.signed, methods=["GET", "HEAD"]),
            Route("/stage-files" + PATTERN, self.download, methods=["GET", "HEAD"]),
            Route("/stage-files" + PATTERN, self.upload, methods=["PUT"]),
        ]

    async def signed(self, request: Request) -> Response:
        """A file by its signed URL: 403 if expired or changed, 404 if there is no such file."""
        name, path = _located(request)
        query = request.query_params
        refusal = self._signer.why_refused(
            name.url_part, path, query.get("expires", ""), query.get("signature", "")
        )
        if refusal:
            return Response(refusal, 403)
        stage, file = self._find(name, path)
        if stage and not stage.readable_by_url and file and file.is_file():
            return Response(await run_in_threadpool(_as_encrypted_by_client, file))
        return _content(request, path, file)

    async def download(self, request: Request) -> Response:
        """A file for the connector (GET, and HEAD before PUT)."""
        name, path = _located(request)
        # A token for PUT is good as well: the connector first asks whether the file is there.
        if not self._may(request, name, "download") and not self._may(request, name, "put"):
            return Response("AccessDenied", 403)
        _, file = self._find(name, path)
        return _content(request, path, file)

    async def upload(self, request: Request) -> Response:
        """A file from the connector (PUT): written beside, then put in place whole."""
        name, path = _located(request)
        if not self._may(request, name, "put"):
            return Response("AccessDenied", 403)
        try:
            file = self._store.resolve(self._store.get(name), path)
        except SqlError as error:
            return Response(error.msg, 400)
        # How PUT without OVERWRITE asks a Google bucket not to replace; 412 makes it say SKIPPED.
        if file.exists() and request.headers.get("x-goog-if-generation-match") == "0":
            return Response("conditionNotMet", 412)
        part = self._parts / f"{secrets.token_hex(8)}.part"
        try:
            async with asyncio.timeout(BODY_S) as silence:
                with written_whole(file, part) as target:
                    async for chunk in request.stream():
                        target.write(chunk)
                        silence.reschedule(asyncio.get_running_loop().time() + BODY_S)
        except OSError as error:
            return Response(f"could not store {path}: {error.strerror}", 400)
        return Response()

    def _find(self, name: StageName, path: str) -> tuple[Stage | None, Path | None]:
        try:
            stage = self._store.get(name)
            return stage, self._store.resolve(stage, path)
        except SqlError:
            return None, None

    def _may(self, request: Request, name: StageName, operation: str) -> bool:
        """By a token for the stage (connector 5), or an address signed for a file (connector 4)."""
        query = request.query_params
        if "signature" in query:
            path = request.path_params["path"]
            expires = query.get("expires", "")
            return not self._signer.why_refused(
                name.url_part, path, expires, query["signature"], operation
            )
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._signer.allows(token, operation, name.url_part)


def _located(request: Request) -> tuple[StageName, str]:
    parts = request.path_params
    name = StageName.from_url_parts(parts["database"], parts["schema"], parts["name"])
    return name, parts["path"]


def _content(request: Request, key: str, file: Path | None) -> Response:
    """The file of that key, or 404.

    A small one in one piece, in a third of the time: FileResponse changes threads five times.
    """
    if file is None:
        return Response("NoSuchKey", 404)
    try:
        about = file.stat()
        if not S_ISREG(about.st_mode):
            return Response("NoSuchKey", 404)
        kind = guess_type(key)[0] or "application/octet-stream"
        response = FileResponse(file, stat_result=about, media_type=kind)
        if about.st_size > ONE_PIECE or request.method != "GET" or "range" in request.headers:
            return response
        content = file.read_bytes()
    except OSError:  # removed just now
        return Response("NoSuchKey", 404)
    response.headers["content-length"] = str(len(content))  # replaced just now
    return Response(content, headers=dict(response.headers))


def _as_encrypted_by_client(file: Path) -> bytes:
    """Unreadable, as a signed URL's bytes are in Snowflake where the client encrypts.

    So that a stage made without SNOWFLAKE_SSE fails here, and not first in the account.
    """
    return file.read_bytes().translate(bytes(value ^ CLIENT_SIDE_KEY for value in range(256)))
