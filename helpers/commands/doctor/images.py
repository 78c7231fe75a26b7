"""Checks of the way of an image: stage, directory table, signed URL, model, workers."""

import os
import time
from collections.abc import Iterator

from helpers import model, runs
from helpers.cluster.start import start_cluster
from helpers.commands.doctor.patient import NOTEBOOK_01, Patient, Seen
from helpers.files import digest_of
from helpers.images import Downloader, ImageError, UrlExpired, decode
from helpers.snowflake import cleanup
from helpers.snowflake.connection import execute
from helpers.snowflake.listing import sign_urls

STAGES = ("CLOTHING_DATASET", "CLOTHING_DATASET_TRAIN")
SKEW_S = (
    300,
    30,
)  # a clock that is off by more fails, or gets a warning: keys and signed URLs carry times
WAIT_S = 30  # for workers of a cluster that is said to run


def encryption(patient: Patient) -> Iterator[Seen]:
    """Signed URLs of an internal stage need one that Snowflake itself can undo."""
    found = _stages(patient)
    if not found:
        yield Seen("warning", "no stage yet", NOTEBOOK_01)
    for row in found:
        if row["type"] == "INTERNAL":  # with SNOWFLAKE_SSE it is INTERNAL NO CSE
            remedy = f"It cannot be changed: drop stage {row['name']}, then run notebook 01_set_up_snowflake."
            yield Seen(
                "failed",
                f"{row['name']} is not SNOWFLAKE_SSE: its signed URLs give no images",
                remedy,
            )
        else:
            yield Seen("ok", f"{row['name']}: {row['type'].lower()}")


def directory(patient: Patient) -> Iterator[Seen]:
    """The directory table of each stage is there, and is of what is on the stage."""
    found = _stages(patient)
    for name in sorted(set(STAGES) - {row["name"] for row in found}):
        yield Seen("warning", f"{name} is not there yet", NOTEBOOK_01)
    for row in found:
        name = row["name"]
        if row["directory_enabled"] != "Y":
            yield Seen(
                "failed",
                f"{name} has no directory table",
                f"alter stage {name} set directory = (enable = true);",
            )
            continue
        listed = sorted(
            (size, md5) for _, size, md5, *_ in execute(patient.connection, f"list @{name}")
        )
        known = sorted(execute(patient.connection, f"select size, md5 from directory(@{name})"))
        if listed == known:
            yield (
                Seen("ok", f"{name}: {len(known)} files")
                if known
                else Seen("warning", f"{name} is empty", NOTEBOOK_01)
            )
        else:
            seen = f"{name} has {len(listed)} files, its directory table {len(known)}, or other versions of them"
            yield Seen(
                "warning", seen, f"alter stage {name} refresh; or run notebook 01_set_up_snowflake."
            )


def _stages(patient: Patient) -> list[dict]:
    if not cleanup.database_exists(patient.connection, patient.database):
        return []
    return [
        row
        for row in patient.show(f"show stages in database {patient.database}")
        if row["name"] in STAGES
    ]


def image(patient: Patient) -> Iterator[Seen]:
    """One is fetched through a signed URL, and decoded."""
    enabled = [
        row
        for row in _stages(patient)
        if (row["name"], row["directory_enabled"]) == (STAGES[0], "Y")
    ]
    paths = (
        execute(patient.connection, f"select relative_path from directory(@{STAGES[0]}) limit 1")
        if enabled
        else []
    )
    if not paths:
        return (yield Seen("warning", "there is none yet", NOTEBOOK_01))
    url = sign_urls(patient.connection, STAGES[0], [paths[0][0]], seconds=300)[0]
    try:
        data = Downloader(attempts=2)(url)[0]
        patient.url = url
        height, width = decode(data).shape[1:]
        yield Seen("ok", f"{paths[0][0]}, {width} x {height} pixels")
    except UrlExpired as error:
        yield Seen(
            "failed", f"{paths[0][0]}: {error}", "Look at the clock, below; or refresh the stage."
        )
    except ImageError as error:
        remedy = (
            "Look at the stage's encryption, above."
            if patient.url
            else "Let a firewall or proxy pass the stage."
        )
        yield Seen("failed", f"{paths[0][0]}: {error}", remedy)


def clock(patient: Patient) -> Iterator[Seen]:
    """This machine's, beside Snowflake's."""
    before = time.time()
    there = execute(patient.connection, "select current_timestamp()")[0][0].timestamp()
    skew = abs(there - (before + time.time()) / 2)
    state = "failed" if skew > SKEW_S[0] else "warning" if skew > SKEW_S[1] else "ok"
    yield Seen(
        state, f"{skew:.0f} s off", "" if state == "ok" else "Set this machine's clock (NTP)."
    )


def trained_model(patient: Patient) -> Iterator[Seen]:
    """The one that notebook 03 would take, and whether the run's predictions are of it."""
    try:
        run = runs.open_run("latest", patient.backend, patient.database)
        path = model.choose(run.data_digest, run.classes)
    except (FileNotFoundError, ValueError) as error:
        return (yield Seen("failed" if isinstance(error, ValueError) else "warning", str(error)))
    digest = digest_of(path)
    if run.model_digest in ("", digest):
        yield Seen("ok", f"{path.name}, SHA-256 {digest[:12]}")
    else:
        seen = f"{path.name} is {digest[:12]}, run {run.name} is of {run.model_digest[:12]}"
        yield Seen("warning", seen, "Notebook 03 starts a new run for it.")


def dask(patient: Patient) -> Iterator[Seen]:
    """Workers come, have our versions, and reach a signed URL. Starts none that cost money."""
    kind = patient.cluster
    if kind == "auto" and not os.environ.get("DASK_SCHEDULER_ADDRESS"):
        kind = "local"
        if os.environ.get("SATURN_TOKEN"):
            return (
                yield Seen(
                    "warning",
                    "not started, since it costs",
                    "python -m helpers doctor --cluster saturn",
                )
            )
    with start_cluster(kind, n_workers=1, wait_s=WAIT_S) as client:  # raises for other versions
        yield Seen(
            "ok", f"{len(client.nthreads())} workers at {client.scheduler.address}, versions agree"
        )
        if not patient.url:
            return (yield Seen("warning", "no signed URL for them to try"))
        for worker, reason in client.run(_reach, patient.url).items():
            remedy = (
                "Let the workers' network reach the stage. The stand-in serves this machine only."
            )
            yield (
                Seen("failed", f"{worker}: {reason}", remedy)
                if reason
                else Seen("ok", f"{worker} reaches the stage")
            )


def _reach(url: str) -> str:
    """Why a worker cannot fetch the image; "" if it can."""
    try:
        Downloader(attempts=2)(url)
    except ImageError as error:
        return error.reason
    return ""
