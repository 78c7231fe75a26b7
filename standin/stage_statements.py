"""The statements about stages: CREATE, ALTER, DESC, DROP, LIST, REMOVE, PUT, GET."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

from standin import text
from standin.directory import DirectoryTables
from standin.errors import ALREADY_EXISTS, compilation_error, unsupported
from standin.infer import infer_schema
from standin.names import IDENTIFIER, StageName, parse_reference, qualify, split_identifiers
from standin.results import UNKNOWN, Result, rows, status
from standin.signing import DEFAULT_S, Signer
from standin.stages import Stage, StageStore

NAME = rf"(?P<name>(?:{IDENTIFIER})(?:\.(?:{IDENTIFIER}))*|IDENTIFIER\s*\(\s*'[^']*'\s*\))"
PATHS = rf"(?P<stage>{text.STRING}|@(?:\"[^\"]*\"|[^\s\"])+)"
LOCAL = rf"(?P<local>{text.STRING}|file://\S+)"
INFER = (
    r"SELECT\s+(?P<columns>\*|\w+(?:\s*,\s*\w+)*)\s+FROM\s+TABLE\s*\(\s*INFER_SCHEMA\s*\("
    rf"\s*LOCATION\s*=>\s*(?P<stage>{text.STRING})\s*,\s*FILE_FORMAT\s*=>\s*(?P<rest>{text.STRING})\s*\)\s*\)\s*$"
)
REPLACE, TEMPORARY = (
    r"(?P<replace>OR\s+REPLACE\s+)?",
    r"(?P<temporary>(?:LOCAL\s+)?TEMP(?:ORARY)?\s+)?",
)
NOT_EXISTS, EXISTS = r"(?P<exists>IF\s+NOT\s+EXISTS\s+)?", r"(?P<exists>IF\s+EXISTS\s+)?"
REST = r"(?P<rest>.*)$"
FORMS = {
    kind: re.compile(form, re.I | re.S)
    for kind, form in {
        "create": rf"CREATE\s+{REPLACE}{TEMPORARY}STAGE\s+{NOT_EXISTS}{NAME}(?=\s|$){REST}",
        "alter": rf"ALTER\s+STAGE\s+{EXISTS}{NAME}\s+(?P<action>REFRESH|SET|RENAME|UNSET)\b{REST}",
        "drop": rf"DROP\s+STAGE\s+{EXISTS}{NAME}\s*$",
        "describe": rf"DESC(?:RIBE)?\s+STAGE\s+{NAME}\s*$",
        "list": rf"(?:LIST|LS)\s+{PATHS}{REST}",
        "remove": rf"(?:REMOVE|RM)\s+{PATHS}{REST}",
        "put": rf"PUT\s+{LOCAL}\s+{PATHS}{REST}",
        "get": rf"GET\s+{PATHS}\s+{LOCAL}{REST}",
        "infer": INFER,
    }.items()
}
DEFINITIONS = frozenset({"create", "alter", "drop"})


@dataclass(frozen=True)
class Caller:
    """Whose statement it is. by_url: its connector (4) wants an address a file, not a token."""

    database: str | None
    schema: str | None
    session: str
    by_url: bool = False

    def stage_name(self, written: str) -> StageName:
        inner = re.fullmatch(r"IDENTIFIER\s*\(\s*('.*')\s*\)", written, re.I | re.S)
        return qualify(
            split_identifiers(text.unquote_string(inner[1]) if inner else written),
            self.database,
            self.schema,
        )

    def reference(self, written: str) -> tuple[StageName, str]:
        plain = text.unquote_string(written)
        if plain.startswith(("@~", "@%")):
            raise unsupported(f"user and table stages ({plain}); create a named stage")
        return parse_reference(plain, self.database, self.schema)


@dataclass(frozen=True)
class Transfer:
    """The answer to PUT and GET: from where and to where the connector shall copy."""

    data: dict[str, Any]


Answer = Result | Transfer


class StageStatements:
    """Recognises and runs statements about stages."""

    def __init__(self, store: StageStore, directories: DirectoryTables, signer: Signer) -> None:
        self._store, self._directories, self._signer = store, directories, signer
        self._runs: dict[str, Callable[[Caller, re.Match[str]], Answer]] = {
            "create": self._create,
            "alter": self._alter,
            "drop": self._drop,
            "describe": self._describe,
            "list": self._list,
            "remove": self._remove,
            "put": self._put,
            "get": self._get,
            "infer": self._infer,
        }

    def match(self, statement: str) -> tuple[str, Callable[[Caller], Answer]] | None:
        """The kind of statement and how to run it; None if it is not about a stage."""
        for kind, form in FORMS.items():
            found = form.match(statement)
            if found:
                return kind, partial(self._runs[kind], found=found)
        if re.match(
            r"(PUT|GET|LIST|LS|REMOVE|RM|(CREATE|ALTER|DROP|DESC|DESCRIBE)\s+(OR\s+REPLACE\s+)?STAGE)\s",
            statement,
            re.I,
        ):
            raise compilation_error(f"syntax error in '{statement[:80]}'.")
        return None

    def _create(self, caller: Caller, found: re.Match[str]) -> Result:
        name, options = caller.stage_name(found["name"]), text.parse_options(found["rest"])
        text.only(
            options,
            {
                "URL",
                "CREDENTIALS",
                "STORAGE_INTEGRATION",
                "ENCRYPTION",
                "DIRECTORY",
                "FILE_FORMAT",
                "COMMENT",
            },
            "CREATE STAGE",
        )
        present = self._store.find(name)
        if present and found["exists"]:
            return status(f"{name.name} already exists, statement succeeded.")
        if present and not found["replace"]:
            raise compilation_error(f"Object '{name}' already exists.", ALREADY_EXISTS, "42710")
        stage = _stage_from(name, options, caller.session if found["temporary"] else "")
        if present:
            self._forget(present)
        self._store.create(stage)
        return status(f"Stage area {name.name} successfully created.")

    def _alter(self, caller: Caller, found: re.Match[str]) -> Result:
        name, action = caller.stage_name(found["name"]), found["action"].upper()
        stage = self._store.find(name, caller.session)
        if stage is None and found["exists"]:
            return status("Statement executed successfully.")
        stage = self._store.get(name, caller.session)
        options = text.parse_options(found["rest"])
        if action == "REFRESH":
            text.only(options, {"SUBPATH"}, "ALTER STAGE … REFRESH")
            return self._refresh(stage, str(options.get("SUBPATH", "")))
        if action != "SET" or set(options) != {"DIRECTORY"}:
            raise unsupported(f"ALTER STAGE {name} {action}{found['rest']}")
        self._store.set_directory(name, text.flag(options["DIRECTORY"], "ENABLE", False))
        return status(f"Stage area {name.name} successfully altered.")

    def _refresh(self, stage: Stage, prefix: str) -> Result:
        require_directory(stage)
        changes = self._directories.refresh(stage, prefix)
        values = [(change.file, change.status, change.description) for change in changes]
        return rows(["file", "status", "description"], values, UNKNOWN)

    def _drop(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        stage = self._store.find(name, caller.session)
        if stage is None and found["exists"]:
            return status(f"Drop statement executed successfully ({name.name} already dropped).")
        self._forget(self._store.get(name, caller.session))
        return status(f"{name.name} successfully dropped.")

    def _forget(self, stage: Stage) -> None:
        self._store.drop(stage)
        self._directories.forget(stage.name)

    def _describe(self, caller: Caller, found: re.Match[str]) -> Result:
        stage = self._store.get(caller.stage_name(found["name"]), caller.session)
        location = json.dumps([stage.url]) if stage.url else ""
        values = [
            ("STAGE_LOCATION", "URL", "String", location, ""),
            ("STAGE_INTEGRATION", "STORAGE_INTEGRATION", "String", stage.storage_integration, ""),
            ("STAGE_ENCRYPTION", "TYPE", "String", stage.encryption, ""),
            ("DIRECTORY", "ENABLE", "Boolean", str(stage.directory).lower(), "false"),
            ("DIRECTORY", "AUTO_REFRESH", "Boolean", "false", "false"),
        ]
        columns = [
            "parent_property",
            "property",
            "property_type",
            "property_value",
            "property_default",
        ]
        return rows(columns, values, UNKNOWN)

    def _list(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        values = [
            (
                _listed_name(stage, file.path),
                file.size,
                file.md5,
                file.modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            )
            for file in self._store.files(stage, prefix)
            if _matches(found, stage, file.path)
        ]
        return rows(["name", "size", "md5", "last_modified"], values, UNKNOWN)

    def _remove(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        gone = [
            file.path
            for file in self._store.files(stage, prefix)
            if _matches(found, stage, file.path)
        ]
        for path in gone:
            self._store.remove(stage, path)
        return rows(
            ["name", "result"], [(_listed_name(stage, path), "removed") for path in gone], UNKNOWN
        )

    def _located(self, caller: Caller, found: re.Match[str]) -> tuple[Stage, str]:
        name, path = caller.reference(found["stage"])
        stage = self._store.get(name, caller.session)
        self._store.resolve(stage, path)
        return stage, path

    def _put(self, caller: Caller, found: re.Match[str]) -> Transfer:
        stage, path = self._located(caller, found)
        if stage.url:
            raise unsupported(
                f"PUT into the external stage {stage.name} (Snowflake refuses it too)"
            )
        options = text.parse_options(found["rest"])
        text.only(options, {"PARALLEL", "AUTO_COMPRESS", "SOURCE_COMPRESSION", "OVERWRITE"}, "PUT")
        data = {
            "command": "UPLOAD",
            "operation": "Node",
            "src_locations": [_local_path(found["local"])],
            "parallel": int(options.get("PARALLEL", 4)),
            "threshold": 200 * 1024 * 1024,
            "autoCompress": text.flag(options, "AUTO_COMPRESS", True),
            "overwrite": text.flag(options, "OVERWRITE", False),
            "sourceCompression": str(options.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
            "clientShowEncryptionParameter": False,
            "encryptionMaterial": None,
            "stageInfo": self._stage_info("put", stage, path.rstrip("/") + "/" if path else ""),
        }
        if caller.by_url:
            target = data["stageInfo"]["path"] + PurePath(data["src_locations"][0]).name
            url = self._signer.signed_url(stage.name.url_part, target, DEFAULT_S, "put")
            data["stageInfo"] |= {"creds": {}, "presignedUrl": url}
        return Transfer(data)

    def _get(self, caller: Caller, found: re.Match[str]) -> Transfer:
        stage, prefix = self._located(caller, found)
        options = text.parse_options(found["rest"])
        text.only(options, {"PARALLEL", "PATTERN"}, "GET")
        paths = [
            file.path
            for file in self._store.files(stage, prefix)
            if _matches(found, stage, file.path)
        ]
        data = {
            "command": "DOWNLOAD",
            "operation": "Node",
            "src_locations": paths,
            "localLocation": _local_path(found["local"]),
            "parallel": int(options.get("PARALLEL", 4)),
            "threshold": 200 * 1024 * 1024,
            "autoCompress": False,
            "overwrite": False,
            "sourceCompression": "none",
            "clientShowEncryptionParameter": False,
            "encryptionMaterial": None,
            "presignedUrls": [],
            "stageInfo": self._stage_info("download", stage, ""),
        }
        if caller.by_url:
            sign = partial(
                self._signer.signed_url,
                stage.name.url_part,
                seconds=DEFAULT_S,
                operation="download",
            )
            data["presignedUrls"] = [sign(path) for path in paths]
            data["stageInfo"] |= {"creds": {}}
        return Transfer(data)

    def _infer(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        files = self._store.files(stage, prefix)
        result = infer_schema(
            [(file.path, self._store.resolve(stage, file.path)) for file in files]
        )
        columns = [column.strip().upper() for column in found["columns"].split(",")]
        return result if columns == ["*"] else Result(result.table.select(columns))

    def _stage_info(self, operation: str, stage: Stage, path: str) -> dict[str, Any]:
        """A Google bucket with a token: the one kind of storage whose address the connector takes as it is.

        No presignedUrl: with one, connector 5 would store every file of a glob under one name.
        """
        return {
            "locationType": "GCS",
            "location": f"stage-files/{stage.name.url_part}/{path}",
            "path": path,
            "region": "LOCAL",
            "storageAccount": "",
            "isClientSideEncrypted": False,
            "creds": {
                "GCS_ACCESS_TOKEN": self._signer.transfer_token(operation, stage.name.url_part)
            },
            "endPoint": self._signer.base_url,
            "presignedUrl": None,
        }


def require_directory(stage: Stage) -> None:
    """A stage without directory table is an SQL error."""
    if not stage.directory:
        raise compilation_error(
            f"Stage '{stage.name}' has no directory table (DIRECTORY = (ENABLE = TRUE)).", 391505
        )


def _stage_from(name: StageName, options: text.Options, owner_session: str) -> Stage:
    encryption = options.get("ENCRYPTION", {})
    default = "NONE" if "URL" in options else "SNOWFLAKE_FULL"
    return Stage(
        name=name,
        url=str(options.get("URL", "")),
        directory=text.flag(options.get("DIRECTORY", {}), "ENABLE", False),
        encryption=str(encryption.get("TYPE", default)).upper(),
        owner_session=owner_session,
        comment=str(options.get("COMMENT", "")),
        storage_integration=str(options.get("STORAGE_INTEGRATION", "")),
        has_credentials="CREDENTIALS" in options,
    )


def _listed_name(stage: Stage, path: str) -> str:
    return f"{stage.url.rstrip('/')}/{path}" if stage.url else f"{stage.name.name.lower()}/{path}"


def _matches(found: re.Match[str], stage: Stage, path: str) -> bool:
    pattern = text.parse_options(found["rest"]).get("PATTERN")
    if pattern is None:
        return True
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise compilation_error(f"invalid PATTERN '{pattern}': {error}") from error


def _local_path(written: str) -> str:
    plain = text.unquote_string(written)
    if not plain.startswith("file://"):
        raise compilation_error(f"'{plain}' is not a local file; it must begin with file://")
    return plain.removeprefix("file://")
