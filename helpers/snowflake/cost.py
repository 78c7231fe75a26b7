"""What a run costs: an estimate that SQL adds up from statements, sizes and prices."""

import json
from pathlib import Path

import pandas as pd
from snowflake.connector import SnowflakeConnection

from helpers.runs import Run
from helpers.snowflake.sql_files import run_file

SQL = "sql/08_add_up_cost.sql"
# docs/cost.md says where they come from; a worker's hour of -1 is not known
PRICES = {
    "credit": 2.0,
    "x_small_credits": 1.0,
    "terabyte_month": 40.0,
    "worker_hour": -1.0,
    "auto_suspend_s": 60.0,
}


def estimate(
    connection: SnowflakeConnection,
    run: Run,
    prices: dict[str, float] = PRICES,
    sql: Path | str = SQL,
) -> dict[str, pd.DataFrame]:
    """`bill`, a row for what a run used with its money, and `usage` by notebook and SQL file.

    NaN is not known, such as the workers of a pass that was interrupted, or whose hour has no
    price.
    """
    path = run.folder / "inference.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    worked = summary.get("workers", 0) * summary.get("seconds", 0) / 3600
    facts = {
        "database_name": run.database,
        "run": run.name,
        "predicted": summary.get("predicted", 0),
        "worker_hours": -1 if summary.get("predicted_before", 1) else worked,
    }
    return run_file(connection, sql, **facts, **prices)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """For people: a hundredth of a cent is nothing, and what is not known says so."""
    return table.round(4).astype(object).fillna("unknown")
