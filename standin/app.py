"""The HTTP interface that the connector talks to."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standin import responses
from standin.errors import SqlError
from standin.names import normalise
from standin.responses import BATCH_ROWS, LONGEST_SESSION_S, succeeded, unknown_session
from standin.results import CHANGING_ROWS, Result
from standin.serve import BODY_S, PASSWORD
from standin.sessions import Session, Shared
from standin.transfers import Transfer
from standin.whole import kept_secret

LOG = logging.getLogger("standin")
KEPT_BATCH_BYTES = 1 << 30
KEPT_REQUEST_S = 60.0
LOG_IN_BYTES = 2**16  # of a body, also after it is unzipped
STATEMENT_BYTES = 2**28  # bound values come with it
HOSTS = ["127.0.0.1", "localhost"]  # a page in a browser may have another name point here
WRONG_PASSWORD = SqlError("Incorrect username or password was specified.", 390100, "08001")


class Service:
    """Sessions by token, and the endpoints that use them.

    about: what /health answers, host and port among it. idle_s: seconds of silence after which an
    open transaction is rolled back. results_s: for which the addresses of large results are good.
    password: what a log-in must know.
    """

    def __init__(
        self,
        shared: Shared,
        about: Mapping[str, Any],
        idle_s: float,
        results_s: float,
        password: str,
    ) -> None:
        self._shared = shared
        self._password = password
        self._about = about
        self._idle_s = idle_s
        self._results_s = results_s
        self._sessions: dict[str, Session] = {}
        self._requests: dict[tuple[str, str], asyncio.Task[Response]] = {}
        self._number = time.time_ns() // 1_000_000  # no session has an earlier one's, in any server
        self._batches: OrderedDict[str, bytes] = OrderedDict()

    def app(self, routes: list[Route]) -> Starlette:
        """The whole application; routes are those of the files."""
        own: list[tuple[str, Any, str]] = [
            ("/health", self.health, "GET"),
            ("/session/v1/login-request", self.login, "POST"),
            ("/session", self.session, "POST"),
            ("/session/heartbeat", self.session, "POST"),
            ("/session/heartbeat", self.session, "GET"),
            ("/queries/v1/query-request", self.query, "POST"),
            ("/queries/v1/abort-request", self.abort, "POST"),
            ("/results/{name}", self.batch, "GET"),
            ("/telemetry/send", self.telemetry, "POST"),
        ]
        own_routes = [Route(path, endpoint, methods=[method]) for path, endpoint, method in own]
        return Starlette(
            routes=own_routes + routes,
            lifespan=self._lifespan,
            exception_handlers={
                Exception: _unexpected,
                TimeoutError: lambda *_: Response("Request Timeout", 408),
            },
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        for session in list(self._sessions.values()):
            await session.close()
        self._shared.history.save()

    async def _watch(self) -> None:
        """Roll back the transactions of sessions that have fallen silent.

        A kernel that died in a transaction would otherwise hold the one lock for writing for ever.
        """
        while True:
            await asyncio.sleep(min(1.0, self._idle_s / 4))
            for token, session in list(self._sessions.items()):
                if session.silent_s > LONGEST_SESSION_S:
                    del self._sessions[token]
                    await session.close()
                elif session.transaction.is_open and session.silent_s > self._idle_s:
                    async with session.lock:
                        await session.transaction.lose(
                            f"its session was silent for more than {self._idle_s:g} s"
                        )

    async def health(self, request: Request) -> JSONResponse:
        """Which server this is: its process and its folder, with the password that it knows."""
        kept_secret(Path(self._about["root"]) / PASSWORD, self._password)
        return JSONResponse(dict(self._about))

    async def batch(self, request: Request) -> Response:
        """One batch of a large result; the name is its secret, and says until when it is good."""
        name = request.path_params["name"]
        if name in self._batches and int(name.partition(".")[0]) < time.time():
            return Response("Request has expired", 403)
        content = self._batches.get(name)
        return Response(content) if content is not None else Response("NoSuchKey", 404)

    async def telemetry(self, request: Request) -> JSONResponse:
        """Taken, and thrown away."""
        return JSONResponse({"success": True})

    async def login(self, request: Request) -> JSONResponse:
        """A new session, for whoever has read the password in the server's folder."""
        if "origin" in request.headers:  # a page in a browser; the connector sends none
            raise HTTPException(403)
        data = _object((await _body(request, LOG_IN_BYTES)).get("data"))
        if not secrets.compare_digest(
            str(data.get("PASSWORD", "")).encode(), self._password.encode()
        ):
            return responses.failed(WRONG_PASSWORD)
        self._number += 1
        user = str(data.get("LOGIN_NAME") or "TUTORIAL")
        session = Session(self._shared, self._number, user, str(data.get("ACCOUNT_NAME") or ""))
        if re.match(r"4\.", str(data.get("CLIENT_APP_VERSION"))):
            session.client_major = 4
        query = request.query_params
        _use(session, query.get("databaseName"), query.get("schemaName"))
        for key, part in (("CURRENT_WAREHOUSE", "warehouse"), ("CURRENT_ROLE", "roleName")):
            if query.get(part):
                session.context[key] = normalise(query[part])
        parameters = _object(data.get("SESSION_PARAMETERS"))
        session.transaction.autocommit = str(parameters.get("AUTOCOMMIT", True)).lower() != "false"
        session.query_tag = str(parameters.get("QUERY_TAG", ""))
        token = secrets.token_urlsafe(32)
        self._sessions[token] = session
        return succeeded(responses.login_data(token, session))

    async def session(self, request: Request) -> JSONResponse:
        """A sign of life, or with ?delete=true the end of the session."""
        token = _token(request)
        session = self._sessions.get(token)
        if session is None:
            return unknown_session()
        session.last_seen = time.monotonic()
        if request.query_params.get("delete"):
            del self._sessions[token]
            await session.close()
        return succeeded()

    async def abort(self, request: Request) -> JSONResponse:
        """Stop the statement that the session runs."""
        session = self._sessions.get(_token(request))
        if session:
            session.duck.interrupt()
        return JSONResponse(
            {"data": None, "code": None, "message": None, "success": session is not None}
        )

    async def query(self, request: Request) -> Response:
        """Run a statement.

        A request sent again, as after a broken connection, is answered but not run again.
        """
        session = self._sessions.get(_token(request))
        if session is None:
            return unknown_session()
        body = await _body(request, STATEMENT_BYTES)
        request_id = (  # with the token: nobody else's answer
            _token(request),
            request.query_params.get("requestId") or secrets.token_hex(8),
        )
        task = self._requests.get(request_id)
        if task is None:
            task = asyncio.create_task(self._answer(session, body))
            self._requests[request_id] = task
            task.add_done_callback(lambda _: self._forget_later(request_id))
        # Shielded: where the connection breaks, the statement goes on, and its answer is kept.
        return await asyncio.shield(task)

    def _forget_later(self, request_id: tuple[str, str]) -> None:
        asyncio.get_running_loop().call_later(KEPT_REQUEST_S, self._requests.pop, request_id, None)

    async def _answer(self, session: Session, body: dict[str, Any]) -> Response:
        statement = str(body.get("sqlText") or "")
        try:
            if body.get("describeOnly"):
                described, n_bound = await session.describe(statement)
                return self._result_response(session, described, n_bound)
            tag = _object(body.get("parameters")).get("QUERY_TAG")
            answer = await session.execute(statement, _object(body.get("bindings")), tag)
            if isinstance(answer, Transfer):
                return succeeded(answer.data)
            return await asyncio.to_thread(self._result_response, session, answer)
        except SqlError as error:
            return responses.failed(error)
        except Exception as error:
            LOG.exception("failed request")
            return responses.internal_error(error)

    def _result_response(self, session: Session, result: Result, n_bound: int = 0) -> JSONResponse:
        data, table = responses.result_data(session, result, n_bound)
        if table.num_rows > BATCH_ROWS and result.statement_type not in CHANGING_ROWS:
            data |= {"chunks": self._chunks(table), "chunkHeaders": {}}
        return succeeded(data)

    def _chunks(self, table: pa.Table) -> list[dict[str, Any]]:
        """The rows after the first batch, each batch at an address of its own, as in Snowflake."""
        chunks = []
        for start in range(BATCH_ROWS, table.num_rows, BATCH_ROWS):
            rows = table.slice(start, BATCH_ROWS)
            name = f"{int(time.time() + self._results_s)}.{secrets.token_urlsafe(24)}"
            content = responses.arrow_bytes(rows)
            self._batches[name] = content
            chunks.append(
                {
                    "url": f"http://{self._about['host']}:{self._about['port']}/results/{name}",
                    "rowCount": rows.num_rows,
                    "uncompressedSize": len(content),
                    "compressedSize": len(content),
                }
            )
        self._forget_batches(n_kept=len(chunks))
        return chunks

    def _forget_batches(self, n_kept: int) -> None:
        """The oldest batches make room; the n_kept of the newest result stay in any case."""
        while (
            len(self._batches) > n_kept and sum(map(len, self._batches.values())) > KEPT_BATCH_BYTES
        ):
            self._batches.popitem(last=False)


def _use(session: Session, database: str | None, schema: str | None) -> None:
    """Begin in this database and schema; one that is missing is passed over, as in Snowflake."""
    if not database or not session.databases.exists(normalise(database)):
        return
    if schema and session.databases.exists(normalise(database), normalise(schema)):
        session.databases.use(normalise(database), normalise(schema))
    else:
        session.databases.use(normalise(database), None)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    answer = responses.internal_error(error)
    if request.url.path.startswith("/stage"):  # who fetches a file looks at the status alone
        answer.status_code = 500
    return answer


def _token(request: Request) -> str:
    return request.headers.get("Authorization", "").partition('Token="')[2].rstrip('"')


async def _body(request: Request, most: int) -> dict[str, Any]:
    """A request's JSON, of at most so many bytes, zipped or not.

    Raises HTTPException, and TimeoutError where the rest of it does not come.
    """
    raw = bytearray()
    async with asyncio.timeout(BODY_S):
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > most:
                raise HTTPException(413)
    try:
        if request.headers.get("Content-Encoding") == "gzip":
            unzip = zlib.decompressobj(wbits=31)
            raw = unzip.decompress(raw, most)
            if unzip.unconsumed_tail:
                raise HTTPException(413)
        return _object(json.loads(raw))
    except (ValueError, RecursionError, zlib.error):
        return {}  # which says nothing: no password, no statement


def _object(value: Any) -> dict[str, Any]:
    """A part of a request that should be a JSON object; whatever else it is says nothing."""
    return value if isinstance(value, dict) else {}
