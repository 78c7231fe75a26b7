"""Statements as text: comments, bound values, options; for what the SQL parser does not know."""

from __future__ import annotations

import re
from typing import Any

from standin.errors import SqlError, compilation_error

COMMENT = r"--[^\n]*(?:\n|$)|//[^\n]*(?:\n|$)|/\*.*?\*/"
LEADING = re.compile(rf"(?:\s|{COMMENT})*", re.S)
STRING = r"'(?:[^'\\]|\\.|'')*'"
SKIPPED = rf"{STRING}|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/"
FILE_COMMAND = re.compile(r"(PUT|GET|LIST|LS|REMOVE|RM)\s", re.I)
# Paths hold // and /*, so that in file commands only a -- after a blank begins a comment.
PIECES_OF_FILE_COMMAND = re.compile(rf"({STRING})|((?<=\s)--[^\n]*|[\s;]+)|([^\s;'-]+|.)", re.S)
PIECES = re.compile(
    rf"({STRING}|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$)|({COMMENT}|[\s;]+)|([^'\"$/;\s-]+|.)", re.S
)
PLACEHOLDER = re.compile(rf"({SKIPPED})|(\?)|(?<![:\w]):(\d+)\b", re.S)
TOKEN = re.compile(rf"({STRING})|([=(),])|([^\s=(),']+)", re.S)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}

IDENTIFIER = re.compile(rf"({SKIPPED})|\bidentifier\s*\(\s*\$(\w+)\s*\)", re.I | re.S)

Options = dict[str, Any]


def strip_comments(sql: str) -> str:
    """The statement without comments, and without semicolons after it."""
    body = sql[LEADING.match(sql).end() :]  # type: ignore[union-attr]
    is_file_command = FILE_COMMAND.match(body)
    if is_file_command:
        body = re.sub(r"^(\w+\s+)/\*.*?\*/\s*", r"\1", body, flags=re.S)
    kept, end = [], 0
    for piece in (PIECES_OF_FILE_COMMAND if is_file_command else PIECES).finditer(body):
        is_comment = piece[2] and piece[2][0] in "-/"
        kept.append(" " if is_comment else piece[0])
        end = end if piece[2] else len(kept)
    return "".join(kept[:end])


def with_identifiers(statement: str, variables: dict[str, str]) -> str:
    """IDENTIFIER($name) replaced by the name that the session variable holds."""

    def written(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        if match[2].upper() not in variables:
            raise SqlError(f"Session variable '${match[2].upper()}' does not exist", 2211, "02000")
        return unquote_string(variables[match[2].upper()])

    return IDENTIFIER.sub(written, statement)


def literal(value: Any) -> str:
    """A value as SQL."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def unquote_string(text: str) -> str:
    """'it''s' with its quotes -> it's; anything else unchanged."""
    if not (text.startswith("'") and text.endswith("'") and len(text) > 1):
        return text
    inner = text[1:-1]
    return re.sub(
        r"''|\\(.)", lambda m: "'" if m[0] == "''" else ESCAPES.get(m[1], m[1]), inner, flags=re.S
    )


def bound_literal(binding: dict[str, Any]) -> str:
    """One bound value, as the connector sends it, as SQL."""
    kind, value = binding.get("type", "TEXT").upper(), binding.get("value")
    if value is None:
        return "null"
    if kind == "FIXED":
        return (
            str(value)
            if re.fullmatch(r"-?\d+(\.\d+)?", str(value))
            else f"{literal(value)}::number(38, 0)"
        )
    if kind == "REAL":
        return f"{literal(value)}::float"
    if kind == "BOOLEAN":
        return "true" if str(value).lower() in ("true", "1") else "false"
    if kind == "BINARY":
        return f"to_binary({literal(value)}, 'HEX')"
    if kind in ("DATE", "TIME") or kind.startswith("TIMESTAMP"):
        return _bound_moment(kind, str(value))
    return literal(value)


def _bound_moment(kind: str, value: str) -> str:
    import datetime as dt

    number, *_ = value.split()
    if kind == "DATE":
        day = dt.datetime.fromtimestamp(int(number) / 1000, dt.UTC).date()
        return f"'{day}'::date"
    microseconds = int(number) // 1000
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)
    if kind == "TIME":
        return f"'{moment.time()}'::time"
    if kind == "TIMESTAMP_NTZ":
        return f"'{moment.replace(tzinfo=None)}'::timestamp_ntz"
    return f"'{moment}'::timestamp_tz"


def inline_bindings(sql: str, bindings: dict[str, dict[str, Any]]) -> str:
    """The statement with each ? or :1 replaced by its value; those in strings and comments are left alone."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[1]:
            return match[0]
        count += 1
        key = match[3] or str(count)
        if key not in bindings:
            raise SqlError(f"Bind variable {match[0]} not set.", 2049, "42601")
        return bound_literal(bindings[key])

    return PLACEHOLDER.sub(replace, sql)


def without_values(sql: str) -> tuple[str, int]:
    """The statement with null for each ? or :1, and how many there are."""
    count = sum(1 for match in PLACEHOLDER.finditer(sql) if not match[1])
    return PLACEHOLDER.sub(lambda match: match[0] if match[1] else "null", sql), count


def parse_options(text: str) -> Options:
    """'A = 1 B = (C = 'x')' -> {'A': '1', 'B': {'C': 'x'}}."""
    tokens = [unquote_string(m[1]) if m[1] else m[0] for m in TOKEN.finditer(text)]
    kinds = ["string" if m[1] else m[0] if m[2] else "word" for m in TOKEN.finditer(text)]
    options, position = _options(tokens, kinds, 0)
    if position != len(tokens):
        raise compilation_error(f"syntax error: unexpected '{tokens[position]}'.")
    return options


def _options(tokens: list[str], kinds: list[str], at: int) -> tuple[Options, int]:
    options: Options = {}
    while at < len(tokens) and kinds[at] != ")":
        if kinds[at] == ",":
            at += 1
            continue
        if kinds[at] != "word" or at + 2 >= len(tokens) or kinds[at + 1] != "=":
            raise compilation_error(f"syntax error: unexpected '{tokens[at]}'.")
        key, at = tokens[at].upper(), at + 2
        if kinds[at] == "(":
            options[key], at = _options(tokens, kinds, at + 1)
            if at >= len(tokens):
                raise compilation_error(f"syntax error: {key} lacks a closing parenthesis.")
        else:
            options[key] = tokens[at]
        at += 1
    return options, at


def flag(options: Options, key: str, default: bool) -> bool:
    """An option that is TRUE or FALSE."""
    value = str(options.get(key, default)).upper()
    if value not in ("TRUE", "FALSE"):
        raise compilation_error(
            f"Invalid value '{value}' for option {key}; it must be TRUE or FALSE."
        )
    return value == "TRUE"


def only(options: Options, known: set[str], statement: str) -> None:
    """Refuse options that would otherwise be passed over in silence."""
    unknown = sorted(set(options) - known)
    if unknown:
        raise SqlError(
            f"Unsupported feature in the local stand-in: option {', '.join(unknown)} of {statement}.",
            2,
            "0A000",
        )
