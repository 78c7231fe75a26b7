"""Load, predict and write back new and changed images, as every night; prints one line of JSON."""

import argparse
import json
import time
from dataclasses import replace

from snowflake.connector.errors import Error

from helpers import config, model, runs
from helpers.commands.tutorial import NotebookError, run_notebook
from helpers.files import digest_of
from helpers.folders import data_digest
from helpers.snowflake.connection import connect, run_file
from helpers.snowflake.listing import list_files, list_images

IMAGES = ("clothing_test", "clothing_dataset")


def predict_new(backend: str, database: str, model_path: str = "") -> dict:
    """Load new and changed images, predict and write back what the model has not predicted; the counts.

    With nothing new no cluster is started and no run is made.
    """
    latest = runs.open_run("latest", backend, database)
    path = model.choose(latest.data_digest, latest.classes, model_path)
    connection = connect(backend, database)
    try:
        loaded = run_file(connection, "sql/04_load_tables.sql")
        files = {
            name: size
            for name, size, _ in list_files(connection, IMAGES[0], "relative_path", IMAGES[1])
        }
        n_new = sum(map(len, list_images(connection, *IMAGES, not_by_model=digest_of(path))))
    finally:
        connection.close()
    added, changed = map(int, loaded["loaded_test"].iloc[0])
    counts = {
        "added": added,
        "changed": changed,
        "vanished": int((loaded["vanished"].iloc[:, 0] == IMAGES[0]).sum()),
    }
    if not n_new:
        return counts | {"listed": 0, "predicted": 0, "failed": 0, "updated": 0}
    run = replace(
        latest, name=runs.new_name(), model_digest="", test_digest=data_digest(files)
    ).save()
    common = {"backend": backend, "database": database, "run": run.name}
    inference = {"only_new": True, "model_path": str(path)}
    run_notebook("03_run_inference", run.folder / "notebooks", common | inference)
    run_notebook("05_write_back", run.folder / "notebooks", common)
    found, written = (
        json.loads((run.folder / f"{name}.json").read_text())
        for name in ("inference", "write_back")
    )
    return counts | {"run": run.name, "listed": n_new, "predicted": found["predicted"], "failed": found["failed"]} | {
        "updated": written["updated"], "unmatched": len(written["unmatched"])
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done; 1 an error, or more than --max-failed of the new images could not be predicted."""
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
    except (NotebookError, Error, ValueError, LookupError, OSError) as error:
        counts = {"error": str(error)}
    print(json.dumps(counts | {"seconds": round(time.perf_counter() - started, 1)}), flush=True)
    return int("error" in counts or counts["failed"] > options.max_failed * counts["listed"])
