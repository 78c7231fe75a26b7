"""What fakesnow needs to run here: a connector's names to import, and a catalogue kept on disk.

fakesnow imports a Snowflake connector (of major version 4) for its classes of errors; from
version 5 on, some of its modules are gone and the import fails. The server never connects to
anything, so a handful of names is enough, and spares it the connector's and pandas' start-up time.

The order matters: the names first, then the import of anything that imports fakesnow
(standin.build does), then open_catalogue, then the functions that views call, then
attach_databases.
"""

from __future__ import annotations

import glob
import importlib
import sys
import types
from collections import OrderedDict
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from standin.errors import SqlError

if TYPE_CHECKING:
    from fakesnow.instance import FakeSnow

KEPT_RESULTS = 20
GLOBAL_DATABASE = "_fs_global"


class WithoutPandas(MetaPathFinder):
    """Says that pandas is not installed: DuckDB would import it with the first bound value.

    That takes seconds, and nothing here uses it.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of the stand-in's process", name=fullname)


def install_connector_names() -> None:
    """Put modules named snowflake.connector… in place; for the server's process only."""
    # fakesnow raises these; as SqlError they reach the client as what they are.
    error_names = ("ProgrammingError", "OperationalError", "DatabaseError", "NotSupportedError")
    cursor_names = ("ResultMetadata", "DictCursor", "SnowflakeCursor")
    members: dict[str, dict[str, object]] = {
        "": {"paramstyle": "pyformat", "NotSupportedError": SqlError},
        ".errors": dict.fromkeys(error_names, SqlError),
        ".cursor": {name: type(name, (), {}) for name in cursor_names},
        ".result_batch": {"ResultBatch": type("ResultBatch", (), {})},
        ".converter": {"SnowflakeConverter": type("SnowflakeConverter", (), {})},
        ".file_util": {"SnowflakeFileUtil": type("SnowflakeFileUtil", (), {})},
        ".pandas_tools": {},
    }
    sys.meta_path.insert(0, WithoutPandas())
    connector = types.ModuleType("snowflake.connector")
    # sys.modules serves `import snowflake.connector`; the attribute serves every use of it.
    vars(importlib.import_module("snowflake"))["connector"] = connector
    for suffix, names in members.items():
        module = types.ModuleType("snowflake.connector" + suffix) if suffix else connector
        vars(module).update(names)
        sys.modules[module.__name__] = module
        if suffix:
            setattr(connector, suffix[1:], module)


class LatestResults(OrderedDict[str, tuple[Any, ...]]):
    """The newest results only: fakesnow would keep each for ever."""

    def __setitem__(self, key: str, value: tuple[Any, ...]) -> None:
        super().__setitem__(key, value)
        while len(self) > KEPT_RESULTS:
            self.popitem(last=False)


def open_catalogue(databases: Path) -> FakeSnow:
    """fakesnow with its catalogue in a file; attach_databases() comes next."""
    import duckdb
    import fakesnow.instance as instance
    from fakesnow import info_schema
    from fakesnow.transforms import show

    # Without its constructor, which attaches a catalogue in memory: stages would end with the
    # process. What the constructor sets is set here, so fakesnow is pinned to one version.
    fake = instance.FakeSnow.__new__(instance.FakeSnow)
    # Snowflake takes a log-in to a missing database, and makes none.
    fake.create_database_on_connect = False
    fake.create_schema_on_connect = False
    fake.db_path = databases
    fake.nop_regexes = None
    fake.results_cache = LatestResults()
    # sqlglot writes lambdas with an arrow, which DuckDB 2 takes only when asked to.
    fake.duck_conn = duckdb.connect(":memory:", config={"lambda_syntax": "ENABLE_SINGLE_ARROW"})
    fake.duck_conn.execute(
        f"attach '{quoted(databases / GLOBAL_DATABASE)}.duckdb' as {GLOBAL_DATABASE}"
    )
    fake.duck_conn.execute("begin")  # a start that is killed leaves no half catalogue
    fake.duck_conn.execute(info_schema.fs_global_creation_sql())
    fake.duck_conn.execute(show.fs_global_creation_sql())
    fake.duck_conn.execute("commit")
    fake.duck_conn.execute("set global TimeZone = 'UTC'")
    return fake


def attach_databases(fake: FakeSnow, databases: Path) -> None:
    """Attach what earlier servers left; functions that its views call must be registered before."""
    for file in sorted(databases.glob("*.db")):
        fake.duck_conn.execute(f"attach '{quoted(file)}' as \"{file.stem}\"")


def shut_out(fake: FakeSnow, root: Path, folders: tuple[str, ...]) -> None:
    """From now on DuckDB reaches these folders of root and no other file, whatever SQL asks."""
    # it compares the text that it is given, in which a name with brackets is escaped as a glob
    places = {
        text for name in folders for text in (str(root / name), glob.escape(str(root / name)))
    }
    within = ", ".join(f"'{quoted(place)}'" for place in sorted(places))
    fake.duck_conn.execute(f"set allowed_directories = [{within}]")
    fake.duck_conn.execute("set enable_external_access = false")
    fake.duck_conn.execute("set python_enable_replacements = false")
    fake.duck_conn.execute("set lock_configuration = true")


def quoted(path: Path | str) -> str:
    """A path for use between single quotes in SQL."""
    return str(path).replace("'", "''")
