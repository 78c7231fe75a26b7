"""Checks of this machine: Python, packages, disk, memory, GPU."""

import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from distributed.system import memory_limit
from jupyter_client.kernelspec import get_kernel_spec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers import config
from helpers.commands.doctor.patient import Finding, Patient

GB = 2**30
DISK_GB = (1, 5)  # with less free it fails, or gets a warning
MEMORY_GB = (1, 3)


def python(_: Patient) -> Iterator[Finding]:
    """Of a version that pyproject.toml takes."""
    wanted = _project()["requires-python"]
    found = platform.python_version()
    if found in SpecifierSet(wanted):
        yield Finding("ok", found)
    else:
        remedy = "Remove .venv, then make setup PYTHON=python3.12"
        yield Finding("failed", f"{found}, wanted is {wanted}", remedy)


def packages(_: Patient) -> Iterator[Finding]:
    """What pyproject.toml rules out fails; what is not of the lock gets a warning.

    The lock is what was tested.
    """
    locked = _locked()
    wanted = map(Requirement, _project()["dependencies"])
    wrong = filter(None, (_judge(each, locked[each.name]) for each in wanted))
    yield from list(wrong) or [Finding("ok", "as in requirements.txt")]


def _locked() -> dict[str, SpecifierSet]:
    """The version that requirements.txt pins for this machine, by package."""
    lines = (config.PROJECT_ROOT / "requirements.txt").read_text().splitlines()
    lock = [Requirement(line) for line in lines]
    return {pin.name: pin.specifier for pin in lock if not pin.marker or pin.marker.evaluate()}


def _judge(wanted: Requirement, locked: SpecifierSet) -> Finding | None:
    """What is wrong with the installed version of one package, if anything."""
    found = _installed(wanted.name)
    if not found or found not in wanted.specifier:
        seen = f"{wanted.name} {found or 'missing'}, wanted is {wanted.specifier}"
        return Finding("failed", seen, "make setup")
    if found not in locked:
        return Finding("warning", f"{wanted.name} {found}, tested with {locked}", "make setup")
    return None


def _project() -> dict:
    return tomllib.loads((config.PROJECT_ROOT / "pyproject.toml").read_text())["project"]


def _installed(package: str) -> str:
    """The version of the package; "" where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def disk(_: Patient) -> Iterator[Finding]:
    """Room for runs, models and caches."""
    free = shutil.disk_usage(config.home()).free
    yield _enough(free, DISK_GB, "make clean, or set TUTORIAL_HOME to another disk.")


def memory(_: Patient) -> Iterator[Finding]:
    """Room for training and for workers, also where a container has less than its host."""
    free = min(psutil.virtual_memory().available, memory_limit())
    yield _enough(free, MEMORY_GB, "Close programs, or use fewer workers (n_workers).")


def _enough(free: int, limits_gb: tuple[int, int], remedy: str) -> Finding:
    """free: bytes. limits_gb: with less it fails, or gets a warning."""
    fails_below, warns_below = limits_gb
    seen = f"{free / GB:.1f} GB free"
    if free < fails_below * GB:
        return Finding("failed", seen, remedy)
    if free < warns_below * GB:
        return Finding("warning", seen, remedy)
    return Finding("ok", seen)


def kernel(_: Patient) -> Iterator[Finding]:
    """The one that runs the notebooks is of this environment."""
    program = Path(get_kernel_spec("python3").argv[0])
    if program.parent in (Path(), Path(sys.executable).parent):  # a bare name: this very Python
        yield Finding("ok", f"python3 is {program.name} of this environment")
        return
    remedy = "Unset JUPYTER_PATH, or remove what jupyter kernelspec list shows for python3."
    yield Finding("failed", f"python3 is {program}, of another environment", remedy)


def gpu(_: Patient) -> Iterator[Finding]:
    """One that PyTorch can use, or none at all."""
    if torch.cuda.is_available():
        yield Finding("ok", torch.cuda.get_device_name())
    elif shutil.which("nvidia-smi"):
        seen = f"there is one, but PyTorch {torch.__version__} cannot use it"
        yield Finding("failed", seen, "make setup without TORCH=cpu, or a newer driver.")
    else:
        yield Finding("ok", "none: everything runs on the CPU")
