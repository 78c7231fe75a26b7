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
KINDS = (
    "resource monitor|storage integration|integrations?|warehouse|roles?|user|stream|task|stage"
    "|network policy|authentication policy"
)
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
    "ALTER ROLE",
    "SHOW ROLES",
    "SHOW INTEGRATIONS",
    # those of the optional lines
    "ALTER RESOURCE MONITOR",
    "ALTER USER",
    "CREATE AUTHENTICATION POLICY",
    "CREATE NETWORK POLICY",
    "DROP AUTHENTICATION POLICY",
    "DROP NETWORK POLICY",
    "REVOKE",
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


def optional_statements() -> list[str]:
    """The lines that an administrator may take the dashes away from, in their order."""
    text = (PROJECT_ROOT / "sql" / "00_role_and_warehouse.sql").read_text()
    optional = text[text.index("-- Optional,") :]
    return re.findall(r"^-- ([a-z].*);$", optional, re.M)


@pytest.mark.parametrize("path", [*FILES, "optional"], ids=lambda path: getattr(path, "stem", path))
def test_every_statement_parses_as_snowflake_sql(path, caplog):
    """What sqlglot cannot take apart must be of a kind that it does not know."""
    with caplog.at_level(logging.CRITICAL, "sqlglot"):
        for statement in optional_statements() if path == "optional" else statements(path):
            (tree,) = sqlglot.parse(statement, read="snowflake")
            if tree is None or isinstance(tree, sqlglot.exp.Command):
                assert kind(statement) in MERE_TEXT, statement


def test_readme_lists_exactly_what_the_stand_in_refuses(connection):
    refused = {}
    for path in FILES:
        # 05 needs its temporary tables, and test_writeback.py runs it; of 10 see the next test
        if path.stem in ("05_write_back", "10_metered_cost"):
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


# as Snowflake's documentation lists them (docs.snowflake.com, November 2026)
USAGE_VIEWS = {
    "query_attribution_history": "query_tag start_time end_time warehouse_name user_name "
    "credits_attributed_compute credits_used_query_acceleration",
    "warehouse_metering_history": "start_time end_time warehouse_name credits_used_compute "
    "credits_used_cloud_services credits_attributed_compute_queries",
    "table_storage_metrics": "table_catalog table_schema table_name table_dropped active_bytes "
    "time_travel_bytes failsafe_bytes",
    "stage_storage_usage_history": "usage_date average_stage_bytes",
}


def test_metered_cost_asks_for_columns_that_there_are():
    role, *queries = map(
        sqlglot.parse_one,
        statements(PROJECT_ROOT / "sql" / "10_metered_cost.sql"),
        ["snowflake"] * 9,
    )
    assert isinstance(role, sqlglot.exp.Use)
    asked = set()
    for query in queries:
        (table,) = query.find_all(sqlglot.exp.Table)
        assert (table.catalog, table.db) == ("snowflake", "account_usage")
        named = {select.alias for select in query.selects}
        columns = {column.name for column in query.find_all(sqlglot.exp.Column)}
        assert columns - named <= set(USAGE_VIEWS[table.name].split()), table.name
        asked.add(table.name)
    assert asked == USAGE_VIEWS.keys()


def test_role_gets_what_the_doctor_looks_for():
    """On warehouse, database and schema; what is in the schema the role owns, since it makes it."""
    text = (PROJECT_ROOT / "sql" / "00_role_and_warehouse.sql").read_text()
    grants = re.findall(r"^grant ([\w, ]+) on (\w+) [\w.]+ to role clothing_role;$", text, re.M)
    given = {kind.upper(): tuple(privileges.upper().split(", ")) for privileges, kind in grants}
    assert given == {kind: PRIVILEGES[kind] for kind in ("WAREHOUSE", "DATABASE", "SCHEMA")}


def test_what_the_administrator_makes_can_be_taken_away_again():
    create = rf"^create ({KINDS}|database) (?:if not exists )?(?!identifier|if )(\w+)"
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


def test_the_warehouse_is_the_one_whose_price_is_told():
    """Generation and query acceleration have other defaults in other accounts."""
    (warehouse,) = [s for s in administrators() if s.startswith("create warehouse")]
    properties = sqlglot.parse_one(warehouse, read="snowflake").find_all(sqlglot.exp.Property)
    said = {p.name.lower(): p.args["value"].sql().lower() for p in properties}
    assert said["generation"] == "'1'" and said["enable_query_acceleration"] == "false"
    # the lower of two limits counts, and the role cannot change the warehouse's
    assert "statement_timeout_in_seconds" not in said


def administrators() -> list[str]:
    """The statements of the files that an administrator runs to set up."""
    return [statement for path in FILES if path.stem[:2] == "00" for statement in statements(path)]


def test_the_administrator_takes_over_nothing_that_was_there():
    made = [statement for statement in administrators() if statement.startswith("create ")]
    assert len(made) == 6
    assert not [s for s in made if re.match(r"create (or replace|[\w ]+ if not exists)", s)]


def test_nothing_is_dropped_without_the_mark_of_what_was_made():
    """Each guard comes before the first DROP, and asks for the comment that a file 00 leaves."""
    path = PROJECT_ROOT / "sql" / "09_drop_role_and_warehouse.sql"
    *guards, _ = path.read_text().partition("\ndrop ")
    asked = re.findall(r"\"comment\" = ('[^']+')", guards[0])
    assert len(asked) == 2
    first, second = (f"comment = {mark}" for mark in asked)
    (last,) = [s for s in statements(FILES[0])[-1:] if first in s]
    assert last.startswith("alter role clothing_role set")  # after all that its file makes
    assert [s for s in statements(FILES[1]) if second in s and s.startswith("create storage")]
    assert guards[0].count("select 1 / ") == 2


def test_a_service_user_acts_in_one_role_only():
    (user,) = [s for s in administrators() if s.startswith("create user")]
    assert "default_secondary_roles = ()" in user and "default_role = clothing_role" in user
    assert "statement_timeout_in_seconds = 600" in user


def test_each_optional_line_has_the_one_that_undoes_it():
    lines = optional_statements()
    undone = {
        r"grant (.+) to (.+)": "revoke {} from {}",
        r"create (\w+ policy) ([\w.]+) .*": "drop {} {}",
        r"(alter resource monitor \w+ set notify_users =) \(\w+\)": "{} ()",
        r"(alter user \w+) set (\w+policy) = \w+": "{} unset {}",
        r"(alter user \w+) set (authentication policy) [\w.]+": "{} unset {}",
        r"(alter user \w+) set (rsa_public_key)_2 = '.+'": "{} unset {}",
    }
    first = [
        (line, undo.format(*found.groups()))
        for line in lines
        for form, undo in undone.items()
        if (found := re.fullmatch(form, line))
    ]
    assert len(first) == len(lines) / 2, lines
    for line, undo in first:
        assert lines.index(undo) > lines.index(line)


def test_what_loading_by_a_task_needs_is_granted():
    """The statements of sql/07, against the optional grants of sql/00."""
    needed = {f"create {kind}" for kind in ("stream", "task")} | {"execute task"}
    granted = {
        privilege
        for line in optional_statements()
        if line.startswith("grant ")
        for privilege in line.removeprefix("grant ").partition(" on ")[0].split(", ")
    }
    assert granted == needed
