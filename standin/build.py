"""Puts the server's parts together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType
from starlette.applications import Starlette

from standin import compat
from standin.app import Service
from standin.directory import DirectoryTables
from standin.files import FileServer
from standin.history import History
from standin.pipelines import Pipelines
from standin.rewrite import FILE_URL_FUNCTION, SIGN_FUNCTION
from standin.serve import FOLDERS, PASSWORD
from standin.sessions import Shared
from standin.signing import Signer, file_url
from standin.stage_statements import StageStatements
from standin.stages import StageStore
from standin.streams import Streams
from standin.transactions import WriteLock
from standin.whole import kept_secret


def application(
    root: Path, about: Mapping[str, Any], idle_s: float, lock_wait_s: float, results_s: float
) -> Starlette:
    """The server on the folder root; what an earlier one left half done is cleared first.

    about: what it says of itself. idle_s: seconds of silence that end a transaction. lock_wait_s:
    seconds that a writer waits for another. results_s: for which a large result can be fetched.
    """
    from fakesnow.transforms import stage as fakesnow_stage

    # fakesnow's own is a new temporary folder in every process; staged files must outlive it.
    fakesnow_stage.LOCAL_BUCKET_PATH = str(root / "stages")
    signer = Signer.load(root / "secret.key", f"http://{about['host']}:{about['port']}")
    fake = compat.open_catalogue(root / "db")
    _register_functions(fake.duck_conn, signer)  # before the views that call them are attached
    compat.attach_databases(fake, root / "db")
    compat.shut_out(fake, root, FOLDERS)
    store = StageStore(root, fake.duck_conn)
    directories = DirectoryTables(store)
    # their sessions ended with the earlier server
    directories.drop_stages(store.temporary_names())
    statements = StageStatements(store, directories, signer)
    lock = WriteLock(lock_wait_s)
    streams = Streams(store)
    pipelines = Pipelines(store, streams)
    history = History(store)
    databases = root / "db"
    shared = Shared(
        fake, store, directories, statements, streams, pipelines, history, lock, databases
    )
    files = FileServer(store, signer, root / "parts")
    password = kept_secret(root / PASSWORD)
    return Service(shared, about, idle_s, results_s, password).app(files.routes)


def _register_functions(connection: duckdb.DuckDBPyConnection, signer: Signer) -> None:
    """Whole columns at a time, so that signing thousands of URLs is one call."""

    def signed_urls(stages: pa.Array, paths: pa.Array, seconds: pa.Array) -> pa.Array:
        urls = (
            None if path is None else signer.signed_url(stage, path, valid_s)
            for stage, path, valid_s in zip(
                stages.to_pylist(), paths.to_pylist(), seconds.to_pylist(), strict=True
            )
        )
        return pa.array(urls, pa.string())

    def file_urls(stages: pa.Array, paths: pa.Array) -> pa.Array:
        urls = (
            None if path is None else file_url(stage, path)
            for stage, path in zip(stages.to_pylist(), paths.to_pylist(), strict=True)
        )
        return pa.array(urls, pa.string())

    text = "VARCHAR"
    # Side effects: a signed URL holds the time, so DuckDB must not keep an earlier answer.
    connection.create_function(
        SIGN_FUNCTION,
        signed_urls,
        [text, text, "BIGINT"],
        text,
        type=PythonUDFType.ARROW,
        side_effects=True,
    )
    connection.create_function(
        FILE_URL_FUNCTION, file_urls, [text, text], text, type=PythonUDFType.ARROW
    )
