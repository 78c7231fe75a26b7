"""Statements as text: comments, bound values, options; for what the SQL parser does not know."""

from __future__ import annotations

import re
from typing import Any

from standin.errors import UNSUPPORTED, SqlError, compilation_error, unsupported

COMMENT = r"--[^\n]*(?:\n|$)|//[^\n]*(?:\n|$)|/\*.*?\*/"
LEADING = re.compile(rf"(?:\s|{COMMENT})*", re.S)
STRING = r"'(?:[^'\\]|\\.|'')*'"
SKIPPED = rf"{STRING}|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/"
FILE_COMMAND = re.compile(r"(PUT|GET|LIST|LS|REMOVE|RM)\s", re.I)
# Paths hold // and /*, so that in file commands only a -- after a blank begins a comment.
PIECES_OF_FILE_COMMAND = re.compile(rf"({STRING})|((?<=\s)--[^\n]*|[\s;]+)|([^\s;'-]+|.)", re.S)
# In both: kept as it is | a comment or a blank | anything else.
PIECES = re.compile(
    rf"({STRING}|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$)|({COMMENT}|[\s;]+)|([^'\"$/;\s-]+|.)", re.S
)
PLACEHOLDER = re.compile(rf"({SKIPPED})|(\?)|(?<![:\w]):(\d+)\b", re.S)
VALUES_ROW = re.compile(r"(.*\bVALUES\s*)(\(.*\))\s*$", re.I | re.S)
TOKEN = re.compile(rf"({STRING})|([=(),])|([^\s=(),']+)", re.S)
ESCAPED = re.compile(r"''|\\(x[0-9a-f]{2}|u[0-9a-f]{4}|.)", re.I | re.S)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}

IDENTIFIER = re.compile(rf"({SKIPPED})|\bidentifier\s*\(\s*\$(\w+)\s*\)", re.I | re.S)

Options = dict[str, Any]


def strip_comments(sql: str) -> str:
    """The statement without comments, and without semicolons after it."""
    body = LEADING.sub("", sql, count=1)
    is_file_command = FILE_COMMAND.match(body)
    if is_file_command:  # the one place where it may hold a comment of this kind
        body = re.sub(r"^(\w+\s+)/\*.*?\*/\s*", r"\1", body, flags=re.S)
    pieces = PIECES_OF_FILE_COMMAND if is_file_command else PIECES
    kept = []
    end = 0  # of the last piece that says something
    for piece in pieces.finditer(body):
        is_comment = piece[2] and piece[2][0] in "-/"
        kept.append(" " if is_comment else piece[0])
        if not piece[2]:
            end = len(kept)
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

    def meant(match: re.Match[str]) -> str:
        if match[0] == "''":
            return "'"
        code = match[1][1:]
        return chr(int(code, 16)) if code else ESCAPES.get(match[1], match[1])

    return ESCAPED.sub(meant, text[1:-1])


def bound_literal(binding: dict[str, Any]) -> str:
    """One bound value, as the connector sends it, as SQL."""
    kind = binding.get("type", "TEXT").upper()
    value = binding.get("value")
    if value is None:
        return "null"
    if kind == "FIXED":
        is_number = re.fullmatch(r"-?\d+(\.\d+)?", str(value))
        return str(value) if is_number else f"{literal(value)}::number(38, 0)"
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

    number, *_ = value.split()  # an offset may follow; the number is of UTC in any case
    if kind == "DATE":
        day = dt.datetime.fromtimestamp(int(number) / 1000, dt.UTC).date()  # milliseconds
        return f"'{day}'::date"
    microseconds = int(number) // 1000  # from nanoseconds; DuckDB keeps no finer ones
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)
    if kind == "TIME":
        return f"'{moment.time()}'::time"
    if kind == "TIMESTAMP_NTZ":
        return f"'{moment.replace(tzinfo=None)}'::timestamp_ntz"
    return f"'{moment}'::timestamp_tz"


def inline_bindings(sql: str, bindings: dict[str, dict[str, Any]]) -> str:
    """The statement with each ? or :1 replaced by its value.

    Those in strings and comments are left alone.
    """
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


def with_values(statement: str, bindings: dict[str, Any]) -> str:
    """Bound values in place; where each holds a list, one row of VALUES for each of its items."""
    if not any(isinstance(binding.get("value"), list) for binding in bindings.values()):
        return inline_bindings(statement, bindings)
    found = VALUES_ROW.match(statement)
    if not found or PLACEHOLDER.search(found[1]):
        raise unsupported("many rows of bound values in a statement other than INSERT … VALUES (…)")
    n_rows = len(next(iter(bindings.values()))["value"])
    written = []
    for i in range(n_rows):
        row = {key: {**listed, "value": listed["value"][i]} for key, listed in bindings.items()}
        written.append(inline_bindings(found[2], row))
    return found[1] + ", ".join(written)


def without_values(sql: str) -> tuple[str, int]:
    """The statement with null for each ? or :1, and how many there are."""
    count = sum(1 for match in PLACEHOLDER.finditer(sql) if not match[1])
    return PLACEHOLDER.sub(lambda match: match[0] if match[1] else "null", sql), count


def parse_options(text: str) -> Options:
    """'A = 1 B = (C = 'x')' -> {'A': '1', 'B': {'C': 'x'}}."""
    matches = list(TOKEN.finditer(text))
    tokens = [unquote_string(match[0]) for match in matches]
    # Of each token: "string", the sign itself, or "word".
    kinds = ["string" if match[1] else (match[2] or "word") for match in matches]
    options, position = _options(tokens, kinds, 0)
    if position != len(tokens):
        raise compilation_error(f"syntax error: unexpected '{tokens[position]}'.")
    return options


def _options(tokens: list[str], kinds: list[str], at: int) -> tuple[Options, int]:
    """The options from position at to the end or the closing parenthesis, and where that is."""
    options: Options = {}
    while at < len(tokens) and kinds[at] != ")":
        if kinds[at] == ",":
            at += 1
            continue
        if kinds[at] != "word" or at + 2 >= len(tokens) or kinds[at + 1] != "=":
            raise compilation_error(f"syntax error: unexpected '{tokens[at]}'.")
        key = tokens[at].upper()
        at = at + 2
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
            f"Unsupported feature in the local stand-in: option {', '.join(unknown)}"
            f" of {statement}.",
            UNSUPPORTED,
            "0A000",
        )
