"""Where the tutorial runs and where its files lie, from parameters and the environment."""

import os
import re
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("local", "snowflake")
# rows that one statement lists: no result is held open while the workers compute
PAGE = 50_000


def home() -> Path:
    """Folder of everything a run leaves behind: TUTORIAL_HOME, else the project's root."""
    return Path(os.environ.get("TUTORIAL_HOME") or PROJECT_ROOT).resolve()


def runs_folder() -> Path:
    """Folder of the run folders."""
    return home() / "runs"


def cache_folder() -> Path:
    """Folder of what can be made again: TUTORIAL_CACHE, else in `home`.

    A disk of the machine's own is best: the home of several machines is slow, and billed.
    """
    return Path(os.environ.get("TUTORIAL_CACHE") or home() / ".cache").resolve()


def trained_model() -> Path:
    """Where notebook 02 writes its model and notebook 03 looks first."""
    return home() / "model" / "model_trained.pt"


def hashes_file(digest: str) -> Path:
    """Where chapter 2 keeps the perceptual hashes of the training images with this data digest."""
    return trained_model().with_name(f"hashes-{digest[:16]}.csv")


def backend(name: str = "") -> str:
    """`name`, else TUTORIAL_BACKEND, else "local".

    Nobody reaches a billed account without asking for it. Raises ValueError for any other name.

    >>> backend("snowflake")
    'snowflake'
    """
    chosen = name or os.environ.get("TUTORIAL_BACKEND") or "local"
    if chosen not in BACKENDS:
        raise ValueError(
            f'backend is {chosen!r}. Use "local" (the stand-in) or "snowflake" (your account).'
        )
    return chosen


def identifier(name: str) -> str:
    """`name` in upper case, since an identifier cannot be bound like a value.

    Raises ValueError if Snowflake does not take it unquoted.

    >>> identifier("clothing_test")
    'CLOTHING_TEST'
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,254}", name):
        raise ValueError(
            f"{name!r} is not a plain Snowflake identifier. "
            "Use letters, digits, _ and $, and start with a letter."
        )
    return name.upper()
