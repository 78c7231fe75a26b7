"""USE, SET and ALTER SESSION: what a session remembers for its later statements."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlglot import exp
from starlette.concurrency import run_in_threadpool

from standin import engine
from standin.databases import DONE
from standin.errors import compilation_error, unsupported
from standin.names import split_identifiers
from standin.results import Result, status

if TYPE_CHECKING:
    from standin.sessions import Session

PARAMETER = re.compile(r"ALTER SESSION SET (\w+)\s*=\s*'?([\w/ ]+)'?$", re.I)
# Taken without effect: everything is UTC here, and nobody reads tags.
UTC_NAMES = ("UTC", "ETC/UTC")


async def change(session: Session, tree: exp.Expr) -> Result:
    """Run USE, SET or ALTER SESSION. Raises SqlError."""
    if isinstance(tree, exp.Use):
        return await run_in_threadpool(_use, session, tree)
    if isinstance(tree, exp.Alter):
        return await _alter_session(session, tree)
    for item in tree.expressions:
        if not isinstance(item.this, exp.EQ):
            raise unsupported(tree.sql("snowflake"))
        session.variables[item.this.this.name.upper()] = item.this.expression.sql("snowflake")
    return status(DONE)


def _use(session: Session, tree: exp.Use) -> Result:
    names = split_identifiers(tree.this.sql("snowflake"))
    kind = _kind_of_use(tree, names)
    if kind in ("ROLE", "WAREHOUSE"):
        session.context[f"CURRENT_{kind}"] = names[-1]
        return status(DONE)
    if kind not in ("DATABASE", "SCHEMA"):
        raise unsupported(tree.sql("snowflake"))
    with engine.sql_errors():
        if kind == "DATABASE":
            return session.databases.use(names[0], None)
        database = names[0] if len(names) > 1 else session.connection.database
        if database is None:
            raise compilation_error(
                "This session does not have a current database. Call 'USE DATABASE'.", 90105
            )
        return session.databases.use(database, names[-1])


def _kind_of_use(tree: exp.Use, names: list[str]) -> str:
    """Without a word for it, `use a` is of a database and `use a.b` of a schema."""
    if tree.args.get("kind"):
        return str(tree.args["kind"]).upper()
    return "DATABASE" if len(names) == 1 else "SCHEMA"


async def _alter_session(session: Session, tree: exp.Alter) -> Result:
    found = PARAMETER.match(tree.sql("snowflake"))
    name = found[1].upper() if found else ""
    value = found[2].upper() if found else ""
    if name == "AUTOCOMMIT" and value in ("TRUE", "FALSE"):
        if value == "TRUE":
            await session.transaction.commit()
        session.transaction.autocommit = value == "TRUE"
    elif name == "STATEMENT_TIMEOUT_IN_SECONDS" and value.isdigit():
        session.statement_timeout_s = int(value)
    elif name != "QUERY_TAG" and not (name == "TIMEZONE" and value in UTC_NAMES):
        raise unsupported(tree.sql("snowflake"))
    return status(DONE)
