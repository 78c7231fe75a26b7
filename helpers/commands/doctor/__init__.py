"""What may keep the tutorial from running, here or on your account, and what to do about it."""

import argparse
import json
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import standin
from helpers.commands.doctor import account, deep, images, machine
from helpers.commands.doctor.patient import Finding, Patient

Check = Callable[[Patient], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "Python": machine.python,
    "packages": machine.packages,
    "disk": machine.disk,
    "memory": machine.memory,
    "GPU": machine.gpu,
    "kernel": machine.kernel,
    "backend": account.backend,
    "log-in": account.log_in,
    "role": account.role,
    "warehouse": account.warehouse,
    "database": account.database,
    "grants": account.grants,
    "encryption": images.encryption,
    "directory": images.directory,
    "image": images.image,
    "clock": images.clock,
    "model": images.trained_model,
    "Dask": images.dask,
}
WITHOUT_ACCOUNT = (
    *("Python", "packages", "disk", "memory", "GPU", "kernel"),
    *("backend", "log-in", "Dask"),
)


def examine(patient: Patient, checks: dict[str, Check] | None = None) -> Iterator[dict]:
    """What each check found, a line at a time: its check, state, seen and remedy."""
    for name, check in (checks or CHECKS).items():
        for finding in _findings(name, check, patient):
            yield {"check": name} | finding._asdict()


def _findings(name: str, check: Check, patient: Patient) -> Iterator[Finding]:
    if patient.connection is None and name not in WITHOUT_ACCOUNT:
        yield Finding("warning", "not looked at, for want of a log-in")
        return
    try:
        yield from check(patient)
    except Exception as error:  # whatever it is, it is what this check has found
        yield Finding("failed", f"{type(error).__name__}: {error}")


def row(line: dict) -> str:
    """One line of the table; what to do stands under it.

    >>> disk = {"check": "disk", "state": "failed", "seen": "0.5 GB free", "remedy": "make clean"}
    >>> print(row(disk))
    failed   disk        0.5 GB free
                         make clean
    """
    text = f"{line['state']:8} {line['check']:11} {line['seen']}"
    margin = " " * 21
    remedy = textwrap.wrap(line["remedy"], 90, initial_indent=margin, subsequent_indent=margin)
    return "\n".join([text, *remedy])


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 nothing failed, 1 something did."""
    parser = argparse.ArgumentParser(prog="python -m helpers doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="a list of checks instead of the table")
    parser.add_argument(
        "--backend",
        default="",
        help='"local" or "snowflake"; default: TUTORIAL_BACKEND, else local',
    )
    parser.add_argument("--database", default="CLOTHING")
    parser.add_argument(
        "--cluster", default="auto", help='"local", "saturn" (which may cost) or an address'
    )
    parser.add_argument(
        "--deep", action="store_true", help="also try what only an account can tell: a minute"
    )
    options = parser.parse_args(arguments)
    checks = CHECKS | ({"deep": deep.deep} if options.deep else {})
    patient = Patient(options.backend, options.database, options.cluster)
    lines = []
    backend = options.backend or os.environ.get("TUTORIAL_BACKEND") or "local"
    with standin.in_use() if backend == "local" else nullcontext():
        for line in examine(patient, checks):
            lines.append(line)
            if not options.json:
                print(row(line), flush=True)
        if patient.connection:
            patient.connection.close()
    if options.json:
        print(json.dumps(lines, indent=2))
    return int(any(line["state"] == "failed" for line in lines))
