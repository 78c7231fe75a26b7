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
    connection: SnowflakeConnection | None = None
    url: str = ""  # a signed one, of one image

    def show(self, sql: str) -> list[dict]:
        """The rows of a SHOW statement, by their columns' names."""
        with self.connection.cursor(DictCursor) as cursor:
            return cursor.execute(sql).fetchall()


class Seen(NamedTuple):
    """One line of a check's outcome. state: "ok", "warning" or "failed"."""

    state: str
    seen: str
    remedy: str = ""
