"""The HTTP interface that the connector talks to."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import secrets
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from standin.errors import INTERNAL, SqlError
from standin.names import normalise
from standin.results import CHANGING_ROWS, INSERT, Result, to_wire
from standin.sessions import Session, Shared
from standin.stage_statements import Transfer

LOG = logging.getLogger("standin")
LONGEST_SESSION_S = 4 * 3600.0
BATCH_ROWS = 100_000
KEPT_BATCH_BYTES = 1 << 30
SERVER_VERSION = "9.0.0"
UNKNOWN_SESSION = "390104"


class Service:
    """Sessions by token, and the endpoints that use them."""

    def __init__(self, shared: Shared, about: Mapping[str, Any], idle_s: float) -> None:
        self._shared, self._about, self._idle_s = shared, about, idle_s
        self._sessions: dict[str, Session] = {}
        self._requests: dict[str, asyncio.Task[Response]] = {}
        self._number = 0
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
        all_routes = [
            Route(path, endpoint, methods=[method]) for path, endpoint, method in own
        ] + routes
        handlers = {Exception: _unexpected}
        return Starlette(routes=all_routes, lifespan=self._lifespan, exception_handlers=handlers)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        for session in list(self._sessions.values()):
            await session.close()

    async def _watch(self) -> None:
        """Roll back the transactions of sessions that have fallen silent."""
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
        return JSONResponse(dict(self._about))

    async def batch(self, request: Request) -> Response:
        """One batch of a large result; the name is its secret."""
        content = self._batches.get(request.path_params["name"])
        return Response(content) if content is not None else Response("NoSuchKey", 404)

    async def telemetry(self, request: Request) -> JSONResponse:
        return JSONResponse({"success": True})

    async def login(self, request: Request) -> JSONResponse:
        data = (await _body(request)).get("data", {})
        self._number += 1
        session = Session(
            self._shared,
            self._number,
            data.get("LOGIN_NAME") or "TUTORIAL",
            data.get("ACCOUNT_NAME") or "",
        )
        major = str(data.get("CLIENT_APP_VERSION", "5")).partition(".")[0]
        session.client_major = int(major) if major.isdigit() else 5
        query = request.query_params
        database, schema = query.get("databaseName"), query.get("schemaName")
        if database and session.databases.exists(normalise(database)):
            chosen = (
                normalise(schema)
                if schema and session.databases.exists(normalise(database), normalise(schema))
                else None
            )
            session.databases.use(normalise(database), chosen)
        for key, part in (("CURRENT_WAREHOUSE", "warehouse"), ("CURRENT_ROLE", "roleName")):
            if query.get(part):
                session.context[key] = normalise(query[part])
        wanted = str(data.get("SESSION_PARAMETERS", {}).get("AUTOCOMMIT", True)).lower()
        session.transaction.autocommit = wanted != "false"
        token = secrets.token_urlsafe(32)
        self._sessions[token] = session
        return JSONResponse(
            {"success": True, "message": None, "code": None, "data": _login_data(token, session)}
        )

    async def session(self, request: Request) -> JSONResponse:
        token = _token(request)
        session = self._sessions.get(token)
        if session is None:
            return _unknown_session()
        session.last_seen = time.monotonic()
        if request.query_params.get("delete"):
            del self._sessions[token]
            await session.close()
        return JSONResponse({"data": None, "code": None, "message": None, "success": True})

    async def abort(self, request: Request) -> JSONResponse:
        session = self._sessions.get(_token(request))
        if session:
            session.connection._duck_conn.interrupt()
        return JSONResponse(
            {"data": None, "code": None, "message": None, "success": session is not None}
        )

    async def query(self, request: Request) -> Response:
        """Run a statement. A request sent again, as after a broken connection, is answered but not run again."""
        session = self._sessions.get(_token(request))
        if session is None:
            return _unknown_session()
        body = await _body(request)
        request_id = request.query_params.get("requestId") or secrets.token_hex(8)
        task = self._requests.get(request_id)
        if task is None:
            task = asyncio.create_task(self._answer(session, body))
            self._requests[request_id] = task
            task.add_done_callback(
                lambda _: asyncio.get_running_loop().call_later(
                    60, self._requests.pop, request_id, None
                )
            )
        return await asyncio.shield(task)

    async def _answer(self, session: Session, body: dict[str, Any]) -> Response:
        try:
            if body.get("describeOnly"):
                described, n_bound = await session.describe(body.get("sqlText", ""))
                return self._result_response(session, described, n_bound)
            answer = await session.execute(body.get("sqlText", ""), body.get("bindings"))
            if isinstance(answer, Transfer):
                return JSONResponse(
                    {"data": answer.data, "success": True, "code": None, "message": None}
                )
            return await asyncio.to_thread(self._result_response, session, answer)
        except SqlError as error:
            return _failed(error)
        except Exception as error:
            LOG.exception("failed request")
            return _failed(
                SqlError(f"Internal error of the local stand-in: {error!r}", INTERNAL, "XX000")
            )

    def _result_response(self, session: Session, result: Result, n_bound: int = 0) -> JSONResponse:
        """n_bound: how many values the statement wants, for a description of it."""
        infos, table = to_wire(result.table)
        data: dict[str, Any] = {
            "parameters": [{"name": "TIMEZONE", "value": "Etc/UTC"}],
            "rowtype": infos,
            "total": table.num_rows,
            "returned": table.num_rows,
            "queryId": result.query_id,
            "statementTypeId": result.statement_type,
            "numberOfBinds": n_bound,
            "arrayBindSupported": result.statement_type == INSERT,
            "finalDatabaseName": session.connection.database,
            "finalSchemaName": session.connection.schema,
            "finalWarehouseName": session.context["CURRENT_WAREHOUSE"],
            "finalRoleName": session.context["CURRENT_ROLE"],
        }
        if result.statement_type in CHANGING_ROWS:
            cells = [[str(row[name]) for name in table.column_names] for row in table.to_pylist()]
            data |= {"queryResultFormat": "json", "rowset": cells}
        else:
            first = b64encode(_ipc(table.slice(0, BATCH_ROWS))).decode() if table.num_rows else ""
            data |= {"queryResultFormat": "arrow", "rowsetBase64": first}
            if table.num_rows > BATCH_ROWS:
                data |= {"chunks": self._chunks(table), "chunkHeaders": {}}
        return JSONResponse({"data": data, "success": True, "code": None, "message": None})

    def _chunks(self, table: pa.Table) -> list[dict[str, Any]]:
        """The rows after the first batch, each batch at an address of its own, as Snowflake serves them."""
        chunks = []
        for start in range(BATCH_ROWS, table.num_rows, BATCH_ROWS):
            rows, name = table.slice(start, BATCH_ROWS), secrets.token_urlsafe(24)
            self._batches[name] = content = _ipc(rows)
            url = f"http://{self._about['host']}:{self._about['port']}/results/{name}"
            sizes = {"uncompressedSize": len(content), "compressedSize": len(content)}
            chunks.append({"url": url, "rowCount": rows.num_rows, **sizes})
        while sum(map(len, self._batches.values())) > KEPT_BATCH_BYTES and len(self._batches) > len(
            chunks
        ):
            self._batches.popitem(last=False)
        return chunks


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """Never HTTP 500: the connector would send the request again and again."""
    return _failed(SqlError(f"Internal error of the local stand-in: {error!r}", INTERNAL, "XX000"))


def _login_data(token: str, session: Session) -> dict[str, Any]:
    return {
        "token": token,
        "masterToken": secrets.token_urlsafe(32),
        "validityInSeconds": int(LONGEST_SESSION_S),
        "masterValidityInSeconds": int(LONGEST_SESSION_S),
        "sessionId": session.number,
        "serverVersion": SERVER_VERSION,
        "parameters": [
            {"name": "AUTOCOMMIT", "value": session.transaction.autocommit},
            {"name": "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", "value": 3600},
            {"name": "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", "value": 0},
        ],
        "sessionInfo": {
            "databaseName": session.connection.database,
            "schemaName": session.connection.schema,
            "warehouseName": session.context["CURRENT_WAREHOUSE"],
            "roleName": session.context["CURRENT_ROLE"],
        },
    }


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _failed(error: SqlError) -> JSONResponse:
    code = f"{error.errno:06d}"
    data = {"errorCode": code, "sqlState": error.sqlstate}
    return JSONResponse({"data": data, "code": code, "message": error.msg, "success": False})


def _unknown_session() -> JSONResponse:
    message = "The session is unknown to the local stand-in (was it restarted?). Connect again."
    return JSONResponse(
        {
            "data": None,
            "code": UNKNOWN_SESSION,
            "message": message,
            "success": False,
            "headers": None,
        }
    )


def _token(request: Request) -> str:
    found = request.headers.get("Authorization", "").partition('Token="')[2]
    return found.rstrip('"')


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        raw = gzip.decompress(raw)
    return json.loads(raw) if raw else {}
