"""The commands that the project's pages show, and a copy of the project to run them in."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from helpers.config import PROJECT_ROOT

SHELLS = {"", "bash"}  # languages of code blocks that a reader types


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block, in order."""
    return re.findall(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[str]:
    """What the reader is asked to type, a block at a time."""
    return [text for language, text in code_blocks(page) if language in SHELLS]


def copy_project(folder: Path) -> Path:
    """A reader's own copy, with this environment as its .venv and nothing that a run left."""
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        source = PROJECT_ROOT / name
        if source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    for name in ("pyproject.toml", "requirements.txt"):  # or make would install the copy
        os.utime(folder / name, (0, 0))
    (folder / ".venv").symlink_to(PROJECT_ROOT / ".venv")
    return folder


def environment(copy: Path) -> dict[str, str]:
    """What makes `helpers` mean the copy's, and leaves all else at its default."""
    inherited = ("TUTORIAL_", "MAKE", "MFLAGS")  # make says more when another make has called it
    kept = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    return kept | {"PYTHONPATH": str(copy)}


def run(copy: Path, command: str) -> str:
    """What a block prints; its first failing command ends it and is an error."""
    shell = ["bash", "-euo", "pipefail", "-c", command]
    result = subprocess.run(shell, cwd=copy, env=environment(copy), capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout
