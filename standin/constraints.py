"""INFORMATION_SCHEMA's views of constraints, which fakesnow leaves to DuckDB.

DuckDB's own tell of every database, its bookkeeping too, and call NOT NULL a constraint.
"""

from __future__ import annotations

from standin.text import literal

WHICH = ("constraint_catalog", "constraint_schema", "constraint_name")
# view -> its other columns, and which of DuckDB's rows it has
VIEWS = {
    "TABLE_CONSTRAINTS": (
        (
            "table_catalog",
            "table_schema",
            "table_name",
            "constraint_type",
            "is_deferrable",
            "initially_deferred",
            "enforced",
        ),
        "constraint_type <> 'CHECK'",
    ),
    "REFERENTIAL_CONSTRAINTS": (
        (*(f"unique_{column}" for column in WHICH), "match_option", "update_rule", "delete_rule"),
        "true",
    ),
}


def sql(view: str, database: str) -> str:
    """A SELECT of a view of this database."""
    columns, condition = VIEWS[view]
    listed = ", ".join(f'{column} as "{column.upper()}"' for column in (*WHICH, *columns))
    return (
        f"select {listed} from system.information_schema.{view.lower()}"
        f" where constraint_catalog = {literal(database)} and {condition}"
        " and not starts_with(constraint_schema, '_fs_')"
    )
