"""What is around a test: a reader's machine to run the tutorial on, and no silent skip in CI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scenery.drawing import draw_folder

import standin


def unavailable(reason: str) -> None:
    """Skip, or fail where CI is set: there a check that did not run must not look like one that passed."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def readers_machine(home: Path, train: int, test: int, **variables: str) -> Iterator[Path]:
    """`home`, with so many drawn garments of each class, as the place where everything is kept; the stand-in is apart.

    variables: what else the environment holds meanwhile.
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
