"""The files of sql/: what sqlglot and the stand-in tell of them, the README of the rest."""

import logging
import re
from pathlib import Path

import pytest
import sqlglot
from snowflake.connector.errors import ProgrammingError

from helpers.commands.doctor.account import PRIVILEGES
from helpers.config import PROJECT_ROOT
from helpers.snowflake.connection import execute

FILES = sorted((PROJECT_ROOT / "sql").glob("*.sql"))
KINDS = "resource monitor|storage integration|integration|warehouse|role|user|stream|task|stage"
REFUSAL = "Unsupported feature in the local stand-in"
# statements that sqlglot takes as mere text; it does so with mistyped ones too, so that others
# must not get there
MERE_TEXT = {
    "CREATE RESOURCE MONITOR",
    "CREATE ROLE",
    "CREATE USER",
    "CREATE STREAM",
    "CREATE TASK",
    "GRANT",
    "ALTER STAGE",
    "ALTER TASK",
    "DROP TASK",
    "DROP STREAM",
    "DROP USER",
    "DROP RESOURCE MONITOR",
}


def statements(path: Path) -> list[str]:
    """The statements of a file; in these files an empty line follows each."""
    text = re.sub(r"^--.*\n", "", path.read_text(), flags=re.M)
    parts = [part.strip() for part in re.split(r";\n\s*\n", text)]
    return [part.rstrip(";") for part in parts if part]


def kind(statement: str) -> str:
    """Its first words, such as CREATE TASK."""
    found = re.match(rf"(\w+)(?: (?:or replace )?({KINDS})\b)?", statement)
    assert found is not None, statement
    return " ".join(filter(None, found.groups())).upper().replace("GRANT ROLE", "GRANT")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_statement_parses_as_snowflake_sql(path, caplog):
    """What sqlglot cannot take apart must be of a kind that it does not know."""
    with caplog.at_level(logging.CRITICAL, "sqlglot"):
        for statement in statements(path):
            (tree,) = sqlglot.parse(statement, read="snowflake")
            if tree is None or isinstance(tree, sqlglot.exp.Command):
                assert kind(statement) in MERE_TEXT, statement


def test_readme_lists_exactly_what_the_stand_in_refuses(connection):
    refused = {}
    for path in FILES:
        if path.stem == "05_write_back":  # needs its temporary tables; test_writeback.py runs it
            continue
        for statement in statements(path):
            try:
                execute(connection, statement)
            except ProgrammingError as error:
                assert re.search(REFUSAL, str(error)), (path.name, statement, error)
                refused.setdefault(kind(statement), path.name)
    text = (PROJECT_ROOT / "README.md").read_text()
    said = r"that it refuses, and that have therefore not been run:\*\* ([A-Z ,]+)\."
    (listed,) = re.findall(said, text)
    assert sorted(refused) == sorted(listed.split(", "))
    assert {name[:2] for name in refused.values()} == {"00", "09"}


def test_role_gets_what_the_doctor_looks_for():
    """On warehouse, database and schema; what is in the schema the role owns, since it makes it."""
    text = (PROJECT_ROOT / "sql" / "00_role_and_warehouse.sql").read_text()
    grants = re.findall(r"^grant ([\w, ]+) on (\w+) [\w.]+ to role clothing_role;$", text, re.M)
    given = {kind.upper(): tuple(privileges.upper().split(", ")) for privileges, kind in grants}
    assert given == {kind: PRIVILEGES[kind] for kind in ("WAREHOUSE", "DATABASE", "SCHEMA")}


def test_what_the_administrator_makes_can_be_taken_away_again():
    create = rf"^create ({KINDS}|database) if not exists (?!identifier)(\w+)"
    drop = rf"^drop ({KINDS}|database) if exists (\w+)"
    made = set()
    dropped = set()
    for path in FILES:
        made |= set(re.findall(create, path.read_text(), re.M))
        dropped |= set(re.findall(drop, path.read_text(), re.M))
    made = {(kind.replace("storage ", ""), name) for kind, name in made}
    assert made == dropped


def test_warehouse_sleeps_and_has_a_limit():
    text = (PROJECT_ROOT / "sql" / "00_role_and_warehouse.sql").read_text()
    for line in (
        "warehouse_size = 'X-SMALL'",
        "auto_suspend = 60",
        "resource_monitor = clothing_monitor",
    ):
        assert f"    {line}" in text
    assert "on 100 percent do suspend_immediate" in text and "type = service" in text
