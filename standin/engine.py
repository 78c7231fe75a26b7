"""Runs one statement on fakesnow and DuckDB, and turns what goes wrong into SQL errors."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import duckdb
from fakesnow.conn import FakeSnowflakeConnection
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import syntax_error
from sqlglot import exp, parse
from sqlglot.errors import ParseError, TokenError

from standin import results
from standin.dialect import Strict
from standin.errors import (
    DOES_NOT_EXIST,
    INTERNAL,
    SYNTAX_ERROR,
    UNKNOWN_FUNCTION,
    SqlError,
    unsupported,
)
from standin.results import Result

LOG = logging.getLogger("standin")
TYPES: dict[type[exp.Expr], int] = {
    exp.Select: results.SELECT,
    exp.Union: results.SELECT,
    exp.Insert: results.INSERT,
    exp.Update: results.UPDATE,
    exp.Delete: results.DELETE,
    exp.Merge: results.MERGE,
    exp.Copy: results.COPY,
    exp.Create: results.DDL,
    exp.Drop: results.DDL,
    exp.Alter: results.DDL,
    exp.TruncateTable: results.DDL,
}
MERGE_COLUMNS = {
    "INSERT": "number of rows inserted",
    "UPDATE": "number of rows updated",
    "DELETE": "number of rows deleted",
}
MISSING = re.compile(r"Catalog Error: ([\w ]+) with name \"?([^\"\s!]+)\"? does not exist")
INTERRUPTED = 604
DUCKDB_ERRORS: tuple[tuple[type[duckdb.Error], int, str], ...] = (
    (duckdb.BinderException, 904, "42000"),
    (duckdb.CatalogException, DOES_NOT_EXIST, "42S02"),
    (duckdb.ParserException, SYNTAX_ERROR, "42000"),
    (duckdb.ConversionException, 100038, "22018"),
    (duckdb.OutOfRangeException, 100039, "22003"),
    (duckdb.ConstraintException, 100072, "22000"),
    (duckdb.PermissionException, DOES_NOT_EXIST, "42S02"),
    (duckdb.InterruptException, INTERRUPTED, "57014"),
)


class Cursor(FakeSnowflakeCursor):
    """fakesnow's cursor for statements that are parsed and rewritten already.

    Its execute() takes text only, and would parse what has been rewritten anew: so the steps
    inside it are called one by one. They are private: fakesnow is pinned to one version.
    """

    def run(self, tree: exp.Expr) -> Result:
        """Run one statement; what fails raises whatever fakesnow or DuckDB raise."""
        self.check_db_and_schema(tree)
        if isinstance(tree, exp.Merge):
            return self._merge(tree)
        kind = TYPES.get(type(tree), results.UNKNOWN)
        if isinstance(tree, (exp.Select, exp.SetOperation)):
            return Result(self._relation(tree).to_arrow_table(), results.SELECT)
        plain_rows = _split_off_plain_rows(tree)
        for statement in self._transform_explode(tree):
            transformed = self._transform(statement, None)
            if plain_rows:
                values = transformed.expression
                values.set("expressions", values.expressions + plain_rows)
            self._execute(transformed, None)
        assert self._arrow_table is not None
        return Result(self._arrow_table, kind)

    def columns_of(self, tree: exp.Expr) -> Result:
        """A query's columns, with no rows."""
        self.check_db_and_schema(tree)
        return Result(self._relation(tree).limit(0).to_arrow_table(), results.SELECT)

    def _relation(self, tree: exp.Expr) -> duckdb.DuckDBPyRelation:
        """As fakesnow would, without its copy of the rows and its second look at the statement."""
        transformed = self._transform(tree, None)
        # These two need that second look.
        if transformed.args.get("result_scan_sfqid") or transformed.args.get("seed"):
            raise unsupported("RESULT_SCAN and seeded samples")
        return self._duck_conn.sql(transformed.sql(dialect="duckdb"))

    def _merge(self, tree: exp.Merge) -> Result:
        """By DuckDB's own MERGE, which refuses a target row that matches twice, as Snowflake does.

        fakesnow takes it apart into statements of its own.
        """
        for when in tree.args["whens"].expressions:
            then = when.args["then"]
            if isinstance(then, exp.Update):
                for assignment in then.expressions:
                    assignment.this.set("table", None)  # DuckDB takes no t.a left of the =
        present = {_merge_kind(when) for when in tree.args["whens"].expressions}
        transformed = self._transform(tree, None)
        counted = self._merge_counts(transformed.sql(dialect="duckdb"), transformed.this, present)
        columns = {
            heading: counted[kind] for kind, heading in MERGE_COLUMNS.items() if kind in present
        }
        return results.rows(list(columns), [tuple(columns.values())], results.MERGE)

    def _merge_counts(self, sql: str, target: exp.Table, present: set[str]) -> Counter[str]:
        """Rows by kind of change, told from the sums where they tell.

        Asking DuckDB for each row's kind takes three times as long as the MERGE itself. Where rows
        are only added, or only taken away, the table's growth is their number.
        """
        duck = self._duck_conn
        if present >= {"INSERT", "DELETE"}:
            return Counter(
                kind for (kind,) in duck.execute(f"{sql} returning merge_action").fetchall()
            )
        table = target.copy()
        table.set("alias", None)
        count = f"select count(*) from {table.sql(dialect='duckdb')}"
        ((before,),) = duck.execute(count).fetchall()
        ((changed,),) = duck.execute(sql).fetchall()
        ((after,),) = duck.execute(count).fetchall()
        moved = abs(after - before)
        kind = "INSERT" if "INSERT" in present else "DELETE"
        return Counter({kind: moved, "UPDATE": changed - moved})


def _split_off_plain_rows(tree: exp.Expr) -> list[exp.Expr]:
    """Take all rows of VALUES but the first off an INSERT, if nothing in them needs translating.

    fakesnow walks over every node some sixty times: a minute for what takes DuckDB milliseconds.
    They are put back when fakesnow is through.
    """
    values = tree.expression if isinstance(tree, exp.Insert) else None
    if not isinstance(values, exp.Values) or tree.args.get("overwrite"):
        return []
    first, *others = values.expressions
    plain = (exp.Literal, exp.Null, exp.Boolean, exp.Neg)
    if not all(isinstance(cell, plain) for row in others for cell in row.expressions):
        return []
    values.set("expressions", [first])
    return others


def _merge_kind(when: exp.When) -> str:
    then = when.args["then"]
    if isinstance(then, exp.Insert):
        return "INSERT"
    return "UPDATE" if isinstance(then, exp.Update) else "DELETE"


def parse_statement(sql: str) -> exp.Expr:
    """The one statement of the text."""
    try:
        parsed = parse(sql, read=Strict)
    except ParseError as error:
        raise syntax_error(error) from None
    except TokenError as error:
        raise SqlError(f"SQL compilation error:\n{error}", SYNTAX_ERROR) from None
    trees = [tree for tree in parsed if tree and not isinstance(tree, exp.Semicolon)]
    if not trees:
        raise SqlError("Empty SQL statement.", 900, "42601")
    if len(trees) > 1:
        raise SqlError(
            f"Actual statement count {len(trees)} did not match the desired statement count 1.",
            8,
            "0A000",
        )
    return trees[0]


def run(connection: FakeSnowflakeConnection, tree: exp.Expr) -> Result:
    """Run a rewritten statement; every failure is an SqlError."""
    with sql_errors():
        return Cursor(connection, connection._duck_conn).run(tree)


def describe(connection: FakeSnowflakeConnection, tree: exp.Expr) -> Result:
    """The columns of a rewritten query."""
    return Cursor(connection, connection._duck_conn).columns_of(tree)


@contextmanager
def sql_errors() -> Generator[None, None, None]:
    """Turn any failure into an SqlError.

    HTTP 500 would make the connector try again for seconds.
    """
    try:
        yield
    except SqlError:
        raise
    except duckdb.Error as error:
        raise _from_duckdb(error) from error
    except ParseError as error:
        raise syntax_error(error) from error
    except (NotImplementedError, AssertionError) as error:
        # fakesnow says so where it does not know a form.
        raise unsupported(str(error) or "this form of the statement") from error
    except Exception as error:
        LOG.exception("failed statement")
        raise SqlError(
            f"Internal error of the local stand-in: {type(error).__name__}: {error}", INTERNAL
        ) from error


def _from_duckdb(error: duckdb.Error) -> SqlError:
    message = str(error)
    if "cannot affect the same target row more than once" in message:
        return SqlError(
            "Duplicate row detected during DML action (MERGE: a row matches twice)", 100090, "42P18"
        )
    missing = MISSING.search(message)
    if missing and "Function" in missing[1]:
        return SqlError(
            f"SQL compilation error:\nUnknown function {missing[2]}.", UNKNOWN_FUNCTION, "42601"
        )
    if missing:
        return SqlError(
            f"SQL compilation error:\nObject '{missing[2]}' does not exist or not authorized.",
            DOES_NOT_EXIST,
            "42S02",
        )
    for kind, errno, state in DUCKDB_ERRORS:
        if isinstance(error, kind):
            # From 100000 on, Snowflake's numbers are of data, below of the statement.
            wording = f"SQL compilation error:\n{message}" if errno < 100000 else message
            return SqlError(wording, errno, state)
    return SqlError(message, INTERNAL, "XX000")
