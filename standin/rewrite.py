"""Snowflake's SQL made fit for fakesnow.

Directory tables, signed URLs, session variables, context functions, temporary tables. On the
tree that sqlglot parses, not on the text: a name in a string or a comment is no name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp, parse_one

from standin import constraints
from standin.errors import SqlError, unsupported
from standin.names import StageName, parse_reference, qualify, split_identifiers
from standin.signing import DEFAULT_S, LONGEST_S
from standin.stage_statements import require_directory
from standin.text import literal

if TYPE_CHECKING:
    from standin.history import History
    from standin.stages import Stage
    from standin.streams import Streams

SIGN_FUNCTION = "SANDBOX_SIGNED_URL"
FILE_URL_FUNCTION = "SANDBOX_FILE_URL"
DIRECTORY_SQL = (
    'select "RELATIVE_PATH", "SIZE", "LAST_MODIFIED", "MD5", "ETAG", "FILE_URL"'
    ' from "_fs_global"."standin"."directory" where "STAGE" = {stage}'
)


@dataclass
class Scope:
    """What a statement's names mean in its session."""

    database: str | None
    schema: str | None
    find_stage: Callable[[StageName], Stage]
    context: dict[str, str | None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    temporary_tables: set[tuple[str, str, str]] = field(default_factory=set)
    streams: Streams | None = None
    history: History | None = None


def rewrite(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """The tree for fakesnow; the given one is used up."""
    tree = identifiers(tree)
    for step in (
        _directories,
        _streams,
        _history,
        _constraints,
        _functions,
        _parameters,
        _context,
        _temporary_tables,
        _update_targets,
    ):
        tree = step(tree, scope)
    return tree


def identifiers(tree: exp.Expr) -> exp.Expr:
    """IDENTIFIER('a."b c"') as a table's name."""
    for table in list(tree.find_all(exp.Table)):
        name = table.this
        if isinstance(name, exp.DynamicIdentifier):
            written = name.this
        elif isinstance(name, exp.Anonymous) and name.name.upper() == "IDENTIFIER":
            written = name.expressions[0]
        else:
            continue
        named = exp.to_table(written.name, dialect="snowflake")
        for key in ("this", "db", "catalog"):
            table.set(key, named.args.get(key))
    return tree


def stage_of(reference: str, scope: Scope) -> Stage:
    """The stage of '@db.schema.name'; a path after it is an SQL error."""
    name, path = parse_reference(reference, scope.database, scope.schema)
    if path:
        raise unsupported(f"a path after the stage in {reference}")
    return scope.find_stage(name)


def _directories(tree: exp.Expr, scope: Scope) -> exp.Expr:
    for node in list(tree.find_all(exp.DirectoryStage)):
        table = node.parent
        assert table is not None  # DIRECTORY(…) is parsed as the name of a table
        stage = stage_of(node.this.name, scope)
        require_directory(stage)
        sql = DIRECTORY_SQL.format(stage=literal(str(stage.name)))
        _put_query(table, sql, "DIRECTORY_TABLE")
    for table in tree.find_all(exp.Table):
        is_stage = isinstance(table.this, exp.Var) and table.this.name.startswith("@")
        if is_stage and not tree.find(exp.Copy):
            raise unsupported(
                f"reading the files of {table.this.name} in a query; use COPY INTO, or DIRECTORY(…)"
            )
    return tree


def _streams(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """A stream's name as the SELECT of what it holds."""
    names = scope.streams.names() if scope.streams else {}
    for table in list(tree.find_all(exp.Table)):
        name = ".".join(table_key(table, scope))
        if name in names and scope.streams:
            _put_query(table, scope.streams.changes_sql(name), table.name)
    return tree


def _history(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(…)) as a SELECT of what has run."""
    for call in list(tree.find_all(exp.TableFromRows)):
        sql = scope.history.sql(call, scope.database) if scope.history else None
        if sql:
            _put_query(call, sql, "QUERY_HISTORY")
    return tree


def _constraints(tree: exp.Expr, scope: Scope) -> exp.Expr:
    for table in list(tree.find_all(exp.Table)):
        database, schema, view = map(str.upper, table_key(table, scope))
        if schema == "INFORMATION_SCHEMA" and view in constraints.VIEWS:
            _put_query(table, constraints.sql(view, database), view)
    return tree


def _put_query(table: exp.Expr, sql: str, name: str) -> None:
    """A SELECT in the place of a table, under its alias or this name."""
    alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    subquery = exp.Subquery(this=parse_one(sql, read="snowflake"), alias=alias)
    for key in ("joins", "laterals", "pivots"):  # sqlglot hangs these on the table
        if table.args.get(key):
            subquery.set(key, table.args[key])
    table.replace(subquery)


def _functions(tree: exp.Expr, scope: Scope) -> exp.Expr:
    makers = {
        "GET_PRESIGNED_URL": _signed_url,
        "BUILD_STAGE_FILE_URL": _stage_file_url,
        "SYSTEM$STREAM_HAS_DATA": _stream_has_data,
    }
    for node in list(tree.find_all(exp.Anonymous)):
        name = node.name.upper()
        if name == "BUILD_SCOPED_FILE_URL":
            raise unsupported("BUILD_SCOPED_FILE_URL; use GET_PRESIGNED_URL")
        if name in makers:
            tree = _replace(tree, node, makers[name](node, scope))
    return tree


def _replace(tree: exp.Expr, node: exp.Expr, new: exp.Expr) -> exp.Expr:
    """Put new in node's place; as a column of a query it keeps the name that Snowflake gives it."""
    if isinstance(node.parent, exp.Select) and node.arg_key == "expressions":
        heading = node.sql("snowflake")
        if isinstance(node, exp.Anonymous):
            heading = heading.replace("$", "@", 1)  # sqlglot writes the stage @s as $s
        new = exp.alias_(new, heading.upper(), quoted=True)
    if node is tree:
        return new
    node.replace(new)
    return tree


def _stage_argument(node: exp.Anonymous, scope: Scope) -> Stage:
    if len(node.expressions) < 2:
        raise SqlError(f"not enough arguments for function [{node.sql('snowflake')}]", 938, "22023")
    first = node.expressions[0]
    written = first.name if isinstance(first, exp.Literal) else first.sql("snowflake")
    return stage_of("@" + written.strip("'").lstrip("@$"), scope)


def _signed_url(node: exp.Anonymous, scope: Scope) -> exp.Expr:
    stage = _stage_argument(node, scope)
    seconds = exp.Literal.number(DEFAULT_S)
    if len(node.expressions) > 2:
        seconds = node.expressions[2]
        is_number = isinstance(seconds, exp.Literal) and seconds.name.isdigit()
        if not is_number or not 1 <= int(seconds.name) <= LONGEST_S:
            raise SqlError(
                f"Invalid expiration time {seconds.sql()}: give 1 to {LONGEST_S} seconds.",
                391515,
                "22023",
            )
    # DuckDB calls back for the whole column; a path that is not there is signed too, as there.
    arguments = [exp.Literal.string(stage.name.url_part), node.expressions[1], seconds]
    return exp.Anonymous(this=SIGN_FUNCTION, expressions=arguments)


def _stage_file_url(node: exp.Anonymous, scope: Scope) -> exp.Expr:
    stage = _stage_argument(node, scope)
    arguments = [exp.Literal.string(stage.name.url_part), node.expressions[1]]
    return exp.Anonymous(this=FILE_URL_FUNCTION, expressions=arguments)


def _stream_has_data(node: exp.Anonymous, scope: Scope) -> exp.Expr:
    name = qualify(split_identifiers(node.expressions[0].name), scope.database, scope.schema)
    return exp.Boolean(this=scope.streams is not None and scope.streams.has_data(name))


def _parameters(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """Session variables; $1 in COPY is a column, not a variable."""
    for node in list(tree.find_all(exp.Parameter)):
        name = node.name.upper()
        if name.isdigit():
            continue
        if name not in scope.variables:
            raise SqlError(f"Session variable '${name}' does not exist", 2211, "02000")
        tree = _replace(tree, node, parse_one(scope.variables[name], read="snowflake"))
    return tree


def _context(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """CURRENT_USER() and its like: DuckDB would tell its own."""
    for node in list(tree.find_all(exp.Func)):
        name = node.name.upper() if isinstance(node, exp.Anonymous) else node.sql_name()
        if name in scope.context:
            value = scope.context[name]
            cast = exp.cast(exp.Null() if value is None else exp.Literal.string(value), "varchar")
            if isinstance(node.parent, exp.Select) and node.arg_key == "expressions":
                cast = exp.alias_(cast, f"{name}()", quoted=True)
            node.replace(cast)
    return tree


def _temporary_tables(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """DuckDB's temporary tables have no database and schema: take them off their names.

    In Snowflake they have both, and write_pandas names both.
    """
    creates_one = (
        isinstance(tree, exp.Create) and tree.find(exp.TemporaryProperty) and tree.kind == "TABLE"
    )
    target = tree.find(exp.Table) if creates_one else None
    for table in tree.find_all(exp.Table):
        if table is target or table_key(table, scope) in scope.temporary_tables:
            table.set("db", None)
            table.set("catalog", None)
    return tree


def table_key(table: exp.Table, scope: Scope) -> tuple[str, str, str]:
    """Database, schema and name of a table in the case in which Snowflake keeps them."""
    parts = [_identifier_name(table.args.get(key)) for key in ("catalog", "db", "this")]
    return (parts[0] or scope.database or "", parts[1] or scope.schema or "", parts[2] or "")


def _identifier_name(node: exp.Expr | None) -> str | None:
    if not isinstance(node, exp.Identifier):
        return None
    return node.name if node.quoted else node.name.upper()


def _update_targets(tree: exp.Expr, scope: Scope) -> exp.Expr:
    """UPDATE t SET t.a = …: DuckDB takes no qualified name left of the equals sign."""
    for update in tree.find_all(exp.Update):
        for assignment in update.expressions:
            if isinstance(assignment, exp.EQ) and isinstance(assignment.this, exp.Column):
                for key in ("table", "db", "catalog"):
                    assignment.this.set(key, None)
    return tree
