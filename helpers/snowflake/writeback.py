"""Write the predictions of a run back to Snowflake exactly once: check, stage, merge, reconcile."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error

from helpers import runs
from helpers.records import FAILURE, WRITTEN, WRITTEN_PREDICTION, sql_columns
from helpers.snowflake.connection import execute
from helpers.snowflake.sql_files import local_files, run_file

REMEDY = (
    "Delete its Parquet part and run notebook 03_run_inference again: "
    "it predicts only what is missing."
)


class MismatchError(RuntimeError):
    """The tables do not hold what the run says; nothing was written."""


@dataclass(frozen=True)
class Counts:
    """What a write-back found and did, in images.

    >>> counts = Counts(9, staged=9, updated=6, unchanged=2, unmatched=["a.jpg"], failures=0)
    >>> print(counts)
    9 predictions, 9 staged: 6 updated, 2 unchanged, 1 unmatched; 0 failures recorded
    """

    predictions: int  # in the run's Parquet parts
    staged: int  # of them, each image once
    updated: int  # in the target
    unchanged: int  # the target has this prediction already, or a newer one
    unmatched: list[str]  # paths: removed or replaced since they were predicted
    failures: int  # recorded for this run, now or before

    def __str__(self) -> str:
        done = f"{self.updated} updated" if self.updated else "nothing to change"
        return (
            f"{self.predictions} predictions, {self.staged} staged: {done}, "
            f"{self.unchanged} unchanged, {len(self.unmatched)} unmatched; "
            f"{self.failures} failures recorded"
        )


def write_back(
    connection: SnowflakeConnection, run: runs.Run, target: str = "CLOTHING_TEST"
) -> Counts:
    """Write the run's predictions to `target`, the log and the failures in one transaction.

    target: a table of the current schema, in its own case. Raises ValueError if the run has
    something that must not be written, MismatchError if the numbers disagree; either leaves the
    tables as they were. Safe to repeat, also after a COMMIT of which nobody knows whether it
    arrived: what is written already is found.
    """
    inference, n_predictions, n_failures = check(run)
    name = staging_name(run)
    quoted = '"' + target.replace('"', '""') + '"'  # the name in its own case
    names = {"target": quoted, "staged": name, "staged_failures": f"{name}_FAILURES"}
    try:
        n_staged = stage(connection, name, run, inference)
        results = run_file(
            connection, "sql/05_write_back.sql", run=run.name, arch=inference["arch"], **names
        )
        updated = int(results["merged"].iloc[0, 0])
        n_logged = int(results["logged"].iloc[0, 0])
        unmatched = results["replaced"].iloc[:, 0].tolist()
        if n_logged != n_staged - len(unmatched):  # images are gone, or were written before
            unmatched += _without_row(connection, run, names)
        matched = n_staged - len(unmatched)
        counting = "select count(*) from clothing_failure where run = %s"
        recorded = execute(connection, counting, (run.name,))[0][0]
        if updated > matched or n_logged > matched or recorded < n_failures:
            raise MismatchError(
                f"Run {run.name}: {matched} of {n_staged} staged images have a row in {target}, "
                f"but {updated} were updated, {n_logged} logged, "
                f"{recorded} of {n_failures} failures recorded. Nothing was written. "
                f"Look for images that are in {target} twice, and run notebook 05_write_back again."
            )
        execute(connection, "commit")
    except BaseException:
        # fails for a lost connection: the server itself rolls back and drops what is temporary
        with suppress(Error):
            execute(connection, "rollback")
            unstage(connection, name)
        raise
    unstage(connection, name)
    return Counts(n_predictions, n_staged, updated, matched - updated, unmatched, recorded)


def check(run: runs.Run) -> tuple[dict, int, int]:
    """The content of inference.json, number of predictions and of failures of a finished run.

    The numbers come from the parts' own headers. Raises ValueError for an empty run, a part that
    is cut off or has other columns, or a number that disagrees.
    """
    runs.require_predictions(run)
    inference = json.loads((run.folder / "inference.json").read_text())
    counts = [sum(_rows(path, columns) for path in paths) for columns, paths in _parts(run)]
    if not any(counts) and inference.get("complete", True):
        raise ValueError(
            f"Run {run.name} is empty: no prediction, no failure. "
            "Run notebook 03_run_inference first."
        )
    said = [inference["predicted"], inference["failed"]]
    if counts != said:
        raise ValueError(
            f"Run {run.name} has {counts} predictions and failures in {run.folder}, "
            f"inference.json says {said}. "
            "Run notebook 03_run_inference again: it predicts only what is missing."
        )
    n_predictions, n_failures = counts
    return inference, n_predictions, n_failures


def staging_name(run: runs.Run) -> str:
    """Of the temporary stage and table of a run; the table of failures has _FAILURES after it."""
    return "STAGED_" + re.sub(r"\W", "_", run.name, flags=re.ASCII).upper()


def stage(connection: SnowflakeConnection, name: str, run: runs.Run, inference: dict) -> int:
    """Load the run's parts into temporary tables `name` and `name`_FAILURES.

    Returns how many images there are, each once. PUT and COPY INTO take the parts as they are:
    this process never holds the predictions. Raises ValueError that names the first image whose
    prediction must not be written.
    """
    execute(connection, f"create or replace temporary stage {name}")
    for table, (columns, parts) in zip((name, f"{name}_FAILURES"), _parts(run), strict=True):
        execute(connection, f"create or replace temporary table {table} ({sql_columns(columns)})")
        if parts:
            files = local_files(parts[0].parent, "part-*.parquet")
            execute(
                connection,
                f"put {files} @{name}/{table}/ auto_compress = false parallel = 8",
            )
            execute(
                connection,
                f"copy into {table} from @{name}/{table}/ match_by_column_name = case_insensitive "
                "file_format = (type = parquet use_logical_type = true)",
            )
    _refuse_wrong(connection, name, inference)
    _keep_one(connection, name)
    return execute(connection, f"select count(*) from {name}")[0][0]


def unstage(connection: SnowflakeConnection, name: str) -> None:
    """Drop what `stage` made."""
    execute(connection, f"drop table if exists {name}")
    execute(connection, f"drop table if exists {name}_FAILURES")
    execute(connection, f"drop stage if exists {name}")


def _parts(run: runs.Run) -> list[tuple[pa.Schema, list[Path]]]:
    """The columns to write and the parts that hold them, of the predictions and of the failures."""
    folders = ((WRITTEN_PREDICTION, run.predictions), (FAILURE, run.folder / "failures"))
    return [(columns, sorted(folder.glob("part-*.parquet"))) for columns, folder in folders]


def _rows(path: Path, columns: pa.Schema) -> int:
    """Rows of one part. Raises ValueError that names the file, and its column if that is wrong."""
    try:
        part = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}). {REMEDY}") from None
    with part:
        found = {field.name: field.type for field in part.schema_arrow}
        for column in columns:
            kind = found.get(column.name, "missing")
            if kind != column.type:
                raise ValueError(
                    f"{path}: column {column.name} is {kind}, not {column.type}. {REMEDY}"
                )
        return part.metadata.num_rows


def _refuse_wrong(connection: SnowflakeConnection, name: str, inference: dict) -> None:
    """Raises ValueError that names the first image whose prediction must not be written."""
    classes = inference["classes"]
    digest = inference["model_digest"]
    conditions = [f"{column} is not null" for column in WRITTEN]
    conditions += [
        "confidence between 0 and 1",  # NaN is not: to Snowflake it is greater than every number
        "model_digest = %s",
        f"type in ({', '.join(['%s'] * len(classes))})",
    ]
    wrong = execute(
        connection,
        f"select relative_path, type, confidence, model_digest from {name} "
        f"where not coalesce({' and '.join(conditions)}, false) limit 1",
        (digest, *classes),
    )
    if wrong:
        path, kind, confidence, model = wrong[0]
        raise ValueError(
            f"{path}: type {kind!r}, confidence {confidence}, model {model} must not be written; "
            f"wanted are one of {', '.join(classes)}, a number from 0 to 1, {digest}, "
            f"and no empty column. {REMEDY}"
        )


def _keep_one(connection: SnowflakeConnection, name: str) -> None:
    """Each image once. Raises ValueError that names an image with two predictions."""
    double = f"select relative_path from {name} group by relative_path having count(*) > 1"
    if not execute(connection, f"{double} limit 1"):
        return
    differing = execute(
        connection,
        "select relative_path, listagg(distinct type || ' ' || confidence, ', ') "
        f"from {name} group by relative_path "
        "having count(distinct etag || ' ' || size || ' ' || type || ' ' || confidence) > 1 "
        "order by 1 limit 1",
    )
    if differing:
        path, predictions = differing[0]
        raise ValueError(f"{path} has two predictions in this run ({predictions}). {REMEDY}")
    once = "qualify row_number() over (partition by relative_path order by predicted_at desc) = 1"
    execute(connection, f"create or replace temporary table {name} as select * from {name} {once}")


def _without_row(
    connection: SnowflakeConnection, run: runs.Run, names: dict[str, str]
) -> list[str]:
    """Staged paths that have no row in the target.

    Raises MismatchError for one that has a row, and is not in the log.
    """
    rows = execute(
        connection,
        f"select s.relative_path, t.relative_path is not null from {names['staged']} as s "
        f"left join {names['target']} as t on t.relative_path = s.relative_path "
        "and t.size = s.size and coalesce(t.etag, s.etag) = s.etag "
        "left join clothing_prediction_log as l "
        "on l.run = %s and l.relative_path = s.relative_path "
        "and l.etag = s.etag and l.predicted_at = s.predicted_at "
        "where t.relative_path is null or l.run is null order by 1",
        (run.name,),
    )
    lost = [path for path, has_row in rows if has_row]
    if lost:
        raise MismatchError(
            f"{len(lost)} predictions did not arrive, {lost[0]} first. "
            "Nothing was written; run again."
        )
    return [path for path, _ in rows]
