"""Checks of the way of an image: stage, directory table, signed URL, model, workers."""

import os
import time
from collections.abc import Iterator

import numpy as np

from helpers import choice, runs
from helpers.cluster.start import start_cluster
from helpers.commands.doctor.patient import NOTEBOOK_01, Finding, Patient
from helpers.files import digest_of
from helpers.images import Downloader, ImageError, UrlExpired, decode
from helpers.snowflake import cleanup
from helpers.snowflake.connection import execute
from helpers.snowflake.listing import sign_urls

STAGES = ("CLOTHING_DATASET", "CLOTHING_DATASET_TRAIN")
SKEW_S = (300, 30)  # a clock off by more fails, or gets a warning: keys and signed URLs hold times
# what to do for the way of an image
WAY = {
    "refused": "Look at the clock, below; or refresh the stage. An account may also keep other "
    "networks from its stages: ask for its network policies and private endpoints.",
    "blocked": "Let a firewall or proxy pass the stage. HTTPS_PROXY, NO_PROXY and "
    "REQUESTS_CA_BUNDLE name a company's own.",
}
WAIT_S = 30  # for workers of a cluster that is said to run


def encryption(patient: Patient) -> Iterator[Finding]:
    """Signed URLs of an internal stage need one that Snowflake itself can undo."""
    found = _stages(patient)
    if not found:
        yield Finding("warning", "no stage yet", NOTEBOOK_01)
    for row in found:
        name = row["name"]
        if row["type"] == "INTERNAL":  # with SNOWFLAKE_SSE it is INTERNAL NO CSE
            seen = f"{name} is not SNOWFLAKE_SSE: its signed URLs give no images"
            drop = f"drop stage {name}, then run notebook 01_set_up_snowflake."
            yield Finding("failed", seen, f"It cannot be changed: {drop}")
        else:
            yield Finding("ok", f"{name}: {row['type'].lower()}")


def directory(patient: Patient) -> Iterator[Finding]:
    """The directory table of each stage is there, and is of what is on the stage."""
    found = _stages(patient)
    for name in sorted(set(STAGES) - {row["name"] for row in found}):
        yield Finding("warning", f"{name} is not there yet", NOTEBOOK_01)
    for row in found:
        if row["directory_enabled"] == "Y":
            yield _freshness(patient, row["name"])
        else:
            remedy = f"alter stage {row['name']} set directory = (enable = true);"
            yield Finding("failed", f"{row['name']} has no directory table", remedy)


def _freshness(patient: Patient, stage: str) -> Finding:
    """Whether the directory table has as many files and bytes as LIST finds."""
    with patient.session.cursor() as cursor:  # of millions only the sizes are held
        sizes = np.fromiter((row[1] for row in cursor.execute(f"list @{stage}")), np.int64)
    counting = f"select count(*), coalesce(sum(size), 0) from directory(@{stage})"
    known, n_bytes = execute(patient.session, counting)[0]
    if (len(sizes), sizes.sum()) != (known, n_bytes):
        seen = f"{stage} has {len(sizes)} files, its directory table {known}"
        remedy = f"alter stage {stage} refresh; or run notebook 01_set_up_snowflake."
        return Finding("warning", f"{seen}, or other versions of them", remedy)
    if not known:
        return Finding("warning", f"{stage} is empty", NOTEBOOK_01)
    return Finding("ok", f"{stage}: {known} files")


def _stages(patient: Patient) -> list[dict]:
    """What SHOW says of the tutorial's stages that are there."""
    if not cleanup.database_exists(patient.session, patient.database):
        return []
    found = patient.show(f"show stages in database {patient.database}")
    return [row for row in found if row["name"] in STAGES]


def image(patient: Patient) -> Iterator[Finding]:
    """One is fetched through a signed URL, and decoded."""
    path = _first_path(patient)
    if path is None:
        yield Finding("warning", "there is none yet", NOTEBOOK_01)
        return
    url = sign_urls(patient.session, STAGES[0], [path], seconds=300)[0]
    try:
        data = Downloader(attempts=2)(url)[0]
    except ImageError as error:
        way = "refused" if isinstance(error, UrlExpired) else "blocked"
        yield Finding("failed", f"{path}: {error}", WAY[way])
        return
    patient.url = url
    try:
        _, height, width = decode(data).shape
        yield Finding("ok", f"{path}, {width} x {height} pixels")
    except ImageError as error:
        yield Finding("failed", f"{path}: {error}", "Look at the stage's encryption, above.")


def _first_path(patient: Patient) -> str | None:
    """An image of the directory table of the test images, if there are any."""
    if not any(
        row["name"] == STAGES[0] and row["directory_enabled"] == "Y" for row in _stages(patient)
    ):
        return None
    first = f"select relative_path from directory(@{STAGES[0]}) limit 1"
    rows = execute(patient.session, first)
    return rows[0][0] if rows else None


def clock(patient: Patient) -> Iterator[Finding]:
    """This machine's, beside Snowflake's."""
    before = time.time()
    there = execute(patient.session, "select current_timestamp()")[0][0].timestamp()
    skew = abs(there - (before + time.time()) / 2)
    seen = f"{skew:.0f} s off"
    if skew > SKEW_S[1]:
        state = "failed" if skew > SKEW_S[0] else "warning"
        yield Finding(state, seen, "Set this machine's clock (NTP).")
    else:
        yield Finding("ok", seen)


def trained_model(patient: Patient) -> Iterator[Finding]:
    """The one that notebook 03 would take, and whether the run's predictions are of it."""
    try:
        run = runs.open_run("latest", patient.backend, patient.database)
        path = choice.choose(run.data_digest, run.classes)
    except (FileNotFoundError, ValueError) as error:
        yield Finding("failed" if isinstance(error, ValueError) else "warning", str(error))
        return
    digest = digest_of(path)
    if run.model_digest in ("", digest):
        yield Finding("ok", f"{path.name}, SHA-256 {digest[:12]}")
    else:
        seen = f"{path.name} is {digest[:12]}, run {run.name} is of {run.model_digest[:12]}"
        yield Finding("warning", seen, "Notebook 03 starts a new run for it.")


def dask(patient: Patient) -> Iterator[Finding]:
    """Workers come, have our versions, and reach a signed URL. Starts none that cost money."""
    kind = patient.cluster
    if kind == "auto" and not os.environ.get("DASK_SCHEDULER_ADDRESS"):
        kind = "local"
        if os.environ.get("SATURN_TOKEN"):
            remedy = "python -m helpers doctor --cluster saturn"
            yield Finding("warning", "not started, since it costs", remedy)
            return

    def obstacle(url: str) -> str:
        """Why a worker cannot fetch the image, "" if it can; travels by value."""
        try:
            Downloader(attempts=2)(url)
        except ImageError as error:
            return error.reason
        return ""

    with start_cluster(kind, n_workers=1, wait_s=WAIT_S) as client:  # raises for other versions
        n_workers = len(client.nthreads())
        yield Finding("ok", f"{n_workers} workers at {client.scheduler.address}, versions agree")
        if not patient.url:
            yield Finding("warning", "no signed URL for them to try")
            return
        remedy = "Let the workers' network reach the stage. The stand-in serves this machine only."
        for worker, reason in client.run(obstacle, patient.url).items():
            if reason:
                yield Finding("failed", f"{worker}: {reason}", remedy)
            else:
                yield Finding("ok", f"{worker} reaches the stage")
