"""What may keep the tutorial from running, here or on your account, and what to do about it."""

import argparse
import json
import textwrap
from collections.abc import Iterator

import standin
from helpers.commands.doctor import account, images, machine
from helpers.commands.doctor.patient import Patient, Seen

CHECKS = {
    "Python": machine.python,
    "packages": machine.packages,
    "disk": machine.disk,
    "memory": machine.memory,
    "GPU": machine.gpu,
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
WITHOUT_ACCOUNT = ("Python", "packages", "disk", "memory", "GPU", "backend", "log-in", "Dask")


def examine(patient: Patient, checks: dict | None = None) -> Iterator[dict]:
    """What each check saw, a line at a time, as plain values."""
    for name, check in (checks or CHECKS).items():
        try:
            if patient.connection is None and name not in WITHOUT_ACCOUNT:
                yield {"check": name} | Seen(
                    "warning", "not looked at, for want of a log-in"
                )._asdict()
                continue
            for seen in check(patient):
                yield {"check": name} | seen._asdict()
        except Exception as error:  # whatever it is, it is what this check has found
            yield {"check": name} | Seen("failed", f"{type(error).__name__}: {error}")._asdict()


def row(line: dict) -> str:
    """One line of the table; what to do stands under it."""
    text = f"{line['state']:8} {line['check']:11} {line['seen']}"
    return "\n".join(
        [
            text,
            *textwrap.wrap(line["remedy"], 90, initial_indent=" " * 21, subsequent_indent=" " * 21),
        ]
    )


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
    options = parser.parse_args(arguments)
    patient = Patient(options.backend, options.database, options.cluster)
    started_here, lines = standin.status() is None, []
    try:
        for line in examine(patient):
            lines.append(line)
            if not options.json:
                print(row(line), flush=True)
    finally:
        if patient.connection:
            patient.connection.close()
        if started_here:
            standin.stop()
    if options.json:
        print(json.dumps(lines, indent=2))
    return int(any(line["state"] == "failed" for line in lines))
