"""The steps around inference by the number of files on a stage: seconds, statements, memory.

Each step runs in a fresh process: a first sync of a folder of n small files, a second one that
has nothing to do, loading the tables, listing with signed URLs, the doctor's look at the stage, and
the export of a log of n predictions. Prints a row for each, and writes runs/bench/stage.json: by
step and n the seconds, also for a million, the statements that were sent, and the peak memory in
MiB. What a statement costs is the stand-in's affair: on an account it is another.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench_scale import peak_mib
from snowflake.connector import SnowflakeConnection
from snowflake.connector.cursor import SnowflakeCursor

import standin
from helpers import config
from helpers.commands.doctor import examine, images
from helpers.commands.doctor.patient import Patient
from helpers.files import write_json
from helpers.snowflake.cleanup import export
from helpers.snowflake.connection import connect, execute
from helpers.snowflake.listing import list_images
from helpers.snowflake.sql_files import run_file
from helpers.snowflake.stage import sync

FILES = (10_000, 100_000)
LOGGED = (10_000, 100_000, 1_000_000)
CLASSES = 10
DATABASE = "BENCH_STAGE"
STAGE = "clothing_dataset"


def draw(folder: Path, n: int) -> None:
    """n files that are images by their names; nobody decodes them."""
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    for number in range(n):
        (folder / f"class{number % CLASSES}" / f"{number:07d}.jpg").write_bytes(b"%d" % number)


def prepare(folder: Path, n: int) -> None:
    """Files, and a database with the tutorial's stages and tables."""
    draw(folder / str(n), n)
    with connect("local") as connection:
        execute(connection, f"drop database if exists {DATABASE}")
        run_file(connection, "sql/01_create_database.sql", database_name=DATABASE)
        run_file(connection, "sql/02_create_stages.sql")
        run_file(connection, "sql/03_create_tables.sql")


def syncing(connection: SnowflakeConnection, folder: Path, n: int) -> int:
    """Files on the stage after it."""
    changes = sync(connection, folder / str(n), STAGE)
    return len(changes.added) + changes.unchanged


def loading(connection: SnowflakeConnection, folder: Path, n: int) -> int:
    """Rows of the table after it."""
    run_file(connection, "sql/04_load_tables.sql")
    return execute(connection, "select count(*) from clothing_test")[0][0]


def listing_and_signing(connection: SnowflakeConnection, folder: Path, n: int) -> int:
    """URLs."""
    return sum(
        len(page) for page in list_images(connection, "clothing_test", STAGE, url_seconds=60)
    )


def examining(connection: SnowflakeConnection, folder: Path, n: int) -> int:
    """n where the doctor finds nothing wrong with the stage."""
    patient = Patient("local", DATABASE, "auto", connection)
    found = list(examine(patient, {"directory": images.directory}))
    assert found[0]["state"] == "ok", found
    return n


def exporting(connection: SnowflakeConnection, folder: Path, n: int) -> int:
    """Rows of the file."""
    return export(connection, DATABASE, folder / "export")["clothing_prediction_log"]


def fill_log(n: int) -> None:
    """A log of n predictions."""
    with connect("local", DATABASE) as connection:
        execute(connection, "truncate table clothing_prediction_log")
        execute(
            connection,
            "insert into clothing_prediction_log (run, relative_path, etag, size, type, confidence,"
            " model_digest, arch, predicted_at) select 'run', 'hat/' || seq || '.jpg', md5(seq), "
            "1000, 'hat', 0.9, 'digest', 'resnet18', current_timestamp() from "
            f"(select seq4()::varchar as seq from table(generator(rowcount => {n})))",
        )


STEPS: dict[str, Callable[[SnowflakeConnection, Path, int], int]] = {
    "sync": syncing,
    "sync again": syncing,
    "load": loading,
    "list and sign": listing_and_signing,
    "doctor": examining,
    "export": exporting,
}


def measure(step: str, n: int, folder: Path) -> dict:
    """What the fresh process for one step and n does."""
    statements = []
    send = SnowflakeCursor.execute

    def counted(self, command, *values, **options):
        statements.append(command)
        return send(self, command, *values, **options)

    with connect("local", DATABASE) as connection:
        SnowflakeCursor.execute = counted
        before = peak_mib()
        started = time.perf_counter()
        done = STEPS[step](connection, folder, n)
        seconds = time.perf_counter() - started
        SnowflakeCursor.execute = send
    assert done == n, (step, done, n)
    return {
        "seconds": round(seconds, 2),
        "seconds_a_million": round(seconds * 1e6 / n),
        "statements": len(statements),
        "peak_mib": peak_mib(),
        "before_mib": before,
    }


def in_fresh_process(step: str, n: int, folder: Path) -> dict:
    """What `measure` finds there."""
    command = [sys.executable, __file__, "--one", step, str(n), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure each step and n in a stand-in of its own, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=FILES)
    parser.add_argument("--logged", type=int, nargs="+", default=LOGGED)
    parser.add_argument("--one", nargs=3, metavar=("STEP", "N", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        step, n, folder = options.one
        print(json.dumps(measure(step, int(n), Path(folder))))
        return
    folder = Path(tempfile.mkdtemp())
    os.environ["TUTORIAL_SANDBOX"] = str(folder / "sandbox")
    results: dict[str, dict] = {step: {} for step in STEPS}

    def show(step: str, n: int) -> None:
        result = in_fresh_process(step, n, folder)
        results[step][str(n)] = result
        shown = "  ".join(f"{name} {value}" for name, value in result.items())
        print(f"{step:14} {n:>9}  {shown}", flush=True)

    try:
        for n in options.files:
            prepare(folder, n)
            for step in STEPS:
                if step != "export":
                    show(step, n)
        for n in options.logged:
            fill_log(n)
            show("export", n)
    finally:
        standin.stop(folder / "sandbox")
        shutil.rmtree(folder, ignore_errors=True)
    write_json(config.runs_folder() / "bench" / "stage.json", results)


if __name__ == "__main__":
    main()
