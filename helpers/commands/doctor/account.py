"""Checks of the account: which one, who we are there, and what we may do."""

import os
import warnings
from collections.abc import Iterator

from helpers import config
from helpers.commands.doctor.patient import NOTEBOOK_01, Patient, Seen
from helpers.snowflake import cleanup
from helpers.snowflake.connection import SCHEMA, connect, execute

ADMINISTRATORS = ("ACCOUNTADMIN", "SECURITYADMIN", "SYSADMIN", "ORGADMIN")
# what is needed on each kind of thing; OWNERSHIP includes it
PRIVILEGES = {
    "ACCOUNT": ("CREATE DATABASE",),
    "WAREHOUSE": ("USAGE",),
    "DATABASE": ("USAGE",),
    "SCHEMA": ("USAGE", "CREATE STAGE", "CREATE TABLE", "CREATE VIEW"),
    "STAGE": ("READ", "WRITE"),
    "EXTERNAL STAGE": ("USAGE",),
    "TABLE": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "VIEW": ("SELECT",),
}


def backend(patient: Patient) -> Iterator[Seen]:
    """Which, and why."""
    why = (
        "--backend"
        if patient.backend
        else "TUTORIAL_BACKEND"
        if os.environ.get("TUTORIAL_BACKEND")
        else "default"
    )
    patient.backend = config.backend(patient.backend)
    yield Seen("ok", f"{patient.backend}, by {why}")


def log_in(patient: Patient) -> Iterator[Seen]:
    """With what it warns of, such as key files open to others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        patient.connection = connect(patient.backend)
    yield from (
        Seen("warning", str(w.message)) for w in caught if issubclass(w.category, UserWarning)
    )
    user, account = execute(patient.connection, "select current_user(), current_account()")[0]
    yield Seen("ok", f"{user} at {account}")


def role(patient: Patient) -> Iterator[Seen]:
    """One that is made for this work."""
    name = execute(patient.connection, "select current_role()")[0][0]
    if not name:
        yield Seen(
            "failed", "none", "Set SNOWFLAKE_ROLE to the role of sql/00_role_and_warehouse.sql."
        )
    elif name in ADMINISTRATORS:
        remedy = "Set SNOWFLAKE_ROLE to the role of sql/00_role_and_warehouse.sql."
        yield Seen("warning", f"{name} may do more than the tutorial needs", remedy)
    else:
        yield Seen("ok", name)


def warehouse(patient: Patient) -> Iterator[Seen]:
    """One that we may use, and that does not cost more than it must."""
    if patient.backend == "local":
        return (yield Seen("ok", "the stand-in needs none"))
    name = execute(patient.connection, "select current_warehouse()")[0][0]
    found = [row for row in patient.show("show warehouses") if row["name"] == name]
    if not found:
        return (
            yield Seen(
                "failed",
                f"{name or 'none'}: cannot be used",
                "Set SNOWFLAKE_WAREHOUSE to one you may use.",
            )
        )
    size, seconds = found[0]["size"], int(found[0]["auto_suspend"] or 0)
    seen = f"{name}, {size}, " + (
        f"suspends itself after {seconds} s" if seconds else "never suspends itself"
    )
    if size == "X-Small" and 0 < seconds <= 60:
        yield Seen("ok", seen)
    else:
        yield Seen(
            "warning",
            seen,
            "X-Small with AUTO_SUSPEND = 60 costs less (sql/00_role_and_warehouse.sql).",
        )


def database(patient: Patient) -> Iterator[Seen]:
    """There already, or not yet."""
    if cleanup.database_exists(patient.connection, patient.database):
        execute(patient.connection, f"use schema {_schema(patient)}")
        yield Seen("ok", patient.database)
    else:
        yield Seen("warning", f"{patient.database} is not there yet", NOTEBOOK_01)


def grants(patient: Patient) -> Iterator[Seen]:
    """A line for each thing that the tutorial uses."""
    if patient.backend == "local":
        return (yield Seen("ok", "the stand-in has none"))
    role, warehouse = execute(patient.connection, "select current_role(), current_warehouse()")[0]
    held = _held(patient, role)
    for kind, thing in _used(patient, warehouse):
        has = held.get(f"{kind.removeprefix('EXTERNAL ')} {thing}".strip(), set())
        lacking = [
            privilege for privilege in PRIVILEGES[kind] if not has & {privilege, "OWNERSHIP"}
        ]
        on = f"on {kind.lower().removeprefix('external ')} {thing}".strip()
        if lacking:
            missing = ", ".join(lacking)
            remedy = f"As administrator: grant {missing.lower()} {on} to role {role};"
            yield Seen("failed", f"{role} lacks {missing} {on}", remedy)
        else:
            yield Seen("ok", f"{', '.join(PRIVILEGES[kind])} {on}")


def _held(patient: Patient, role: str) -> dict[str, set[str]]:
    """Privileges of the role by kind and name of the thing, also those that come with roles granted to it."""
    held, roles = {}, [role, "PUBLIC"]
    for name in roles:  # grows on the way
        for row in patient.show(f"show grants to role {config.identifier(name)}"):
            kind, thing, privilege = (
                row["granted_on"],
                row["name"].replace('"', ""),
                row["privilege"],
            )
            held.setdefault(kind if kind == "ACCOUNT" else f"{kind} {thing}", set()).add(privilege)
            if (kind, privilege) == ("ROLE", "USAGE") and thing not in roles:
                roles.append(thing)
    return held


def _used(patient: Patient, warehouse: str) -> Iterator[tuple[str, str]]:
    """Kind and name of each thing that is there; without a database, what makes one."""
    yield "WAREHOUSE", warehouse
    things = cleanup.listing(patient.connection, patient.database)
    if not cleanup.database_exists(patient.connection, patient.database):
        return (yield "ACCOUNT", "")
    schema = _schema(patient)
    external = {
        row["name"] for row in patient.show(f"show stages in schema {schema}") if row["url"]
    }
    yield "DATABASE", schema.partition(".")[0]
    yield "SCHEMA", schema
    for kind, name in things:
        yield (
            "EXTERNAL STAGE" if kind == "stage" and name in external else kind.upper(),
            f"{schema}.{name}",
        )


def _schema(patient: Patient) -> str:
    return f"{config.identifier(patient.database)}.{SCHEMA}"
