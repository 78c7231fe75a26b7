"""The bodies of the server's answers, as the connector expects them."""

from __future__ import annotations

import secrets
from base64 import b64encode
from typing import Any

import pyarrow as pa
from starlette.responses import JSONResponse

from standin.errors import INTERNAL, SqlError
from standin.results import CHANGING_ROWS, INSERT, Result, to_wire
from standin.sessions import Session

LONGEST_SESSION_S = 4 * 3600.0
BATCH_ROWS = 100_000
SERVER_VERSION = "9.0.0"
UNKNOWN_SESSION = SqlError(  # at this number the connector says that the session is gone
    "The session is unknown to the local stand-in (was it restarted?). Connect again.",
    390104,
    "08001",
)


def succeeded(data: Any = None) -> JSONResponse:
    """The envelope around every good answer."""
    return JSONResponse({"data": data, "code": None, "message": None, "success": True})


def failed(error: SqlError) -> JSONResponse:
    """An SQL error: HTTP 200, as Snowflake answers it."""
    code = f"{error.errno:06d}"
    return JSONResponse(
        {
            "data": {"errorCode": code, "sqlState": error.sqlstate},
            "code": code,
            "message": error.msg,
            "success": False,
        }
    )


def internal_error(error: Exception) -> JSONResponse:
    """Never HTTP 500: the connector would send the request again and again."""
    return failed(SqlError(f"Internal error of the local stand-in: {error!r}", INTERNAL, "XX000"))


def unknown_session() -> JSONResponse:
    """The token is not, or no longer, one of a session's."""
    return failed(UNKNOWN_SESSION)


def login_data(token: str, session: Session) -> dict[str, Any]:
    """What a connection learns when it logs in."""
    return {
        "token": token,
        # Never asked for here, but connector 5 refuses a log-in without one.
        "masterToken": secrets.token_urlsafe(32),
        "validityInSeconds": int(LONGEST_SESSION_S),
        "masterValidityInSeconds": int(LONGEST_SESSION_S),
        "sessionId": session.number,
        "serverVersion": SERVER_VERSION,
        "parameters": [
            {"name": "AUTOCOMMIT", "value": session.transaction.autocommit},
            {"name": "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", "value": 3600},
            # 0: many rows of bound values come with the statement, not as files on a stage.
            {"name": "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", "value": 0},
        ],
        "sessionInfo": {
            "databaseName": session.connection.database,
            "schemaName": session.connection.schema,
            "warehouseName": session.context["CURRENT_WAREHOUSE"],
            "roleName": session.context["CURRENT_ROLE"],
        },
    }


def result_data(session: Session, result: Result, n_bound: int = 0) -> tuple[dict, pa.Table]:
    """A result, and all its rows as Arrow; rows after BATCH_ROWS are left to the caller.

    n_bound: how many values the statement wants, for a description of it.
    """
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
        # The connector adds up its rowcount from JSON rows only, whatever else it can read.
        cells = [[str(row[name]) for name in table.column_names] for row in table.to_pylist()]
        data |= {"queryResultFormat": "json", "rowset": cells}
    else:
        first = b64encode(arrow_bytes(table.slice(0, BATCH_ROWS))).decode()
        data |= {"queryResultFormat": "arrow", "rowsetBase64": first if table.num_rows else ""}
    return data, table


def arrow_bytes(table: pa.Table) -> bytes:
    """Rows as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
