"""Checks of the account: which one, who we are there, and what we may do."""

import os
import re
import warnings
from collections.abc import Iterator

from helpers import config
from helpers.commands.doctor.patient import NOTEBOOK_01, Finding, Patient
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


def backend(patient: Patient) -> Iterator[Finding]:
    """Which, and why."""
    reasons = {
        "--backend": patient.backend,
        "TUTORIAL_BACKEND": os.environ.get("TUTORIAL_BACKEND"),
        "default": True,
    }
    why = next(name for name, is_so in reasons.items() if is_so)
    patient.backend = config.backend(patient.backend)
    yield Finding("ok", f"{patient.backend}, by {why}")


def log_in(patient: Patient) -> Iterator[Finding]:
    """With what it warns of, such as key files open to others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        patient.connection = connect(patient.backend)
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            yield Finding("warning", str(warning.message))
    user, account = execute(patient.session, "select current_user(), current_account()")[0]
    yield Finding("ok", f"{user} at {account}")


def role(patient: Patient) -> Iterator[Finding]:
    """One that is made for this work."""
    name = execute(patient.session, "select current_role()")[0][0]
    remedy = "Set SNOWFLAKE_ROLE to the role of sql/00_role_and_warehouse.sql."
    if not name:
        yield Finding("failed", "none", remedy)
    elif name in ADMINISTRATORS:
        yield Finding("warning", f"{name} may do more than the tutorial needs", remedy)
    else:
        yield Finding("ok", name)


def warehouse(patient: Patient) -> Iterator[Finding]:
    """One that we may use, and that does not cost more than it must."""
    if patient.backend == "local":
        yield Finding("ok", "the stand-in needs none")
        return
    name = execute(patient.session, "select current_warehouse()")[0][0]
    found = [row for row in patient.show("show warehouses") if row["name"] == name]
    if not found:
        yield Finding(
            "failed",
            f"{name or 'none'}: cannot be used",
            "Set SNOWFLAKE_WAREHOUSE to one you may use.",
        )
        return
    size = found[0]["size"]
    seconds = int(found[0]["auto_suspend"] or 0)  # 0 and NULL: it never suspends itself
    sleep = f"suspends itself after {seconds} s" if seconds else "never suspends itself"
    seen = f"{name}, {size}, {sleep}"
    if size == "X-Small" and 0 < seconds <= 60:
        yield Finding("ok", seen)
    else:
        remedy = "X-Small with AUTO_SUSPEND = 60 costs less (sql/00_role_and_warehouse.sql)."
        yield Finding("warning", seen, remedy)


def database(patient: Patient) -> Iterator[Finding]:
    """There already, or not yet."""
    if cleanup.database_exists(patient.session, patient.database):
        execute(patient.session, f"use schema {_schema(patient)}")
        yield Finding("ok", patient.database)
    else:
        yield Finding("warning", f"{patient.database} is not there yet", NOTEBOOK_01)


def grants(patient: Patient) -> Iterator[Finding]:
    """A line for each thing that the tutorial uses."""
    if patient.backend == "local":
        yield Finding("ok", "the stand-in has none")
        return
    role, warehouse = execute(patient.session, "select current_role(), current_warehouse()")[0]
    held = _held(patient, role)
    for kind, thing in _used(patient, warehouse):
        plain_kind = kind.removeprefix("EXTERNAL ")
        has = held.get(f"{plain_kind} {thing}".strip(), set())
        lacking = [
            privilege for privilege in PRIVILEGES[kind] if not has & {privilege, "OWNERSHIP"}
        ]
        on = f"on {plain_kind.lower()} {thing}".strip()
        if lacking:
            missing = ", ".join(lacking)
            remedy = f"As administrator: grant {missing.lower()} {on} to role {_written(role)};"
            yield Finding("failed", f"{role} lacks {missing} {on}", remedy)
        else:
            yield Finding("ok", f"{', '.join(PRIVILEGES[kind])} {on}")


def _held(patient: Patient, role: str) -> dict[str, set[str]]:
    """Privileges of the role, and of roles granted to it, by kind and name of the thing."""
    held = {}
    roles = [role, "PUBLIC"]
    for name in roles:  # grows on the way
        for row in patient.show(f"show grants to role {_written(name)}"):
            kind = row["granted_on"]
            thing = row["name"].replace('"', "")
            place = kind if kind == "ACCOUNT" else f"{kind} {thing}"
            held.setdefault(place, set()).add(row["privilege"])
            role_granted = kind == "ROLE" and row["privilege"] == "USAGE"
            if role_granted and thing not in roles:
                roles.append(thing)
    return held


def _written(name: str) -> str:
    """A role's name as SQL takes it: with quotes where it is no plain one in upper case.

    >>> _written("CLOTHING_ROLE"), _written("DATA-ENG")
    ('CLOTHING_ROLE', '"DATA-ENG"')
    """
    return name if re.fullmatch("[A-Z_][A-Z0-9_$]*", name) else f'"{name}"'


def _used(patient: Patient, warehouse: str) -> Iterator[tuple[str, str]]:
    """Kind and name of each thing that is there; without a database, what makes one."""
    if warehouse:  # without one, the check of that says so
        yield "WAREHOUSE", warehouse
    things = cleanup.listing(patient.session, patient.database)
    if not cleanup.database_exists(patient.session, patient.database):
        yield "ACCOUNT", ""
        return
    schema = _schema(patient)
    stages = patient.show(f"show stages in schema {schema}")
    external = {row["name"] for row in stages if row["url"]}
    yield "DATABASE", schema.partition(".")[0]
    yield "SCHEMA", schema
    for kind, name in things:
        is_external = kind == "stage" and name in external
        yield "EXTERNAL STAGE" if is_external else kind.upper(), f"{schema}.{name}"


def _schema(patient: Patient) -> str:
    """The schema of the tutorial's things, with its database."""
    return f"{config.identifier(patient.database)}.{SCHEMA}"
