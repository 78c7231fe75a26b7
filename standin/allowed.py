"""What Snowflake does not know is refused before DuckDB sees it.

DuckDB would read files by functions and by names, tell its settings, and let its bookkeeping be
dropped: such SQL would pass here and fail in an account, and lay the user's files open. DuckDB's
own wall (compat.shut_out) is the second one.
"""

from __future__ import annotations

import re

from sqlglot import exp

from standin import constraints, history
from standin.errors import UNKNOWN_FUNCTION, compilation_error, does_not_exist, unsupported
from standin.names import RESERVED

# those that sqlglot does not know and Snowflake has
FUNCTIONS = frozenset(
    {
        *("GET_PRESIGNED_URL", "BUILD_STAGE_FILE_URL", "BUILD_SCOPED_FILE_URL", "IDENTIFIER"),
        *("SYSTEM$STREAM_HAS_DATA", "HASH", "TRUNC", "CURRENT_SESSION", "CURRENT_REGION"),
        *("SEQ1", "SEQ2", "SEQ4", "SEQ8"),
        *history.FUNCTIONS,
    }
)
# what sqlglot reads in any dialect, and Snowflake does not
FOREIGN = (exp.Unnest, exp.Pragma)
# parts of a statement that sqlglot reads, and Snowflake does not
FOREIGN_PARTS: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.Distinct: ("on",),
    exp.Insert: ("alternative", "by_name", "conflict", "returning"),
    exp.Update: ("returning",),
    exp.Delete: ("returning",),
    exp.Select: ("sample", "settings", "format"),
    exp.LimitOptions: ("percent",),
}
HIGHER_ORDER = (exp.ArrayFilter, exp.Transform, exp.Reduce)
SHIFTS = (exp.BitwiseLeftShift, exp.BitwiseRightShift)
TABLES = (exp.Identifier, exp.DirectoryStage, exp.DynamicIdentifier, exp.Var)
TABLE_FUNCTIONS = (exp.Explode, exp.Generator)
# of INFORMATION_SCHEMA; any other would be DuckDB's, which tells of its bookkeeping
VIEWS = frozenset({"COLUMNS", "DATABASES", "LOAD_HISTORY", "SCHEMATA", "TABLES", "VIEWS"})
VIEWS |= constraints.VIEWS.keys()
OWN_NAME = re.compile(r"_fs_|(duckdb|pg|pragma|sqlite)_", re.I)


def check(tree: exp.Expr) -> None:
    """Raises SqlError for a function, a table or a form that Snowflake does not have."""
    if isinstance(tree, exp.Describe) and not isinstance(tree.this, exp.Table):
        raise unsupported(tree.sql("snowflake"))
    for node in tree.walk():
        if _is_foreign(node):
            raise compilation_error(f"syntax error in '{node.sql('snowflake')[:80]}'.")
        if isinstance(node, exp.Anonymous) and node.name.upper() not in FUNCTIONS:
            raise _unknown_function(node.name)
        if isinstance(node, FOREIGN):
            raise _unknown_function(node.key)
        if isinstance(node, exp.TableFromRows) and not isinstance(node.this, TABLE_FUNCTIONS):
            called = node.this.sql("snowflake")
            if not history.CALL.match(called):
                raise _unknown_function(called)
        if isinstance(node, exp.Identifier) and node.name.lower().startswith("_fs_"):
            raise does_not_exist("Object", node.name)
        if isinstance(node, exp.Table):
            _check_table(node, in_copy=tree.find(exp.Copy) is not None)


def _is_foreign(node: exp.Expr) -> bool:
    """Whether it is a form of DuckDB's that sqlglot reads as Snowflake's."""
    of = node.args
    return (
        any(of.get(name) for name in FOREIGN_PARTS.get(type(node), ()))
        or isinstance(node, (exp.Filter, exp.Comprehension))
        or (isinstance(node, exp.Join) and node.kind in ("SEMI", "ANTI"))
        or (isinstance(node, exp.Join) and node.method == "ASOF" and not of.get("match_condition"))
        or (isinstance(node, exp.Lambda) and not isinstance(node.parent, HIGHER_ORDER))
        or (isinstance(node, (exp.Except, exp.Intersect)) and not of.get("distinct"))
        or (isinstance(node, SHIFTS) and not of.get("requires_int128"))  # a sign, not a function
        or (isinstance(node, exp.Tuple) and isinstance(node.parent, exp.Select))
        or (isinstance(node, exp.Dot) and isinstance(node.this, exp.Struct))
        or (isinstance(node, exp.Values) and node.parent is None)
        or (isinstance(node, exp.DataType) and node.is_type("array") and bool(node.expressions))
    )


def _check_table(table: exp.Table, in_copy: bool) -> None:
    named = isinstance(table.this, TABLES) or table.this is None
    called = isinstance(table.this, exp.Anonymous) and table.this.name.upper() == "IDENTIFIER"
    if not (named or called or in_copy):
        raise _unknown_function(table.this.name or table.this.key)
    is_path = any(slash in table.sql("snowflake") for slash in "/\\")
    if is_path and not in_copy and not isinstance(table.this, (exp.Var, exp.DirectoryStage)):
        raise does_not_exist("Object", table.sql("snowflake"))
    places = {table.db.upper(), table.catalog.upper()}
    is_view = named and table.db.lower() == "information_schema"
    foreign = is_view and table.name.upper() not in VIEWS
    if foreign or places & RESERVED or OWN_NAME.match(table.name):
        raise does_not_exist("Object", table.sql("snowflake"))


def _unknown_function(name: str) -> Exception:
    return compilation_error(f"Unknown function {name.upper()}", UNKNOWN_FUNCTION, "42601")
