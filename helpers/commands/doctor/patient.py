"""What checks are given and what they give back."""

from dataclasses import dataclass
from typing import NamedTuple

from snowflake.connector import DictCursor, SnowflakeConnection

NOTEBOOK_01 = "Run notebook 01_set_up_snowflake."


@dataclass
class Patient:
    """What is examined; a check adds what later ones need."""

    backend: str = ""
    database: str = "CLOTHING"
    cluster: str = "auto"
    connection: SnowflakeConnection | None = None  # none before the log-in
    url: str = ""  # a signed one, of one image

    @property
    def session(self) -> SnowflakeConnection:
        """The connection of checks that come after the log-in. Raises LookupError without one."""
        if self.connection is None:
            raise LookupError("there is no log-in")
        return self.connection

    def show(self, sql: str) -> list[dict]:
        """The rows of a SHOW statement, by their columns' names."""
        with self.session.cursor(DictCursor) as cursor:
            return cursor.execute(sql).fetchall()


class Finding(NamedTuple):
    """One line of a check's outcome. state: "ok", "warning" or "failed"."""

    state: str
    seen: str
    remedy: str = ""
