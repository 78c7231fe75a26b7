"""Sessions: what a connection's statements mean, and in which order they run."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp
from starlette.concurrency import run_in_threadpool

from standin import copy_into, engine, stage_statements, text
from standin.databases import DONE, Databases
from standin.directory import DirectoryTables
from standin.errors import SqlError, compilation_error, unsupported
from standin.names import StageName, like_pattern, normalise, split_identifiers
from standin.results import TRANSACTION, UNKNOWN, Result, status
from standin.rewrite import Scope, identifiers, rewrite, table_key
from standin.stage_statements import Answer, Caller, StageStatements
from standin.stages import Stage, StageStore
from standin.transactions import Transaction, WriteLock

if TYPE_CHECKING:
    from fakesnow.instance import FakeSnow

BEGIN = re.compile(r"(BEGIN(\s+(WORK|TRANSACTION))?|START\s+TRANSACTION)(\s+NAME\s+\w+)?$", re.I)
END = re.compile(r"(COMMIT|ROLLBACK)(\s+WORK)?$", re.I)
READS = (exp.Select, exp.SetOperation, exp.Values, exp.Show, exp.Describe, exp.Subquery)
WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
DEFINITIONS = (exp.Create, exp.Drop, exp.Alter, exp.Comment, exp.TruncateTable)
KINDS = frozenset({"DATABASE", "SCHEMA", "TABLE", "VIEW", "SEQUENCE", "FILE FORMAT"})
STATEMENT_TIMEOUT = 630
VALUES_ROW = re.compile(r"(.*\bVALUES\s*)(\(.*\))\s*$", re.I | re.S)


@dataclass(frozen=True)
class Shared:
    """What all sessions of the server share."""

    fake: FakeSnow
    store: StageStore
    directories: DirectoryTables
    stage_statements: StageStatements
    lock: WriteLock
    databases: Path


class Session:
    """One logged-in connection; its statements run one after the other."""

    def __init__(self, shared: Shared, number: int, user: str, account: str) -> None:
        self.shared, self.number, self.id = shared, number, secrets.token_hex(8)
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
        self.lock = asyncio.Lock()
        self.last_seen = time.monotonic()

    @property
    def caller(self) -> Caller:
        return Caller(
            self.connection.database, self.connection.schema, self.id, self.client_major < 5
        )

    @property
    def silent_s(self) -> float:
        """Seconds since the last request; 0 while a statement runs."""
        return 0.0 if self.lock.locked() else time.monotonic() - self.last_seen

    async def execute(self, sql: str, bindings: dict[str, Any] | None = None) -> Answer:
        """Run one statement. Raises SqlError."""
        async with self.lock:
            try:
                async with self._time_limit():
                    return await self._dispatch(text.strip_comments(sql), bindings or {})
            finally:
                self.last_seen = time.monotonic()

    @asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[None]:
        """STATEMENT_TIMEOUT_IN_SECONDS, where it is set: DuckDB is interrupted then."""
        limit_s = self.statement_timeout_s
        interrupt = self.connection._duck_conn.interrupt
        timer = asyncio.get_running_loop().call_later(limit_s, interrupt) if limit_s else None
        try:
            yield
        except SqlError as error:
            if limit_s and error.errno == engine.INTERRUPTED:
                message = f"Statement reached its statement timeout of {limit_s} second(s) and was canceled."
                raise SqlError(message, STATEMENT_TIMEOUT, "57014") from error
            raise
        finally:
            if timer:
                timer.cancel()

    async def describe(self, sql: str) -> tuple[Result, int]:
        """The columns that a statement would answer, without running it, and how many values it wants bound."""
        async with self.lock:
            statement, n_bound = text.without_values(text.strip_comments(sql))
            result = await run_in_threadpool(self._describe, statement)
            self.last_seen = time.monotonic()
            return result, n_bound

    async def close(self) -> None:
        """Roll back what is open and drop what is temporary."""
        async with self.lock:
            await self.transaction.rollback()
            for name in self.shared.store.temporary_names(self.id):
                stage = self.shared.store.find(name)
                if stage:
                    self.shared.store.drop(stage)
                    self.shared.directories.forget(name)
            self.connection.close()

    async def _dispatch(self, statement: str, bindings: dict[str, Any]) -> Answer:
        if bindings:
            statement = _with_values(statement, bindings)
        statement = text.with_identifiers(statement, self.variables)
        if BEGIN.match(statement):
            self.transaction.begin()
            return status(DONE, TRANSACTION)
        end = END.match(statement)
        if end:
            await (
                self.transaction.commit()
                if end[1].upper() == "COMMIT"
                else self.transaction.rollback()
            )
            return status(DONE, TRANSACTION)
        about_stage = self.shared.stage_statements.match(statement)
        if about_stage:
            return await self._stage_statement(*about_stage)
        unset = re.match(r"UNSET\s+(\w+)$", statement, re.I)
        if unset:
            self.variables.pop(unset[1].upper(), None)
            return status(DONE)
        return await self._statement(engine.parse_statement(statement))

    async def _stage_statement(self, kind: str, run: Callable[[Caller], Answer]) -> Answer:
        def action() -> Any:
            with engine.sql_errors():
                return run(self.caller)

        if kind in stage_statements.DEFINITIONS:
            return await self.transaction.outside(action)
        return await run_in_threadpool(action)

    async def _statement(self, tree: exp.Expr) -> Result:
        if isinstance(tree, (exp.Use, exp.Set)) or (
            isinstance(tree, exp.Alter) and tree.kind == "SESSION"
        ):
            return await self._set(tree)
        if isinstance(tree, exp.Show) and (tree.args.get("starts_with") or tree.args.get("from_")):
            raise unsupported("STARTS WITH and LIMIT … FROM in SHOW; use LIKE")
        if isinstance(tree, READS):
            fit = self._rewritten(tree)
            result = await self.transaction.read(lambda: self._run(fit))
            return self._shown_stages(tree, result) if isinstance(tree, exp.Show) else result
        if isinstance(tree, exp.Copy):
            return await self._copy(tree)
        if isinstance(tree, WRITES):
            fit = self._rewritten(tree)
            return await self.transaction.write(lambda: self._run(fit.copy()))
        if isinstance(tree, DEFINITIONS):
            return await self.transaction.outside(lambda: self._define(tree))
        raise unsupported(f"{tree.sql('snowflake')[:80]}")

    def _describe(self, statement: str) -> Result:
        if (
            BEGIN.match(statement)
            or END.match(statement)
            or self.shared.stage_statements.match(statement)
        ):
            return status(DONE)
        tree = engine.parse_statement(statement)
        if not isinstance(tree, (exp.Select, exp.SetOperation)):
            return Result(status(DONE).table, engine.TYPES.get(type(tree), UNKNOWN))
        with engine.sql_errors():
            return engine.describe(self.connection, rewrite(tree, self.scope))

    def _shown_stages(self, tree: exp.Show, result: Result) -> Result:
        """SHOW STAGES without the temporary stages of others, and only those LIKE the pattern."""
        if tree.name.upper() != "STAGES":
            return result
        store, like = self.shared.store, tree.args.get("like")
        hidden = set(store.temporary_names()) - set(store.temporary_names(self.id))
        pattern = like_pattern(like.name) if like else re.compile("")
        shown = [
            StageName(row["database_name"], row["schema_name"], row["name"]) not in hidden
            and bool(pattern.match(row["name"]))
            for row in result.table.to_pylist()
        ]
        return Result(result.table.filter(pa.array(shown, pa.bool_())))

    async def _copy(self, tree: exp.Copy) -> Result:
        with engine.sql_errors():
            copy = copy_into.take_apart(tree, self._located)
            target = identifiers(tree).find(exp.Table)
        store, loaded = self.shared.store, set()

        def action() -> Result:
            with engine.sql_errors():
                table = self._copy_target(target)
                result, files = copy_into.load(
                    copy, table, store, self.connection._duck_conn.execute
                )
            loaded.update(file.path for file in files)
            return result

        def purge() -> None:
            for path in loaded:
                store.remove(copy.stage, path)

        wanted = text.flag(copy.options, "PURGE", False)
        return await self.transaction.write(action, purge if wanted else None)

    def _located(self, reference: str) -> tuple[Stage, str]:
        name, path = self.caller.reference(reference)
        return self.shared.store.get(name, self.id), path

    def _copy_target(self, table: exp.Table) -> copy_into.Table:
        database, schema, name = key = table_key(table, self.scope)
        temporary = key in self.temporary_tables
        sql = ".".join(
            '"' + part.replace('"', '""') + '"'
            for part in (("temp", "main", name) if temporary else key)
        )
        duck = self.connection._duck_conn
        columns = [row[0] for row in duck.execute(f"describe {sql}").fetchall()]
        noted = (schema, name)
        if temporary:
            oids = duck.execute(
                "select table_oid from duckdb_tables() where temporary and table_name = ?", [name]
            )
            ((oid,),) = oids.fetchall()
            noted = (self.id, str(oid))
        return copy_into.Table(
            sql, columns, f'"{database}"._fs_information_schema._fs_load_history', noted
        )

    def _rewritten(self, tree: exp.Expr) -> exp.Expr:
        with engine.sql_errors():
            return rewrite(tree, self.scope)

    @property
    def scope(self) -> Scope:
        store, session = self.shared.store, self.id
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
        )

    def _run(self, tree: exp.Expr) -> Result:
        return engine.run(self.connection, tree)

    def _define(self, tree: exp.Expr) -> Result:
        """Run DDL, and see to what fakesnow leaves undone."""
        kind = str(tree.args.get("kind") or "TABLE").upper()
        if kind not in KINDS:
            raise unsupported(f"{tree.key.upper()} {kind}")
        with engine.sql_errors():
            if kind == "DATABASE":
                return self._define_database(tree)
            scope, tree = self.scope, identifiers(tree)
            key = table_key(tree.find(exp.Table), scope) if tree.find(exp.Table) else ("", "", "")
            result = self._run(rewrite(tree, scope))
            self._after_definition(tree, kind, key)
            return result

    def _define_database(self, tree: exp.Expr) -> Result:
        table = tree.find(exp.Table)
        name = normalise(table.this.sql("snowflake"))
        if isinstance(tree, exp.Drop):
            result = self.databases.drop(name, bool(tree.args.get("exists")))
            self._drop_stages(name, None)
            return result
        if not isinstance(tree, exp.Create):
            raise unsupported(tree.sql("snowflake"))
        if tree.args.get("replace"):
            self.databases.drop(name, if_exists=True)
            self._drop_stages(name, None)
        return self.databases.create(name, bool(tree.args.get("exists")))

    def _after_definition(self, tree: exp.Expr, kind: str, key: tuple[str, str, str]) -> None:
        if isinstance(tree, exp.Create) and kind == "TABLE" and tree.find(exp.TemporaryProperty):
            self.temporary_tables.add(key)
        elif isinstance(tree, exp.Drop) and kind == "TABLE":
            self.temporary_tables.discard(key)
        elif isinstance(tree, exp.TruncateTable):
            self._forget_loads(key)
        elif isinstance(tree, exp.Drop) and kind == "SCHEMA":
            self._drop_stages(key[1], key[2])

    def _forget_loads(self, key: tuple[str, str, str]) -> None:
        """After TRUNCATE, COPY loads the same files again."""
        history = f'"{key[0]}"._fs_information_schema._fs_load_history'
        sql = f"delete from {history} where (SCHEMA_NAME, TABLE_NAME) = (?, ?)"
        self.connection._duck_conn.execute(sql, [key[1], key[2]])

    def _drop_stages(self, database: str, schema: str | None) -> None:
        for name in self.shared.store.names(database, schema):
            stage = self.shared.store.find(name)
            if stage:
                self.shared.store.drop(stage)
                self.shared.directories.forget(name)

    async def _set(self, tree: exp.Expr) -> Result:
        if isinstance(tree, exp.Use):
            return await run_in_threadpool(self._use, tree)
        if isinstance(tree, exp.Alter):
            return await self._alter_session(tree)
        for item in tree.expressions:
            if not isinstance(item.this, exp.EQ):
                raise unsupported(tree.sql("snowflake"))
            self.variables[item.this.this.name.upper()] = item.this.expression.sql("snowflake")
        return status(DONE)

    def _use(self, tree: exp.Use) -> Result:
        names = split_identifiers(tree.this.sql("snowflake"))
        kind = (
            str(tree.args["kind"]).upper()
            if tree.args.get("kind")
            else "DATABASE"
            if len(names) == 1
            else "SCHEMA"
        )
        if kind in ("ROLE", "WAREHOUSE"):
            self.context[f"CURRENT_{kind}"] = names[-1]
            return status(DONE)
        if kind not in ("DATABASE", "SCHEMA"):
            raise unsupported(tree.sql("snowflake"))
        with engine.sql_errors():
            if kind == "DATABASE":
                return self.databases.use(names[0], None)
            database = names[0] if len(names) > 1 else self.connection.database
            if database is None:
                raise compilation_error(
                    "This session does not have a current database. Call 'USE DATABASE'.", 90105
                )
            return self.databases.use(database, names[-1])

    async def _alter_session(self, tree: exp.Alter) -> Result:
        found = re.match(
            r"ALTER SESSION SET (\w+)\s*=\s*'?([\w/ ]+)'?$", tree.sql("snowflake"), re.I
        )
        name, value = (found[1].upper(), found[2].upper()) if found else ("", "")
        if name == "AUTOCOMMIT" and value in ("TRUE", "FALSE"):
            if value == "TRUE":
                await self.transaction.commit()
            self.transaction.autocommit = value == "TRUE"
        elif name == "STATEMENT_TIMEOUT_IN_SECONDS" and value.isdigit():
            self.statement_timeout_s = int(value)
        elif (name, value) not in (
            ("TIMEZONE", "UTC"),
            ("TIMEZONE", "ETC/UTC"),
        ) and name != "QUERY_TAG":
            raise unsupported(tree.sql("snowflake"))
        return status(DONE)


def _with_values(statement: str, bindings: dict[str, Any]) -> str:
    """Bound values in place; where each holds a list, one row of VALUES for each of its items."""
    if not any(isinstance(binding.get("value"), list) for binding in bindings.values()):
        return text.inline_bindings(statement, bindings)
    found = VALUES_ROW.match(statement)
    if not found or text.PLACEHOLDER.search(found[1]):
        raise unsupported("many rows of bound values in a statement other than INSERT … VALUES (…)")
    n_rows = len(next(iter(bindings.values()))["value"])
    one_row = [
        {key: {**b, "value": b["value"][i]} for key, b in bindings.items()} for i in range(n_rows)
    ]
    return found[1] + ", ".join(text.inline_bindings(found[2], row) for row in one_row)
