"""What is around a test: a reader's machine to run the tutorial on, and no silent skip in CI."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from scenery.drawing import draw_folder

import standin


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where CI is set: there what did not run must not seem to have passed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def readers_machine(
    home: Path, train: int, test: int, **variables: str
) -> Generator[Path, None, None]:
    """`home` as the place where everything is kept, with a stand-in of its own.

    train, test: drawn garments of each class. variables: what else the environment holds meanwhile.
    """
    places = {
        "TUTORIAL_HOME": str(home),
        "TUTORIAL_SANDBOX": str(home / ".sandbox"),
        "TUTORIAL_BACKEND": "local",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (places | variables).items():
            patch.setenv(name, value)
        draw_folder(home / "garments" / "train", n=train)
        draw_folder(home / "garments" / "test", n=test)
        try:
            yield home
        finally:
            standin.stop(home / ".sandbox")
