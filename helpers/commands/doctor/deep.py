"""What only an account can tell, tried there in a minute; all that this makes is taken away."""

import hashlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from helpers.commands.doctor.patient import NOTEBOOK_01, Finding, Patient
from helpers.images import Downloader, UrlExpired
from helpers.records import TIME, sql_columns
from helpers.snowflake.connection import execute
from helpers.snowflake.listing import sign_urls
from helpers.snowflake.stage import listing, sync

NAMES = ("it's 50% + #1.png", "größe (2).png", "two  blanks & a+b.png")
REMEDY = "Please tell the project: it was built on the other answer."
SHORT_S = 1  # life of a URL that is to expire
TIMES = pa.schema({"seen_at": TIME})


def deep(patient: Patient) -> Iterator[Finding]:
    """Names, MD5, refresh, signed URLs and a time stamp, on a stage and a table of its own."""
    if patient.session.database is None:
        yield Finding("warning", "there is no database to try it in", NOTEBOOK_01)
        return
    name = f"clothing_doctor_{secrets.token_hex(4)}"
    options = "encryption = (type = 'SNOWFLAKE_SSE') directory = (enable = true)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            execute(patient.session, f"create stage {name} {options}")
            images = _drawn(Path(folder) / "images")
            sync(patient.session, Path(folder) / "images", name)
            yield from _listed(patient, name, images)
            yield from _signed(patient, name, images)
            yield _time_stamp(patient, name, Path(folder) / "times.parquet")
        finally:
            execute(patient.session, f"drop table if exists {name}")
            execute(patient.session, f"drop stage if exists {name}")
    yield Finding("ok", f"stage and table {name.upper()} are taken away")


def _drawn(folder: Path) -> dict[str, bytes]:
    """Small pictures with odd names in a class folder: their bytes by path on the stage."""
    (folder / "hat").mkdir(parents=True)
    for shade, name in enumerate(NAMES):
        Image.new("RGB", (16, 16), (80 * shade, 0, 0)).save(folder / "hat" / name)
    return {f"hat/{name}": (folder / "hat" / name).read_bytes() for name in NAMES}


def _listed(patient: Patient, stage: str, images: dict[str, bytes]) -> Iterator[Finding]:
    listed = listing(patient.session, stage)
    yield _judged(listed.keys() == images.keys(), f"odd names are kept: {sorted(listed)}")
    found = {path: digest for path, (_, digest) in listed.items()}
    own = {path: hashlib.md5(data).hexdigest() for path, data in images.items()}
    yield _judged(found == own, f"LIST tells the MD5 of the bytes: {found[min(found)]}")
    execute(patient.session, f"alter stage {stage} refresh")
    known = dict(execute(patient.session, f"select relative_path, md5 from directory(@{stage})"))
    yield _judged(known == own, f"a refresh sees at once what was PUT: {len(known)} images")


def _signed(patient: Patient, stage: str, images: dict[str, bytes]) -> Iterator[Finding]:
    download = Downloader(attempts=2)
    urls = sign_urls(patient.session, stage, list(images), seconds=300)
    fetched = [download(url)[0] for url in urls]
    yield _judged(fetched == list(images.values()), f"signed URLs give {len(fetched)} images")
    time.sleep(SHORT_S + 1)
    again = sign_urls(patient.session, stage, list(images), seconds=300)
    yield _judged(not set(urls) & set(again), "signing again gives new URLs, none from a cache")
    (short,) = sign_urls(patient.session, stage, list(images)[:1], seconds=SHORT_S)
    time.sleep(SHORT_S + 1)
    try:
        download(short)
        said = "it still gives the image"
    except UrlExpired as error:
        said = str(error)
    yield _judged(said != "it still gives the image", f"an expired URL is refused: {said}")


def _time_stamp(patient: Patient, name: str, path: Path) -> Finding:
    """A time goes the way of a prediction's: Parquet, COPY INTO, and back."""
    written = datetime.now(UTC)
    pq.write_table(pa.table({"seen_at": [written]}, schema=TIMES), path)
    execute(patient.session, f"put 'file://{path}' @{name}/times/ auto_compress = false")
    execute(patient.session, f"create table {name} ({sql_columns(TIMES)})")
    execute(
        patient.session,
        f"copy into {name} from @{name}/times/ match_by_column_name = case_insensitive "
        "file_format = (type = parquet use_logical_type = true)",
    )
    read = execute(patient.session, f"select seen_at from {name}")[0][0]
    return _judged(read == written, f"a time stamp of {written} is read back as {read}")


def _judged(is_so: bool, seen: str) -> Finding:
    return Finding("ok", seen) if is_so else Finding("failed", f"NOT SO: {seen}", REMEDY)
