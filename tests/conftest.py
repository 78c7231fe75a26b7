"""What all tests share: a stand-in for Snowflake of their own, and a connection to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import standin
from samples import draw_samples

# A shell that starts pytest in the background lets it ignore Ctrl-C, and nohup a closed terminal,
# and with it all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Small networks and many processes: one compute thread each is faster, and steady on a busy
# machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same examples in every run, and no clock: these machines are shared.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    Connect = Callable[..., SnowflakeConnection]


@pytest.fixture(scope="session", autouse=True)
def _standin_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reaches the reader's own stand-in: the default folder is a temporary one."""
    root = tmp_path_factory.mktemp("standin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_SANDBOX", str(root))
        patch.setenv("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")
        yield root
        standin.stop(root)


@pytest.fixture(scope="session")
def running_standin(_standin_root: Path) -> standin.Server:
    """The running stand-in that most tests share."""
    return standin.ensure_running(_standin_root)


@pytest.fixture(scope="session")
def drawn_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample set as a reader gets it, drawn once for all tests. To be read only."""
    return draw_samples(tmp_path_factory.mktemp("drawn") / "images")


@pytest.fixture
def connect(running_standin: standin.Server) -> Iterator[Connect]:
    """Opens connections to the shared stand-in; they are closed after the test."""
    import snowflake.connector  # takes seconds, and not every test needs it

    opened: list[SnowflakeConnection] = []

    def connect(**more: object) -> SnowflakeConnection:
        parameters = standin.connection_parameters(running_standin.root)
        connection = snowflake.connector.connect(**parameters, **more)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def connection(connect: Connect) -> SnowflakeConnection:
    """A connection to a database that no other test has written to."""
    connection = connect()
    connection.cursor().execute("create or replace database TESTS")
    return connection
