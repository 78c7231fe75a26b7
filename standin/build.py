"""Puts the server's parts together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from starlette.applications import Starlette

from standin import compat
from standin.app import Service
from standin.directory import DirectoryTables
from standin.files import FileServer
from standin.rewrite import FILE_URL_FUNCTION, SIGN_FUNCTION
from standin.sessions import Shared
from standin.signing import Signer, file_url
from standin.stage_statements import StageStatements
from standin.stages import StageStore
from standin.transactions import WriteLock


def application(
    root: Path, about: Mapping[str, Any], idle_s: float, lock_wait_s: float
) -> Starlette:
    """The server on the folder root; what an earlier one left half done is cleared first."""
    from fakesnow.transforms import stage as fakesnow_stage

    fakesnow_stage.LOCAL_BUCKET_PATH = str(root / "stages")
    signer = Signer.load(root / "secret.key", f"http://{about['host']}:{about['port']}")
    fake = compat.open_catalogue(root / "db")
    _register_functions(fake.duck_conn, signer)
    compat.attach_databases(fake, root / "db")
    store = StageStore(root, fake.duck_conn)
    directories = DirectoryTables(store)
    for name in store.temporary_names():
        left = store.find(name)
        if left:
            store.drop(left)
    shared = Shared(
        fake,
        store,
        directories,
        StageStatements(store, directories, signer),
        WriteLock(lock_wait_s),
        root / "db",
    )
    return Service(shared, about, idle_s).app(FileServer(store, signer, root / "parts").routes)


def _register_functions(connection: Any, signer: Signer) -> None:
    """Whole columns at a time, so that signing thousands of URLs is one call."""

    def signed_urls(stages: pa.Array, paths: pa.Array, seconds: pa.Array) -> pa.Array:
        rows = zip(stages.to_pylist(), paths.to_pylist(), seconds.to_pylist(), strict=True)
        return pa.array(
            [
                None if path is None else signer.signed_url(stage, path, s)
                for stage, path, s in rows
            ],
            pa.string(),
        )

    def file_urls(stages: pa.Array, paths: pa.Array) -> pa.Array:
        rows = zip(stages.to_pylist(), paths.to_pylist(), strict=True)
        return pa.array(
            [None if path is None else file_url(stage, path) for stage, path in rows], pa.string()
        )

    text = "VARCHAR"
    connection.create_function(
        SIGN_FUNCTION, signed_urls, [text, text, "BIGINT"], text, type="arrow", side_effects=True
    )
    connection.create_function(FILE_URL_FUNCTION, file_urls, [text, text], text, type="arrow")
