"""Checks of this machine: Python, packages, disk, memory, GPU."""

import platform
import shutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers import config
from helpers.commands.doctor.patient import Patient, Seen

GB = 2**30
DISK_GB = (1, 5)  # with less free it fails, or gets a warning
MEMORY_GB = (1, 3)


def python(_: Patient) -> Iterator[Seen]:
    """Of a version that pyproject.toml takes."""
    wanted, found = _project()["requires-python"], platform.python_version()
    if found in SpecifierSet(wanted):
        yield Seen("ok", found)
    else:
        yield Seen(
            "failed",
            f"{found}, wanted is {wanted}",
            "Remove .venv, then make setup PYTHON=python3.12",
        )


def packages(_: Patient) -> Iterator[Seen]:
    """What pyproject.toml rules out fails; what is not of the lock, which is what was tested, gets a warning."""
    lock = [
        Requirement(line)
        for line in (config.PROJECT_ROOT / "requirements.txt").read_text().splitlines()
    ]
    locked = {
        line.name: line.specifier for line in lock if not line.marker or line.marker.evaluate()
    }
    wrong = [
        _judge(wanted, locked[wanted.name])
        for wanted in map(Requirement, _project()["dependencies"])
    ]
    yield from filter(None, wrong)
    if not any(wrong):
        yield Seen("ok", "as in requirements.txt")


def _judge(wanted: Requirement, locked: SpecifierSet) -> Seen | None:
    """What is wrong with the installed version of one package, if anything."""
    found = _installed(wanted.name)
    if not found or found not in wanted.specifier:
        return Seen(
            "failed",
            f"{wanted.name} {found or 'missing'}, wanted is {wanted.specifier}",
            "make setup",
        )
    return (
        None
        if found in locked
        else Seen("warning", f"{wanted.name} {found}, tested with {locked}", "make setup")
    )


def _project() -> dict:
    return tomllib.loads((config.PROJECT_ROOT / "pyproject.toml").read_text())["project"]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def disk(_: Patient) -> Iterator[Seen]:
    """Room for runs, models and caches."""
    yield _enough(
        shutil.disk_usage(config.home()).free,
        DISK_GB,
        "make clean, or set TUTORIAL_HOME to another disk.",
    )


def memory(_: Patient) -> Iterator[Seen]:
    """Room for training and for workers."""
    yield _enough(
        psutil.virtual_memory().available,
        MEMORY_GB,
        "Close programs, or use fewer workers (n_workers).",
    )


def _enough(free: int, limits_gb: tuple[int, int], remedy: str) -> Seen:
    seen = f"{free / GB:.1f} GB free"
    if free >= limits_gb[1] * GB:
        return Seen("ok", seen)
    return Seen("failed" if free < limits_gb[0] * GB else "warning", seen, remedy)


def gpu(_: Patient) -> Iterator[Seen]:
    """One that PyTorch can use, or none at all."""
    if torch.cuda.is_available():
        yield Seen("ok", torch.cuda.get_device_name())
    elif shutil.which("nvidia-smi"):
        remedy = "make setup without TORCH=cpu, or a newer driver."
        yield Seen("failed", f"there is one, but PyTorch {torch.__version__} cannot use it", remedy)
    else:
        yield Seen("ok", "none: everything runs on the CPU")
