"""The answers to PUT and GET: from where and to where the connector shall copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from standin import keys, text
from standin.signing import DEFAULT_S, Signer
from standin.stages import Stage

LARGE_FILE = 200 * 1024 * 1024  # bytes; from there on the connector uploads in parts
N_PARALLEL = 4


@dataclass(frozen=True)
class Transfer:
    """What the server answers; the connector then moves the files itself, over HTTP."""

    data: dict[str, Any]


def upload(
    stage: Stage, path: str, local: str, options: text.Options, signer: Signer, by_url: bool
) -> Transfer:
    """PUT of the local path or glob into the stage's folder path.

    by_url: for connector 4, which wants an address for the file in place of a token.
    """
    folder = keys.as_folder(path)
    info = _stage_info("put", stage, folder, signer)
    if by_url:
        # Connector 4 asks again for each file of a glob, with its name, so one address is right.
        target = folder + PurePath(local).name
        url = signer.signed_url(stage.name.url_part, target, DEFAULT_S, "put")
        info |= {"creds": {}, "presignedUrl": url}
    return Transfer(
        {
            "command": "UPLOAD",
            "operation": "Node",
            "src_locations": [local],
            "parallel": int(options.get("PARALLEL", N_PARALLEL)),
            "threshold": LARGE_FILE,
            "autoCompress": text.flag(options, "AUTO_COMPRESS", True),
            "overwrite": text.flag(options, "OVERWRITE", False),
            "sourceCompression": str(options.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
            "clientShowEncryptionParameter": False,
            "encryptionMaterial": None,
            "stageInfo": info,
        }
    )


def download(
    stage: Stage, paths: list[str], local: str, options: text.Options, signer: Signer, by_url: bool
) -> Transfer:
    """GET of the stage's files at paths into a local folder. by_url: as in upload()."""
    info = _stage_info("download", stage, "", signer)
    urls = []
    if by_url:
        stage_part = stage.name.url_part
        urls = [signer.signed_url(stage_part, path, DEFAULT_S, "download") for path in paths]
        info["creds"] = {}
    return Transfer(
        {
            "command": "DOWNLOAD",
            "operation": "Node",
            "src_locations": paths,
            "localLocation": local,
            "parallel": int(options.get("PARALLEL", N_PARALLEL)),
            "threshold": LARGE_FILE,
            "autoCompress": False,
            "overwrite": False,
            "sourceCompression": "none",
            "clientShowEncryptionParameter": False,
            "encryptionMaterial": None,
            "presignedUrls": urls,
            "stageInfo": info,
        }
    )


def _stage_info(operation: str, stage: Stage, path: str, signer: Signer) -> dict[str, Any]:
    """The stage as a Google bucket with a token: the connector takes its address as it is.

    Before the address of an S3 or Azure store it puts https:// and the store's name.
    """
    stage_part = stage.name.url_part
    return {
        "locationType": "GCS",
        "location": f"stage-files/{stage_part}/{path}",
        "path": path,
        "region": "LOCAL",
        "storageAccount": "",
        "isClientSideEncrypted": False,
        "creds": {"GCS_ACCESS_TOKEN": signer.transfer_token(operation, stage_part)},
        "endPoint": signer.base_url,
        # With one, connector 5 stores every file of a glob under that one address: each says
        # UPLOADED, and all but the last are lost.
        "presignedUrl": None,
    }
