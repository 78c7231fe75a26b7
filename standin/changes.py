"""The statements that change rows: INSERT, UPDATE, DELETE, MERGE, and COPY INTO a table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlglot import exp

from standin import copy_into, engine, text
from standin.results import Result
from standin.rewrite import identifiers, table_key
from standin.stages import Stage

if TYPE_CHECKING:
    from standin.sessions import Session


async def write(session: Session, tree: exp.Expr) -> Result:
    """A statement that changes rows; the streams that it reads move on with its commit."""
    streams = session.shared.streams
    stages = streams.names()
    tables = {table_key(table, session.scope) for table in identifiers(tree).find_all(exp.Table)}
    offsets = {}

    def action() -> Result:
        for name in (".".join(key) for key in tables):
            if name in stages:
                offsets[name] = streams.snapshot(stages[name])
        # A copy: fakesnow uses the tree up, and the transaction may run the statement again.
        return session.run(fit.copy())

    def move_on() -> None:
        for name, snapshot in offsets.items():
            streams.advance(name, snapshot)

    fit = session.rewritten(tree)
    return await session.transaction.write(action, move_on)


async def copy(session: Session, tree: exp.Copy) -> Result:
    """COPY INTO a table. Raises SqlError."""
    with engine.sql_errors():
        parts = copy_into.take_apart(tree, partial(_located, session))
        target = identifiers(tree).find(exp.Table)
        assert target is not None  # take_apart() has refused COPY INTO a stage
    store = session.shared.store
    loaded: set[str] = set()

    def action() -> Result:
        with engine.sql_errors():
            table = _copy_target(session, target)
            result, files = copy_into.load(parts, table, store, session.duck.execute)
        loaded.update(file.path for file in files)
        return result

    def purge() -> None:
        for path in loaded:
            store.remove(parts.stage, path)

    # PURGE waits for the commit: after a rollback the files are needed again.
    wanted = text.flag(parts.options, "PURGE", False)
    return await session.transaction.write(action, purge if wanted else None)


def _located(session: Session, reference: str) -> tuple[Stage, str]:
    name, path = session.caller.reference(reference)
    return session.shared.store.get(name, session.id), path


def _copy_target(session: Session, table: exp.Table) -> copy_into.Table:
    key = table_key(table, session.scope)
    database, schema, name = key
    temporary = key in session.temporary_tables
    parts = ("temp", "main", name) if temporary else key
    sql = ".".join(copy_into.duck_name(part) for part in parts)
    columns = [row[0] for row in session.duck.execute(f"describe {sql}").fetchall()]
    noted = (schema, name)
    if temporary:
        # By DuckDB's number for it: a new temporary table of that name has loaded nothing yet.
        oids = session.duck.execute(
            "select table_oid from duckdb_tables() where temporary and table_name = ?", [name]
        )
        ((oid,),) = oids.fetchall()
        noted = (session.id, str(oid))
    history = f'"{database}"._fs_information_schema._fs_load_history'
    return copy_into.Table(sql, columns, history, noted)
