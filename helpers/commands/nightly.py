"""Load, predict and write back new and changed images, as every night; prints one line of JSON."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error, ProgrammingError

from helpers import choice, config, runs
from helpers.commands.tutorial import NotebookError, run_notebook
from helpers.files import digest_of, write_json
from helpers.snowflake.connection import connect, query
from helpers.snowflake.listing import count_images
from helpers.snowflake.sql_files import run_file

TABLE = "clothing_test"
STAGE = "clothing_dataset"
COULD_NOT_RUN = 1
TOO_MUCH_FAILED = 3
FEW = 500  # new images that this machine predicts alone: starting a cluster takes longer
WAIT_S = 60  # before the second attempt, twice as long before each further one
# what may have passed by the next attempt; a wrong setting stays wrong
PASSING = {
    "ConnectionError",
    "DatabaseError",
    "DeadKernelError",
    "InterfaceError",
    "OperationalError",
    "TimeoutError",
}


def predict_new(backend: str, database: str, model_path: str = "", few: int = FEW) -> dict:
    """Load new and changed images, predict and write back what the model has not predicted.

    With nothing new no cluster is started and no run is made; up to `few` new images are predicted
    by this machine alone. A night that was not finished is gone on with.
    Returns counts of images: added, changed and vanished since the last load, unreadable (given up
    until they change), listed, predicted, failed and updated; and where there was something new
    the name of its run, and unmatched.
    """
    latest = runs.open_run("latest", backend, database)
    checkpoint = choice.choose(latest.data_digest, latest.classes, model_path)
    digest = digest_of(checkpoint)
    connection = connect(backend, database, notebook="nightly")
    try:
        counts = _load(connection)
        n_new = count_images(connection, TABLE, STAGE, not_by_model=digest)
    finally:
        connection.close()
    if n_new == 0:
        return counts | {"listed": 0, "predicted": 0, "failed": 0, "updated": 0}
    run = latest if _is_unfinished(latest, digest) else _new_night(latest, digest)
    cluster = "local" if n_new <= few else "auto"
    return counts | {"run": run.name, "listed": n_new} | _run_notebooks(run, checkpoint, cluster)


def _is_unfinished(run: runs.Run, digest: str) -> bool:
    """Whether this is a night of the same model whose predictions were not written."""
    night = run.folder / "night.json"
    is_written = (run.folder / "write_back.json").exists()
    return night.exists() and not is_written and run.model_digest == digest


def _new_night(latest: runs.Run, digest: str) -> runs.Run:
    run = replace(latest, name=runs.new_name(), model_digest=digest, test_digest="").save()
    write_json(run.folder / "night.json", {"after": latest.name})
    return run


def _load(connection: SnowflakeConnection) -> dict[str, int]:
    """How many images were added and changed since the last load, vanished, and cannot be read."""
    loaded = run_file(connection, "sql/04_load_tables.sql")
    added, changed = loaded["loaded_test"].iloc[0]
    vanished = dict(loaded["vanished"].iloc[:, [0, 2]].to_numpy())
    unreadable = query(connection, "select count(*) from clothing_unreadable").iloc[0, 0]
    return {
        "added": int(added),
        "changed": int(changed),
        "vanished": int(vanished.get(TABLE, 0)),
        "unreadable": int(unreadable),
    }


def _run_notebooks(run: runs.Run, checkpoint: Path, cluster: str) -> dict[str, int]:
    """Predict and write back in this run, with the notebooks; the counts that they left."""
    folder = run.folder / "notebooks"
    common = {"backend": run.backend, "database": run.database, "run": run.name}
    inference = {"only_new": True, "model_path": str(checkpoint), "cluster": cluster}
    run_notebook("03_run_inference", folder, common | inference)
    run_notebook("05_write_back", folder, common)
    found = json.loads((run.folder / "inference.json").read_text())
    written = json.loads((run.folder / "write_back.json").read_text())
    return {
        "predicted": found["predicted"],
        "failed": found["failed"],
        "updated": written["updated"],
        "unmatched": len(written["unmatched"]),
    }


def _may_pass(error: Exception) -> bool:
    """Whether the same call may go well a minute later."""
    if isinstance(error, NotebookError):
        return error.error.partition(":")[0] in PASSING
    if isinstance(error, ProgrammingError | FileNotFoundError):
        return False
    return isinstance(error, Error | OSError)


def attempted(options: argparse.Namespace) -> dict:
    """The counts of a night, or {"error": …} after the last of its attempts."""
    backend = config.backend(options.backend)
    attempt = 1
    while True:
        try:
            counts = predict_new(backend, options.database, options.model_path, options.few)
            return counts | {"attempts": attempt}
        except (NotebookError, Error, ValueError, LookupError, OSError) as error:
            if attempt >= options.attempts or not _may_pass(error):
                return {"error": str(error), "attempts": attempt}
        time.sleep(options.wait_s * 2 ** (attempt - 1))
        attempt += 1


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done; 1 it could not run; 3 it ran, and too much failed."""
    parser = argparse.ArgumentParser(prog="python -m helpers nightly", description=__doc__)
    parser.add_argument("--backend", default="", choices=("", *config.BACKENDS))
    parser.add_argument("--database", default="CLOTHING")
    parser.add_argument(
        "--model-path", default="", help="checkpoint; default: the newest trained on this data set"
    )
    parser.add_argument(
        "--max-failed", type=float, default=0.05, help="share of the new images, default 0.05"
    )
    parser.add_argument(
        "--few", type=int, default=FEW, help=f"images that need no cluster, default {FEW}"
    )
    parser.add_argument("--attempts", type=int, default=3, help="while it cannot run, default 3")
    parser.add_argument("--wait-s", type=float, default=WAIT_S, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    counts = attempted(options)
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps(counts | {"seconds": seconds}), flush=True)
    if "error" in counts:
        return COULD_NOT_RUN
    too_much_failed = counts["failed"] > options.max_failed * counts["listed"]
    return TOO_MUCH_FAILED if too_much_failed else 0
