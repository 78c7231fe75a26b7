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
from standin.text import STRING, unquote_string

if TYPE_CHECKING:
    from standin.sessions import Session

PARAMETER = re.compile(rf"ALTER SESSION SET (\w+)\s*=\s*({STRING}|[\w/ ]+)$", re.I | re.S)
UTC_NAMES = ("UTC", "ETC/UTC")  # taken without effect: everything is UTC here


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
    # without a word for it, `use a` is of a database and `use a.b` of a schema
    kind = str(tree.args.get("kind") or ("DATABASE", "SCHEMA")[len(names) > 1]).upper()
    if kind in ("ROLE", "WAREHOUSE"):
        session.context[f"CURRENT_{kind}"] = names[-1]
        return status(DONE)
    if kind == "SECONDARY ROLES" and names[-1].upper() in ("ALL", "NONE"):
        return status(DONE)  # roles grant nothing here
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


async def _alter_session(session: Session, tree: exp.Alter) -> Result:
    found = PARAMETER.match(tree.sql("snowflake"))
    name = found[1].upper() if found else ""
    written = unquote_string(found[2]) if found else ""
    value = written.upper()
    if name == "AUTOCOMMIT" and value in ("TRUE", "FALSE"):
        if value == "TRUE":
            await session.transaction.commit()
        session.transaction.autocommit = value == "TRUE"
    elif name == "STATEMENT_TIMEOUT_IN_SECONDS" and value.isdigit():
        session.statement_timeout_s = int(value)
    elif name == "QUERY_TAG":
        session.query_tag = written
    elif name != "TIMEZONE" or value not in UTC_NAMES:
        raise unsupported(tree.sql("snowflake"))
    return status(DONE)
