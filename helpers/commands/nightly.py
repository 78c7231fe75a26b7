"""Load, predict and write back new and changed images, as every night; prints one line of JSON."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error

from helpers import choice, config, runs
from helpers.commands.tutorial import NotebookError, run_notebook
from helpers.files import digest_of
from helpers.labels import data_digest
from helpers.snowflake.connection import connect
from helpers.snowflake.listing import list_files, list_images
from helpers.snowflake.sql_files import run_file

TABLE = "clothing_test"
STAGE = "clothing_dataset"


def predict_new(backend: str, database: str, model_path: str = "") -> dict:
    """Load new and changed images, predict and write back what the model has not predicted.

    With nothing new no cluster is started and no run is made. Returns counts of images: added,
    changed and vanished since the last load, listed, predicted, failed and updated; and where
    there was something new the name of its run, and unmatched.
    """
    latest = runs.open_run("latest", backend, database)
    checkpoint = choice.choose(latest.data_digest, latest.classes, model_path)
    connection = connect(backend, database)
    try:
        counts = _load(connection)
        files = list_files(connection, TABLE, "relative_path", STAGE)
        chunks = list_images(connection, TABLE, STAGE, not_by_model=digest_of(checkpoint))
        n_new = sum(len(chunk) for chunk in chunks)
    finally:
        connection.close()
    if n_new == 0:
        return counts | {"listed": 0, "predicted": 0, "failed": 0, "updated": 0}
    test_digest = data_digest({name: size for name, size, _ in files})
    run = replace(latest, name=runs.new_name(), model_digest="", test_digest=test_digest)
    return counts | {"run": run.name, "listed": n_new} | _run_notebooks(run.save(), checkpoint)


def _load(connection: SnowflakeConnection) -> dict[str, int]:
    """How many images are added and changed since the last load, and how many have vanished."""
    loaded = run_file(connection, "sql/04_load_tables.sql")
    added, changed = loaded["loaded_test"].iloc[0]
    vanished = loaded["vanished"].iloc[:, 0] == TABLE
    return {"added": int(added), "changed": int(changed), "vanished": int(vanished.sum())}


def _run_notebooks(run: runs.Run, checkpoint: Path) -> dict[str, int]:
    """Predict and write back in this run, with the notebooks; the counts that they left."""
    folder = run.folder / "notebooks"
    common = {"backend": run.backend, "database": run.database, "run": run.name}
    inference = {"only_new": True, "model_path": str(checkpoint)}
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


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done; 1 an error, or more of the new images than --max-failed have failed."""
    parser = argparse.ArgumentParser(prog="python -m helpers nightly", description=__doc__)
    parser.add_argument("--backend", default="", choices=("", *config.BACKENDS))
    parser.add_argument("--database", default="CLOTHING")
    parser.add_argument(
        "--model-path", default="", help="checkpoint; default: the newest trained on this data set"
    )
    parser.add_argument(
        "--max-failed", type=float, default=0.05, help="share of the new images, default 0.05"
    )
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        counts = predict_new(config.backend(options.backend), options.database, options.model_path)
        too_many_failed = counts["failed"] > options.max_failed * counts["listed"]
    except (NotebookError, Error, ValueError, LookupError, OSError) as error:
        counts = {"error": str(error)}
        too_many_failed = False
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps(counts | {"seconds": seconds}), flush=True)
    return int("error" in counts or too_many_failed)
