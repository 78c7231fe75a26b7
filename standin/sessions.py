"""Sessions: what a connection's statements mean, and in which order they run."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp
from starlette.concurrency import run_in_threadpool

from standin import allowed, changes, definitions, engine, settings, stage_statements, text
from standin.compat import GLOBAL_DATABASE
from standin.databases import DONE, Databases
from standin.directory import DirectoryTables
from standin.errors import SqlError, unsupported
from standin.history import History
from standin.names import like_pattern
from standin.pipelines import Pipelines
from standin.results import TRANSACTION, UNKNOWN, Result, rows, status
from standin.rewrite import Scope, rewrite
from standin.stage_statements import Answer, Caller, StageStatements
from standin.stages import OF_SESSION, StageStore
from standin.streams import Streams
from standin.transactions import Transaction, WriteLock

if TYPE_CHECKING:
    import duckdb
    from fakesnow.instance import FakeSnow

# Never left to fakesnow, which hands them on to DuckDB: its transactions are not Snowflake's.
BEGIN = re.compile(r"(BEGIN(\s+(WORK|TRANSACTION))?|START\s+TRANSACTION)(\s+NAME\s+\w+)?$", re.I)
END = re.compile(r"(COMMIT|ROLLBACK)(\s+WORK)?$", re.I)
READS = (exp.Select, exp.SetOperation, exp.Values, exp.Show, exp.Describe, exp.Subquery)
WAREHOUSE = "FAKESNOW_WAREHOUSE"  # the one that SHOW WAREHOUSES shows
WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
DEFINITIONS = (exp.Create, exp.Drop, exp.Alter, exp.Comment, exp.TruncateTable)
# of these there are none: the stand-in makes no such thing
NEVER_ANY = re.compile(
    r"SHOW\s+(USER\s+FUNCTION|PIPE|ALERT|STREAMLIT|NOTEBOOK|SECRET|NETWORK\s+RULE|MODEL"
    r"|SEMANTIC\s+VIEW)S\s+IN\s+(DATABASE|SCHEMA)\s+\S+$",
    re.I,
)
STATEMENT_TIMEOUT = 630


@dataclass(frozen=True)
class Shared:
    """What all sessions of the server share."""

    fake: FakeSnow
    store: StageStore
    directories: DirectoryTables
    stage_statements: StageStatements
    streams: Streams
    pipelines: Pipelines
    history: History
    lock: WriteLock
    databases: Path


class Session:
    """One logged-in connection; its statements run one after the other.

    Each is recognised by pattern (transactions, stages) or parsed, then rewritten, then run by the
    transaction as what it is: a read, a write, or a definition.
    """

    def __init__(self, shared: Shared, number: int, user: str, account: str) -> None:
        self.shared = shared
        self.number = number
        self.id = secrets.token_hex(8)
        self.connection = shared.fake.connect()
        self.databases = Databases(shared.databases, self.connection)
        self.context: dict[str, str | None] = {
            "CURRENT_USER": user.upper(),
            "CURRENT_ROLE": "SANDBOX_ROLE",
            "CURRENT_WAREHOUSE": None,
            "CURRENT_ACCOUNT": account.upper(),
            "CURRENT_REGION": "LOCAL",
            "CURRENT_SESSION": str(number),
        }
        label = f"session {number} ({user})"
        self.transaction = Transaction(self.connection, shared.lock, label)
        self.variables: dict[str, str] = {}
        self.temporary_tables: set[tuple[str, str, str]] = set()
        self.client_major = 5
        self.statement_timeout_s = 0
        self.query_tag = ""
        self.lock = asyncio.Lock()
        self.last_seen = time.monotonic()

    @property
    def duck(self) -> duckdb.DuckDBPyConnection:
        """DuckDB itself, for what fakesnow has no way to say: interrupts, and SQL that is ready."""
        return self.connection._duck_conn

    @property
    def caller(self) -> Caller:
        """The session, as the statements about stages see it."""
        return Caller(
            self.connection.database,
            self.connection.schema,
            self.id,
            by_url=self.client_major < 5,
        )

    @property
    def silent_s(self) -> float:
        """Seconds since the last request; 0 while a statement runs."""
        return 0.0 if self.lock.locked() else time.monotonic() - self.last_seen

    async def execute(
        self, sql: str, bindings: dict[str, Any] | None = None, query_tag: str | None = None
    ) -> Answer:
        """Run one statement. query_tag: its own, in place of the session's. Raises SqlError."""
        async with self.lock:
            statement = text.strip_comments(sql)
            about = {
                "QUERY_TAG": self.query_tag if query_tag is None else query_tag,
                "DATABASE_NAME": self.connection.database,
                "SCHEMA_NAME": self.connection.schema,
                "SESSION_ID": self.number,
                "USER_NAME": self.context["CURRENT_USER"],
                "ROLE_NAME": self.context["CURRENT_ROLE"],
                "WAREHOUSE_NAME": self.context["CURRENT_WAREHOUSE"] or WAREHOUSE,
            }
            try:
                with self.shared.history.noted(statement, **about) as entry:
                    async with self._time_limit():
                        answer = await self._dispatch(statement, bindings or {})
                    entry["QUERY_ID"] = getattr(answer, "query_id", entry["QUERY_ID"])
                    return answer
            finally:
                self.last_seen = time.monotonic()

    @asynccontextmanager
    async def _time_limit(self) -> AsyncGenerator[None, None]:
        """STATEMENT_TIMEOUT_IN_SECONDS, where it is set: DuckDB is interrupted then."""
        limit_s = self.statement_timeout_s
        interrupt = self.duck.interrupt
        timer = asyncio.get_running_loop().call_later(limit_s, interrupt) if limit_s else None
        try:
            yield
        except SqlError as error:
            if limit_s and error.errno == engine.INTERRUPTED:
                raise SqlError(
                    f"Statement reached its statement timeout of {limit_s} second(s)"
                    " and was canceled.",
                    STATEMENT_TIMEOUT,
                    "57014",
                ) from error
            raise
        finally:
            if timer:
                timer.cancel()

    async def describe(self, sql: str) -> tuple[Result, int]:
        """The columns of a statement's answer, without running it, and how many values it wants."""
        async with self.lock:
            statement, n_bound = text.without_values(text.strip_comments(sql))
            result = await run_in_threadpool(self._describe, statement)
            self.last_seen = time.monotonic()
            return result, n_bound

    async def close(self) -> None:
        """Roll back what is open and drop what is temporary."""
        async with self.lock:
            await self.transaction.rollback()
            self.shared.directories.drop_stages(self.shared.store.temporary_names(self.id))
            self.connection.close()

    async def _dispatch(self, statement: str, bindings: dict[str, Any]) -> Answer:
        if bindings:
            statement = text.with_values(statement, bindings)
        statement = text.with_identifiers(statement, self.variables)
        if BEGIN.match(statement):
            self.transaction.begin()
            return status(DONE, TRANSACTION)
        end = END.match(statement)
        if end:
            if end[1].upper() == "COMMIT":
                await self.transaction.commit()
            else:
                await self.transaction.rollback()
            return status(DONE, TRANSACTION)
        about_stage = self.shared.stage_statements.match(statement)
        if about_stage:
            return await self._stage_statement(*about_stage)
        about_pipeline = await self._pipeline_statement(statement)
        if about_pipeline:
            return about_pipeline
        unset = re.match(r"UNSET\s+(\w+)$", statement, re.I)
        if unset:
            self.variables.pop(unset[1].upper(), None)
            return status(DONE)
        if NEVER_ANY.match(statement):
            return rows(["created_on", "name", "schema_name"], [])
        tree = engine.parse_statement(statement)
        allowed.check(tree)
        return await self._statement(tree)

    async def _stage_statement(self, kind: str, run: Callable[[Caller], Answer]) -> Answer:
        def action() -> Any:
            with engine.sql_errors():
                return run(self.caller)

        if kind in stage_statements.DEFINITIONS:
            return await self.transaction.outside(action)
        # Files are no part of a transaction, here as in Snowflake.
        return await run_in_threadpool(action)

    async def _pipeline_statement(self, statement: str) -> Result | None:
        async def run(definition: str) -> Answer:
            return await self._dispatch(definition, {})

        with engine.sql_errors():
            return await self.shared.pipelines.answer(statement, self.caller, run)

    async def _statement(self, tree: exp.Expr) -> Result:
        if isinstance(tree, (exp.Use, exp.Set)) or (
            isinstance(tree, exp.Alter) and tree.kind == "SESSION"
        ):
            return await settings.change(self, tree)
        if isinstance(tree, exp.Show) and (tree.args.get("starts_with") or tree.args.get("from_")):
            raise unsupported("STARTS WITH and LIMIT … FROM in SHOW; use LIKE")
        if isinstance(tree, READS):
            fit = self.rewritten(tree)
            result = await self.transaction.read(lambda: self.run(fit))
            return self._shown(tree, result) if isinstance(tree, exp.Show) else result
        if isinstance(tree, exp.Copy):
            return await changes.copy(self, tree)
        if isinstance(tree, WRITES):
            return await changes.write(self, tree)
        if isinstance(tree, DEFINITIONS):
            return await self.transaction.outside(lambda: definitions.define(self, tree))
        raise unsupported(f"{tree.sql('snowflake')[:80]}")

    def _describe(self, statement: str) -> Result:
        ends_or_begins = BEGIN.match(statement) or END.match(statement)
        if ends_or_begins or self.shared.stage_statements.match(statement):
            return status(DONE)
        if NEVER_ANY.match(statement):
            return rows(["created_on", "name", "schema_name"], [])
        tree = engine.parse_statement(statement)
        allowed.check(tree)
        if not isinstance(tree, (exp.Select, exp.SetOperation)):
            return Result(status(DONE).table, engine.TYPES.get(type(tree), UNKNOWN))
        with engine.sql_errors():
            return engine.describe(self.connection, rewrite(tree, self.scope))

    def _shown(self, tree: exp.Show, result: Result) -> Result:
        """Without DuckDB's bookkeeping; of stages those LIKE the pattern, no other session's."""
        like = tree.args.get("like") if tree.name.upper() == "STAGES" else None
        pattern = like_pattern(like.name) if like else re.compile("")
        shown = []
        for row in result.table.to_pylist():
            name, of_another, owner = str(row.get("name")).partition(OF_SESSION)
            is_hidden = GLOBAL_DATABASE in row.values() or (of_another and owner != self.id)
            if pattern.match(name) and not is_hidden:
                shown.append(row | {"name": name})
        return Result(pa.Table.from_pylist(shown, schema=result.table.schema))

    def rewritten(self, tree: exp.Expr) -> exp.Expr:
        """The tree for fakesnow; the given one is used up. Raises SqlError."""
        with engine.sql_errors():
            return rewrite(tree, self.scope)

    @property
    def scope(self) -> Scope:
        """What names mean in the session's statements, as of now."""
        store = self.shared.store
        session = self.id
        current = {
            "CURRENT_DATABASE": self.connection.database,
            "CURRENT_SCHEMA": self.connection.schema,
        }
        return Scope(
            self.connection.database,
            self.connection.schema,
            lambda name: store.get(name, session),
            self.context | current,
            self.variables,
            self.temporary_tables,
            self.shared.streams,
            self.shared.history,
        )

    def run(self, tree: exp.Expr) -> Result:
        """Run a rewritten statement at once, whatever the transaction. Raises SqlError."""
        return engine.run(self.connection, tree)
