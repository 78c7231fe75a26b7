"""CREATE, ALTER, DROP and TRUNCATE of everything but stages, and what fakesnow leaves undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from standin import engine
from standin.errors import unsupported
from standin.names import normalise
from standin.results import Result
from standin.rewrite import identifiers, rewrite, table_key

if TYPE_CHECKING:
    from standin.sessions import Session

KINDS = frozenset({"DATABASE", "SCHEMA", "TABLE", "VIEW", "SEQUENCE", "FILE FORMAT"})


def define(session: Session, tree: exp.Expr) -> Result:
    """Run a statement that defines something. Raises SqlError."""
    kind = str(tree.args.get("kind") or "TABLE").upper()
    if kind not in KINDS:
        raise unsupported(f"{tree.key.upper()} {kind}")
    with engine.sql_errors():
        if kind == "DATABASE":
            return _define_database(session, tree)
        scope = session.scope
        tree = identifiers(tree)
        table = tree.find(exp.Table)
        # Taken now: the rewriting takes the names of a temporary table's database and schema away.
        key = table_key(table, scope) if table else ("", "", "")
        result = session.run(rewrite(tree, scope))
        _after_definition(session, tree, kind, key)
        return result


def _define_database(session: Session, tree: exp.Expr) -> Result:
    """Snowflake uses a new database at once, and a dropped one takes its stages along."""
    table = tree.find(exp.Table)
    assert table is not None  # the parser reads a database's name as a table's
    name = normalise(table.this.sql("snowflake"))
    if isinstance(tree, exp.Drop):
        result = session.databases.drop(name, bool(tree.args.get("exists")))
        _drop_stages(session, name, None)
        return result
    if not isinstance(tree, exp.Create):
        raise unsupported(tree.sql("snowflake"))
    if tree.args.get("replace"):
        session.databases.drop(name, if_exists=True)
        _drop_stages(session, name, None)
    return session.databases.create(name, bool(tree.args.get("exists")))


def _after_definition(
    session: Session, tree: exp.Expr, kind: str, key: tuple[str, str, str]
) -> None:
    if isinstance(tree, exp.Create) and kind == "TABLE" and tree.find(exp.TemporaryProperty):
        session.temporary_tables.add(key)
    elif isinstance(tree, exp.Drop) and kind == "TABLE":
        session.temporary_tables.discard(key)
    elif isinstance(tree, exp.TruncateTable):
        _forget_loads(session, key)
    elif isinstance(tree, exp.Drop) and kind == "SCHEMA":
        _drop_stages(session, key[1], key[2])  # a schema's name stands where a table's would


def _forget_loads(session: Session, key: tuple[str, str, str]) -> None:
    """After TRUNCATE, COPY loads the same files again."""
    history = f'"{key[0]}"._fs_information_schema._fs_load_history'
    session.duck.execute(
        f"delete from {history} where (SCHEMA_NAME, TABLE_NAME) = (?, ?)", [key[1], key[2]]
    )


def _drop_stages(session: Session, database: str, schema: str | None) -> None:
    """The stages of a database, or of a schema, with their files; its streams and tasks."""
    session.shared.pipelines.forget_all(database, schema)
    session.shared.directories.drop_stages(session.shared.store.names(database, schema))
