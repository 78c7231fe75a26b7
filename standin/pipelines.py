"""The statements about streams and tasks: CREATE, DROP, SHOW, ALTER TASK, EXECUTE TASK.

A task runs when it is told to, and only where its WHEN holds: nobody's clock starts it here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool

from standin import text
from standin.errors import ALREADY_EXISTS, compilation_error, does_not_exist, unsupported
from standin.names import StageName, like_pattern, qualify, split_identifiers
from standin.results import UNKNOWN, Result, rows, status
from standin.stage_statements import EXISTS, NAME, NOT_EXISTS, REPLACE, Caller, require_directory
from standin.stages import StageStore
from standin.streams import Streams

TABLE = "_fs_global.standin.task"
COLUMNS = ("name", "database_name", "schema_name", "warehouse", "schedule")
COLUMNS += ("state", "condition", "definition")
TASK_OPTIONS = {"WAREHOUSE", "SCHEDULE", "COMMENT", "TARGET_COMPLETION_INTERVAL"}
FORMS = {
    kind: re.compile(form, re.I | re.S)
    for kind, form in {
        "create stream": rf"CREATE\s+{REPLACE}STREAM\s+{NOT_EXISTS}{NAME}\s+ON\s+STAGE\s+"
        r"(?P<stage>[\w.\"$]+)\s*$",
        "create task": rf"CREATE\s+{REPLACE}TASK\s+{NOT_EXISTS}{NAME}(?P<options>.*?)"
        r"(\bWHEN\b(?P<condition>.+?))?\bAS\b(?P<body>.+)$",
        "drop": rf"DROP\s+(?P<kind>STREAM|TASK)\s+{EXISTS}{NAME}\s*$",
        "alter": rf"ALTER\s+TASK\s+{EXISTS}{NAME}\s+(?P<action>RESUME|SUSPEND)\s*$",
        "execute": rf"EXECUTE\s+TASK\s+{NAME}\s*$",
        "show": rf"SHOW\s+(?P<kind>STREAMS|TASKS)(\s+LIKE\s+(?P<like>{text.STRING}))?"
        r"(\s+IN\s+(?P<place>DATABASE|SCHEMA)\s+(?P<within>[\w.\"$]+))?\s*$",
    }.items()
}
ANY_FORM = re.compile(
    r"(CREATE(\s+OR\s+REPLACE)?|ALTER|DROP|DESC|DESCRIBE|SHOW|EXECUTE)\s+(STREAM|TASK)S?\b", re.I
)
BLOCK = re.compile(r"(BEGIN|DECLARE|CALL|EXECUTE)\b", re.I)
HAS_DATA = re.compile(r"SYSTEM\$STREAM_HAS_DATA\s*\(\s*'([^']+)'\s*\)\s*$", re.I)

Run = Callable[[str], Awaitable[Any]]  # a statement, in the session that asks


@dataclass(frozen=True)
class Task:
    """One task. condition, definition: SQL."""

    name: StageName
    warehouse: str
    schedule: str
    state: str
    condition: str
    definition: str


class Pipelines:
    """Recognises and runs statements about streams and tasks."""

    def __init__(self, store: StageStore, streams: Streams) -> None:
        self._store = store
        self._streams = streams
        columns = ", ".join(f"{column} text" for column in COLUMNS)
        store.query(f"create table if not exists {TABLE} ({columns})")
        self._runs: dict[str, Callable[[Caller, re.Match[str]], Result]] = {
            "create stream": self._create_stream,
            "create task": self._create_task,
            "drop": self._drop,
            "alter": self._alter,
            "show": self._show,
        }

    async def answer(self, statement: str, caller: Caller, run: Run) -> Result | None:
        """What a statement answers; None if it is about neither streams nor tasks."""
        if not ANY_FORM.match(statement):
            return None
        for kind, form in FORMS.items():
            found = form.match(statement)
            if found and kind == "execute":
                return await self._execute(self._task(caller, found), run)
            if found:
                return await run_in_threadpool(self._runs[kind], caller, found)
        raise compilation_error(f"syntax error in '{statement[:80]}'.")

    def _create_stream(self, caller: Caller, found: re.Match[str]) -> Result:
        stage = self._store.get(caller.stage_name(found["stage"]), caller.session)
        require_directory(stage)
        name = caller.stage_name(found["name"])
        return self._streams.create(name, stage.name, bool(found["replace"]), bool(found["exists"]))

    def _create_task(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        options = text.parse_options(found["options"])
        text.only(options, TASK_OPTIONS, "CREATE TASK")
        condition = (found["condition"] or "").strip()
        if condition and not HAS_DATA.match(condition):
            raise unsupported(f"a task WHEN {condition}; use SYSTEM$STREAM_HAS_DATA('stream')")
        if BLOCK.match(found["body"].strip()):
            raise unsupported("a task of several statements; use one")
        present = self._find(name)
        if present and found["exists"]:
            return status(f"{name.name} already exists, statement succeeded.")
        if present and not found["replace"]:
            raise compilation_error(f"Object '{name}' already exists.", ALREADY_EXISTS, "42710")
        warehouse = str(options.get("WAREHOUSE", "")).upper()
        schedule = str(options.get("SCHEDULE", ""))
        self._keep(Task(name, warehouse, schedule, "suspended", condition, found["body"].strip()))
        return status(f"Task {name.name} successfully created.")

    def _drop(self, caller: Caller, found: re.Match[str]) -> Result:
        name = caller.stage_name(found["name"])
        if found["kind"].upper() == "STREAM":
            return self._streams.drop(name, bool(found["exists"]))
        if not found["exists"]:
            self._task(caller, found)
        self._forget(name)
        return status(f"{name.name} successfully dropped.")

    def _alter(self, caller: Caller, found: re.Match[str]) -> Result:
        if not found["exists"] or self._find(caller.stage_name(found["name"])):
            task = self._task(caller, found)
            state = "started" if found["action"].upper() == "RESUME" else "suspended"
            self._keep(replace(task, state=state))
        return status("Statement executed successfully.")

    def _show(self, caller: Caller, found: re.Match[str]) -> Result:
        """Those of the place that is named, or of the current schema."""
        if found["kind"].upper() == "TASKS":
            columns = COLUMNS
            listed = self._store.query(f"select {', '.join(COLUMNS)} from {TABLE}")
        else:
            columns = (*COLUMNS[:3], "table_name")
            listed = [(*_first_columns(*item), item[1]) for item in self._streams.names().items()]
        wanted = tuple(split_identifiers(found["within"] or "")) or (caller.database, caller.schema)
        pattern = like_pattern(text.unquote_string(found["like"] or "'%'"))
        shown = [
            row
            for row in listed
            if pattern.match(row[0]) and tuple(row[1 : 1 + len(wanted)]) == wanted
        ]
        return rows(columns, shown, UNKNOWN)

    async def _execute(self, task: Task, run: Run) -> Result:
        """One run, now; where its condition does not hold it does nothing."""
        condition = HAS_DATA.match(task.condition)
        stream = condition and qualify(split_identifiers(condition[1]), *task.name.parts[:2])
        if stream is None or await run_in_threadpool(self._streams.has_data, stream):
            await run(task.definition)
        return status(f"Task {task.name.name} is scheduled to run immediately.")

    def _find(self, name: StageName) -> Task | None:
        found = self._store.query(
            f"select * from {TABLE} where (name, database_name, schema_name) = (?, ?, ?)",
            [name.name, name.database, name.schema],
        )
        return Task(name, *found[0][3:]) if found else None

    def _task(self, caller: Caller, found: re.Match[str]) -> Task:
        name = caller.stage_name(found["name"])
        task = self._find(name)
        if task is None:
            raise does_not_exist("Task", str(name))
        return task

    def _keep(self, task: Task) -> None:
        self._forget(task.name)
        self._store.query(
            f"insert into {TABLE} values (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(task.name.name, task.name.database, task.name.schema),
                *(task.warehouse, task.schedule, task.state, task.condition, task.definition),
            ],
        )

    def forget_all(self, database: str, schema: str | None) -> None:
        """Leave no stream and no task of a dropped database, or schema."""
        for stream in self._streams.names():
            plain, *within = _first_columns(stream, "")
            if within[0] == database and schema in (None, within[1]):
                self._streams.drop(StageName(*within, plain), if_exists=True)
        place = "database_name = ? and schema_name = coalesce(?, schema_name)"
        self._store.query(f"delete from {TABLE} where {place}", [database, schema])

    def _forget(self, name: StageName) -> None:
        self._store.query(
            f"delete from {TABLE} where (name, database_name, schema_name) = (?, ?, ?)",
            [name.name, name.database, name.schema],
        )


def _first_columns(name: str, _: str) -> tuple[str, str, str]:
    database, schema, plain = name.split(".", 2)
    return (plain, database, schema)
