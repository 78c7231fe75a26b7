"""The one error that a statement may end in; it reaches the client as an SQL error."""

from __future__ import annotations

DOES_NOT_EXIST = 2003
SYNTAX_ERROR = 1003
ALREADY_EXISTS = 2002
UNSUPPORTED = 2
UNKNOWN_FUNCTION = 2140
INTERNAL = 603


class SqlError(Exception):
    """An SQL error with Snowflake's error number and SQLSTATE.

    It stands in for the connector's classes of errors too: it takes whatever fakesnow gives them.
    """

    def __init__(
        self, msg: str | None = None, errno: int = 1003, sqlstate: str = "42000", **_: object
    ) -> None:
        super().__init__(msg)
        self.msg = msg or "unknown error"
        self.errno = errno
        self.sqlstate = sqlstate


def compilation_error(message: str, errno: int = SYNTAX_ERROR, sqlstate: str = "42000") -> SqlError:
    """An error in Snowflake's wording for what is wrong with the statement itself."""
    return SqlError(f"SQL compilation error:\n{message}", errno, sqlstate)


def does_not_exist(kind: str, name: str) -> SqlError:
    """A missing object, in Snowflake's wording."""
    return compilation_error(
        f"{kind} '{name}' does not exist or not authorized.", DOES_NOT_EXIST, "02000"
    )


def unsupported(what: str) -> SqlError:
    """A statement that Snowflake may know and the stand-in does not."""
    return SqlError(
        f"Unsupported feature in the local stand-in: {what}."
        " Run it in a Snowflake account, or leave it out.",
        UNSUPPORTED,
        "0A000",
    )
