"""Names of stages and the paths in them, as they stand in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from standin.errors import SqlError, compilation_error

IDENTIFIER = r'"(?:[^"]|"")+"|[A-Za-z_%][\w$%]*'
# databases and schemas of DuckDB's own, and of fakesnow's
RESERVED = frozenset({"MEMORY", "SYSTEM", "TEMP", "MAIN", "PG_CATALOG", "_FS_GLOBAL"})
QUALIFIED = re.compile(rf"\s*((?:{IDENTIFIER})(?:\.(?:{IDENTIFIER}))*)")


@dataclass(frozen=True)
class StageName:
    """Where a stage lives; each part in the case in which Snowflake keeps it."""

    database: str
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"

    @property
    def url_part(self) -> str:
        """The three names as a path; anything but A-Z a-z 0-9 _ $ - is written =XX.

        Not %XX, which clients and servers on the way would undo.
        """
        return "/".join(re.sub(r"[^\w$-]", _as_hex, part, flags=re.ASCII) for part in self.parts)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Database, schema and name."""
        return (self.database, self.schema, self.name)

    @classmethod
    def from_url_parts(cls, *parts: str) -> StageName:
        """The inverse of url_part, from its three parts."""
        return cls(*(unquote(part.replace("=", "%")) for part in parts))


def _as_hex(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode())


def normalise(identifier: str) -> str:
    """Upper case, unless it is in double quotes."""
    if identifier.startswith('"') and identifier.endswith('"') and len(identifier) > 1:
        return identifier[1:-1].replace('""', '"')
    return identifier.upper()


def like_pattern(like: str) -> re.Pattern[str]:
    """SHOW … LIKE: % for any characters, _ for one, any case."""
    wild = {"%": ".*", "_": "."}
    translated = "".join(wild.get(character, re.escape(character)) for character in like)
    return re.compile(translated + r"\Z", re.I | re.S)


def split_identifiers(dotted: str) -> list[str]:
    """'a."b.c".d' -> ['A', 'b.c', 'D']."""
    return [normalise(part) for part in re.findall(IDENTIFIER, dotted)]


def qualify(parts: list[str], database: str | None, schema: str | None) -> StageName:
    """Complete a stage's name with the session's database and schema."""
    if len(parts) > 3 or not parts:
        raise compilation_error(f"invalid stage name '{'.'.join(parts)}'")
    given = [None] * (3 - len(parts)) + list(parts)
    full = (given[0] or database, given[1] or schema, given[2])
    if full[0] is None:
        raise _no_current("database", "USE DATABASE", 90105)
    if full[1] is None:
        raise _no_current("schema", "USE SCHEMA", 90106)
    return StageName(str(full[0]), str(full[1]), str(full[2]))


def _no_current(kind: str, remedy: str, errno: int) -> SqlError:
    return SqlError(
        f"This session does not have a current {kind}. Call '{remedy}', or use a qualified name.",
        errno,
        "22000",
    )


def parse_reference(
    reference: str, database: str | None, schema: str | None
) -> tuple[StageName, str]:
    """'@a.b."c"/sub/x.jpg' -> (StageName('A', 'B', 'c'), 'sub/x.jpg')."""
    text = reference.lstrip()  # a blank at the end is the path's own
    match = QUALIFIED.match(text, 1)
    if not text.startswith("@") or not match:
        raise compilation_error(
            f"syntax error: '{reference}' is not a stage (it must begin with @)."
        )
    path = text[match.end() :]
    if path and not path.startswith("/"):
        raise compilation_error(
            f"syntax error: unexpected '{path}' after the stage in '{reference}'."
        )
    return qualify(split_identifiers(match[1]), database, schema), path[1:]
