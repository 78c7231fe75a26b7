"""The statements about stages: CREATE, ALTER, DESC, DROP, LIST, REMOVE, PUT, GET.

fakesnow knows few of them and sqlglot reads them as mere text, so they are told by pattern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from standin import keys, text
from standin.directory import DirectoryTables
from standin.errors import ALREADY_EXISTS, compilation_error, unsupported
from standin.infer import infer_schema
from standin.names import IDENTIFIER, StageName, parse_reference, qualify, split_identifiers
from standin.results import UNKNOWN, Result, rows, status
from standin.signing import Signer
from standin.stages import Stage, StagedFile, StageStore, temporary_name
from standin.transfers import Transfer, download, upload

NAME = rf"(?P<name>(?:{IDENTIFIER})(?:\.(?:{IDENTIFIER}))*|IDENTIFIER\s*\(\s*'[^']*'\s*\))"
PATHS = rf"(?P<stage>{text.STRING}|@(?:\"[^\"]*\"|[^\s\"])+)"
LOCAL = rf"(?P<local>{text.STRING}|file://\S+)"
# What write_pandas(auto_create_table=True) asks; INFER_SCHEMA in any other form is refused.
INFER = (
    r"SELECT\s+(?P<columns>\*|\w+(?:\s*,\s*\w+)*)\s+FROM\s+TABLE\s*\(\s*INFER_SCHEMA\s*\("
    rf"\s*LOCATION\s*=>\s*(?P<stage>{text.STRING})\s*,"
    rf"\s*FILE_FORMAT\s*=>\s*(?P<rest>{text.STRING})\s*\)\s*\)\s*$"
)
REPLACE = r"(?P<replace>OR\s+REPLACE\s+)?"
TEMPORARY = r"(?P<temporary>(?:LOCAL\s+)?TEMP(?:ORARY)?\s+)?"
NOT_EXISTS = r"(?P<exists>IF\s+NOT\s+EXISTS\s+)?"
EXISTS = r"(?P<exists>IF\s+EXISTS\s+)?"
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
ANY_FORM = re.compile(
    r"(PUT|GET|LIST|LS|REMOVE|RM"
    r"|(CREATE|ALTER|DROP|DESC|DESCRIBE)\s+(OR\s+REPLACE\s+)?STAGE)\s",
    re.I,
)
DEFINITIONS = frozenset({"create", "alter", "drop"})
STAGE_OPTIONS = {
    "URL",
    "CREDENTIALS",
    "STORAGE_INTEGRATION",
    "ENCRYPTION",
    "DIRECTORY",
    "FILE_FORMAT",
    "COMMENT",
}
PUT_OPTIONS = {"PARALLEL", "AUTO_COMPRESS", "SOURCE_COMPRESSION", "OVERWRITE"}


@dataclass(frozen=True)
class Caller:
    """Whose statement it is. by_url: its connector (4) wants an address a file, not a token."""

    database: str | None
    schema: str | None
    session: str
    by_url: bool = False

    def stage_name(self, written: str) -> StageName:
        """The full name of a stage, written plainly or as IDENTIFIER('name')."""
        inner = re.fullmatch(r"IDENTIFIER\s*\(\s*('.*')\s*\)", written, re.I | re.S)
        plain = text.unquote_string(inner[1]) if inner else written
        return qualify(split_identifiers(plain), self.database, self.schema)

    def reference(self, written: str) -> tuple[StageName, str]:
        """The stage and the path of @stage/path, in quotes or not."""
        plain = text.unquote_string(written)
        if plain.startswith(("@~", "@%")):
            raise unsupported(f"user and table stages ({plain}); create a named stage")
        return parse_reference(plain, self.database, self.schema)


Answer = Result | Transfer


class StageStatements:
    """Recognises and runs statements about stages."""

    def __init__(self, store: StageStore, directories: DirectoryTables, signer: Signer) -> None:
        self._store = store
        self._directories = directories
        self._signer = signer
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
                return kind, partial(self._run, kind, found)
        # sqlglot would take it for something else, and its error would lead the reader astray.
        if ANY_FORM.match(statement):
            raise compilation_error(f"syntax error in '{statement[:80]}'.")
        return None

    def _run(self, kind: str, found: re.Match[str], caller: Caller) -> Answer:
        return self._runs[kind](caller, found)

    def _create(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        options = text.parse_options(found["rest"])
        text.only(options, STAGE_OPTIONS, "CREATE STAGE")
        owner = caller.session if found["temporary"] else ""
        kept = temporary_name(name, owner) if owner else name
        present = self._store.find(kept)
        if present and found["exists"]:
            return status(f"{name.name} already exists, statement succeeded.")
        if present and not found["replace"]:
            raise compilation_error(f"Object '{name}' already exists.", ALREADY_EXISTS, "42710")
        stage = _stage_from(kept, options, owner)
        if present:
            self._directories.drop_stages([present.name])
        self._store.create(stage)
        return status(f"Stage area {name.name} successfully created.")

    def _alter(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        action = found["action"].upper()
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
        self._store.set_directory(stage.name, text.flag(options["DIRECTORY"], "ENABLE", False))
        return status(f"Stage area {name.name} successfully altered.")

    def _refresh(self, stage: Stage, prefix: str) -> Result:
        require_directory(stage)
        values = [
            (change.file, change.status, change.description)
            for change in self._directories.refresh(stage, prefix)
        ]
        return rows(["file", "status", "description"], values, UNKNOWN)

    def _drop(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        stage = self._store.find(name, caller.session)
        if stage is None and found["exists"]:
            return status(f"Drop statement executed successfully ({name.name} already dropped).")
        self._directories.drop_stages([self._store.get(name, caller.session).name])
        return status(f"{name.name} successfully dropped.")

    def _describe(self, caller: Caller, found: re.Match[str]) -> Result:
        stage = self._store.get(caller.stage_name(found["name"]), caller.session)
        values = [
            ("STAGE_LOCATION", "URL", "String", json.dumps([stage.url]) if stage.url else "", ""),
            ("STAGE_INTEGRATION", "STORAGE_INTEGRATION", "String", stage.storage_integration, ""),
            ("STAGE_ENCRYPTION", "TYPE", "String", stage.encryption, ""),
            ("DIRECTORY", "ENABLE", "Boolean", str(stage.directory).lower(), "false"),
            ("DIRECTORY", "AUTO_REFRESH", "Boolean", "false", "false"),
        ]
        return rows(
            [
                "parent_property",
                "property",
                "property_type",
                "property_value",
                "property_default",
            ],
            values,
            UNKNOWN,
        )

    def _list(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        values = []
        for file in self._matching(stage, prefix, found):
            modified = file.modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
            values.append((_listed_name(stage, file.path), file.size, file.md5, modified))
        return rows(["name", "size", "md5", "last_modified"], values, UNKNOWN)

    def _remove(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        gone = [file.path for file in self._matching(stage, prefix, found)]
        for path in gone:
            self._store.remove(stage, path)
        values = [(_listed_name(stage, path), "removed") for path in gone]
        return rows(["name", "result"], values, UNKNOWN)

    def _matching(self, stage: Stage, prefix: str, found: re.Match[str]) -> list[StagedFile]:
        """The stage's files below prefix whose whole path matches the statement's PATTERN."""
        options = text.parse_options(found["rest"])
        text.only(options, {"PATTERN", "PARALLEL"}, found[0].split()[0])
        pattern = options.get("PATTERN", "(?s:.*)")
        files = self._store.files(stage, prefix)
        try:
            return [file for file in files if re.fullmatch(pattern, file.path)]
        except re.error as error:
            raise compilation_error(f"invalid PATTERN '{pattern}': {error}") from error

    def _located(self, caller: Caller, found: re.Match[str]) -> tuple[Stage, str]:
        name, path = caller.reference(found["stage"])
        stage = self._store.get(name, caller.session)
        keys.check(path.rpartition("/")[0])  # the rest may be the beginning of a name
        return stage, path

    def _put(self, caller: Caller, found: re.Match[str]) -> Transfer:
        stage, path = self._located(caller, found)
        keys.check(path)
        if stage.url:
            raise unsupported(
                f"PUT into the external stage {stage.name} (Snowflake refuses it too)"
            )
        options = text.parse_options(found["rest"])
        text.only(options, PUT_OPTIONS, "PUT")
        return upload(
            stage, path, _local_path(found["local"]), options, self._signer, caller.by_url
        )

    def _get(self, caller: Caller, found: re.Match[str]) -> Transfer:
        stage, prefix = self._located(caller, found)
        options = text.parse_options(found["rest"])
        text.only(options, {"PARALLEL", "PATTERN"}, "GET")
        paths = [file.path for file in self._matching(stage, prefix, found)]
        return download(
            stage, paths, _local_path(found["local"]), options, self._signer, caller.by_url
        )

    def _infer(self, caller: Caller, found: re.Match[str]) -> Result:
        stage, prefix = self._located(caller, found)
        located = [
            (file.path, self._store.resolve(stage, file.path))
            for file in self._store.files(stage, prefix)
        ]
        result = infer_schema(located)
        columns = [column.strip().upper() for column in found["columns"].split(",")]
        return result if columns == ["*"] else Result(result.table.select(columns))


def require_directory(stage: Stage) -> None:
    """A stage without directory table is an SQL error."""
    if not stage.directory:
        raise compilation_error(
            f"Stage '{stage.name}' has no directory table (DIRECTORY = (ENABLE = TRUE)).", 391505
        )


def _stage_from(name: StageName, options: text.Options, owner_session: str) -> Stage:
    encryption = options.get("ENCRYPTION", {})
    # Snowflake's default for internal stages: the client encrypts, and signed URLs are unreadable.
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
    return f"{stage.url.rstrip('/')}/{path}" if stage.url else f"{stage.shown.lower()}/{path}"


def _local_path(written: str) -> str:
    plain = text.unquote_string(written)
    if not plain.startswith("file://"):
        raise compilation_error(f"'{plain}' is not a local file; it must begin with file://")
    return plain.removeprefix("file://")
