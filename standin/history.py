"""The query history: which statements ran, as INFORMATION_SCHEMA's table functions tell it.

The newest are kept in memory, and in the catalogue when somebody asks and when the server ends.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import uuid
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from sqlglot import exp

from standin.errors import compilation_error, does_not_exist, unsupported
from standin.names import qualify, split_identifiers
from standin.stages import StageStore

TABLE = "_fs_global.standin.query_history"
KEPT = 10_000  # statements, as many as Snowflake's functions tell at most
LONGEST_TEXT = 100_000  # characters, as in Snowflake
LONGEST_TAG = 2000
# some of Snowflake's columns; the size is null for a statement that needs no warehouse, END_TIME
# while it runs, and BYTES_SCANNED always: DuckDB does not tell
COLUMNS = pa.schema(
    {
        **dict.fromkeys(("QUERY_ID", "QUERY_TEXT", "QUERY_TYPE", "QUERY_TAG"), pa.string()),
        **dict.fromkeys(("DATABASE_NAME", "SCHEMA_NAME", "USER_NAME", "ROLE_NAME"), pa.string()),
        **dict.fromkeys(("WAREHOUSE_NAME", "WAREHOUSE_SIZE", "EXECUTION_STATUS"), pa.string()),
        **dict.fromkeys(("SESSION_ID", "TOTAL_ELAPSED_TIME", "BYTES_SCANNED"), pa.int64()),
        **dict.fromkeys(("START_TIME", "END_TIME"), pa.timestamp("us", tz="UTC")),
    }
)
# function -> the arguments that it has without being given them
FUNCTIONS: dict[str, dict[str, str]] = {
    "QUERY_HISTORY": {},
    "QUERY_HISTORY_BY_SESSION": {"SESSION_ID": "current_session()"},
    "QUERY_HISTORY_BY_USER": {"USER_NAME": "current_user()"},
    "QUERY_HISTORY_BY_WAREHOUSE": {"WAREHOUSE_NAME": "current_warehouse()"},
}
# argument -> which statements it chooses
CONDITIONS = {
    "SESSION_ID": '"SESSION_ID"::text = ({})::text',
    "USER_NAME": '"USER_NAME" = upper({})',
    "WAREHOUSE_NAME": '"WAREHOUSE_NAME" = upper({})',
    "END_TIME_RANGE_START": '"END_TIME" >= {}',
    "END_TIME_RANGE_END": '"END_TIME" <= {}',
}
CALL = re.compile(rf"(?:(.+)\.)?INFORMATION_SCHEMA\.({'|'.join(FUNCTIONS)})\(", re.I)
EXISTS = "select 1 from information_schema.schemata where catalog_name = ?"
# first word -> Snowflake's name for what the statement is, where that is another
KINDS = {
    **{"PUT": "PUT_FILES", "GET": "GET_FILES", "LIST": "LIST_FILES", "LS": "LIST_FILES"},
    **{"REMOVE": "REMOVE_FILES", "RM": "REMOVE_FILES", "WITH": "SELECT", "DESC": "DESCRIBE"},
    **{"BEGIN": "BEGIN_TRANSACTION", "START": "BEGIN_TRANSACTION", "TRUNCATE": "TRUNCATE_TABLE"},
}
# reads or writes rows: all else the cloud services do without a warehouse
NEEDS_WAREHOUSE = re.compile(
    r"(INSERT|UPDATE|DELETE|MERGE|COPY)\b|\(*\s*(SELECT|WITH)\b.*\bFROM\b"
    r"|CREATE\b[\w\s]*\bTABLE\b.*\bAS\s*\(?\s*(SELECT|WITH)\b",
    re.I | re.S,
)
# a value that Snowflake too leaves out of the text; where that is cut off, also half a value
SECRET = re.compile(
    r"((?:SECRET|PASSWORD|TOKEN|KEY)\w{0,30}\s*=\s*)'(?:[^'\\]|\\.|'')*(?:'|\Z)", re.I | re.S
)


class History:
    """The newest statements of all sessions; each user sees its own."""

    def __init__(self, store: StageStore) -> None:
        self._store = store
        self._saving = threading.Lock()
        with store.cursor() as cursor:
            cursor.register("nothing", COLUMNS.empty_table())
            cursor.execute(f"create table if not exists {TABLE} as select * from nothing")
            # without what ran when an earlier server was killed
            ended = f"select * from {TABLE} where END_TIME is not null order by START_TIME"
            earlier = cursor.sql(ended).to_arrow_table().to_pylist()
        self._entries = deque(earlier, maxlen=KEPT)

    @contextmanager
    def noted(self, sql: str, **about: Any) -> Generator[dict[str, Any], None, None]:
        """An entry for a statement that runs meanwhile. about: other columns of it.

        Raises SqlError for a tag that is too long.
        """
        if len(about["QUERY_TAG"]) > LONGEST_TAG:
            raise compilation_error(f"QUERY_TAG is longer than {LONGEST_TAG} characters.")
        verb = re.sub(r"\W.*", "", sql[:20].upper(), flags=re.S)
        entry: dict[str, Any] = dict.fromkeys(COLUMNS.names) | about
        entry |= {
            "QUERY_ID": str(uuid.uuid4()),
            "QUERY_TEXT": SECRET.sub(r"\1'****'", sql[:LONGEST_TEXT]),
            "QUERY_TYPE": KINDS.get(verb, verb),
            "WAREHOUSE_SIZE": "X-Small" if NEEDS_WAREHOUSE.match(sql) else None,
            "EXECUTION_STATUS": "RUNNING",
            "START_TIME": dt.datetime.now(dt.UTC),
        }
        self._entries.append(entry)
        outcome = "FAILED_WITH_ERROR"
        try:
            yield entry
            outcome = "SUCCESS"
        finally:
            end = dt.datetime.now(dt.UTC)
            elapsed = (end - entry["START_TIME"]) // dt.timedelta(milliseconds=1)
            entry |= {"EXECUTION_STATUS": outcome, "END_TIME": end, "TOTAL_ELAPSED_TIME": elapsed}

    def save(self) -> None:
        """Bring the catalogue's table up to date."""
        with self._saving, self._store.cursor() as cursor:
            cursor.register("entries", pa.Table.from_pylist(list(self._entries), schema=COLUMNS))
            cursor.execute(f"create or replace table {TABLE} as select * from entries")

    def sql(self, call: exp.TableFromRows, database: str | None) -> str | None:
        """A SELECT of what the call tells; None if it is of another function.

        database: the current one. Raises SqlError.
        """
        found = CALL.match(call.this.sql("snowflake"))
        if not found:
            return None
        place = [*split_identifiers(found[1] or ""), "INFORMATION_SCHEMA", found[2]]
        named = qualify(place, database, None).database
        if not self._store.query(EXISTS, [named]):
            raise does_not_exist("Database", named)
        arguments = (node.sql("snowflake") for node in call.this.expression.expressions)
        parts = (argument.partition(" => ") for argument in arguments)
        given = FUNCTIONS[found[2].upper()] | {name.upper(): value for name, _, value in parts}
        limit = given.pop("RESULT_LIMIT", "100")
        if not limit.isdigit() or not 1 <= int(limit) <= KEPT or given.keys() - CONDITIONS.keys():
            raise unsupported(call.sql("snowflake"))
        chosen = [CONDITIONS[name].format(value) for name, value in given.items()]
        where = " and ".join(['"USER_NAME" = current_user()', *chosen])
        self.save()
        return f'select * from {TABLE} where {where} order by "START_TIME" desc limit {limit}'
