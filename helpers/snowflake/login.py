"""The log-in to a Snowflake account, checked before any network call.

Its settings come from connections.toml and the environment.
"""

import json
import os
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from platformdirs import user_config_path

# variable -> the argument of snowflake.connector.connect that it sets: the Snowflake CLI's names
VARIABLES = {
    f"SNOWFLAKE_{argument.upper()}": argument
    for argument in (
        *("account", "user", "password", "passcode"),
        *("role", "warehouse", "database", "schema"),
        *("authenticator", "private_key_file", "private_key_file_pwd"),
        *("token", "token_file_path", "workload_identity_provider"),
        *("oauth_client_id", "oauth_client_secret", "oauth_token_request_url"),
        *("oauth_authorization_url", "oauth_redirect_uri", "oauth_scope"),
        *("host", "port", "protocol"),
    )
} | {
    "SNOWFLAKE_PRIVATE_KEY_PATH": "private_key_file",
    "PRIVATE_KEY_PASSPHRASE": "private_key_file_pwd",
}
ALIASES = {"private_key_path": "private_key_file", "private_key_passphrase": "private_key_file_pwd"}
# the environment carries it to other processes that log in for the same work
TAG = "TUTORIAL_QUERY_TAG"
CONNECTION_NAME = "SNOWFLAKE_DEFAULT_CONNECTION_NAME"
# credential -> the authenticator that it means where none is named; the first one that is set
IMPLIED = {
    "workload_identity_provider": "WORKLOAD_IDENTITY",  # may have a token
    "password": "SNOWFLAKE",
    "private_key_file": "SNOWFLAKE_JWT",
    "token": "PROGRAMMATIC_ACCESS_TOKEN",
    "token_file_path": "PROGRAMMATIC_ACCESS_TOKEN",
    "oauth_client_secret": "OAUTH_CLIENT_CREDENTIALS",
}
# authenticator -> what it needs beside the account; "a|b" is one of the two
NEEDED = {
    "SNOWFLAKE": ("user", "password"),
    "USERNAME_PASSWORD_MFA": ("user", "password"),
    "SNOWFLAKE_JWT": ("user", "private_key_file"),
    "PROGRAMMATIC_ACCESS_TOKEN": ("token|token_file_path",),
    "OAUTH": ("token|token_file_path",),
    "OAUTH_CLIENT_CREDENTIALS": (
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_token_request_url",
    ),
    "OAUTH_AUTHORIZATION_CODE": (),
    "WORKLOAD_IDENTITY": ("workload_identity_provider",),
    "EXTERNALBROWSER": ("user",),
}
# authenticator -> a credential that it takes too, and does without
WELCOME = {
    "WORKLOAD_IDENTITY": "token|token_file_path",
    "OAUTH_AUTHORIZATION_CODE": "oauth_client_secret",
}


def account_parameters() -> dict[str, Any]:
    """Arguments for snowflake.connector.connect.

    Raises one ValueError for all that is missing or contradicts itself.
    """
    problems: list[str] = []
    place, settings = _profile(problems)
    for variable, argument in VARIABLES.items():
        value = os.environ.get(variable)
        if value and str(settings.setdefault(argument, value)) != value:
            problems.append(f"{variable} differs from {argument} in {place}: unset one")
    problems += _problems(settings)
    _read_files(settings, problems)
    if problems:
        raise ValueError(
            f"The log-in to Snowflake cannot work: {'; '.join(problems)}. "
            "Correct the environment or connections.toml (README, “Use your own account”), "
            'or use backend = "local".'
        )
    # without heartbeats a session ends after four hours of silence, such as training
    return (
        {"client_session_keep_alive": True}
        | settings
        | {
            # times mean the same everywhere, and a URL that is signed anew is not an old answer
            "session_parameters": {"TIMEZONE": "UTC", "USE_CACHED_RESULT": False}
            | tagged()
            | settings.get("session_parameters", {}),
            "authenticator": _authenticator(settings),
            # said, or the connector warns that it will change: close() ends the session
            "enable_server_session_keep_alive_auto_detection": False,
        }
    )


def tagged(**more: str) -> dict[str, str]:
    """The parameter of a session or statement that tells the query history what it is for."""
    return {
        "QUERY_TAG": json.dumps(
            {"tutorial": "snowflake-images"} | json.loads(os.environ.get(TAG, "{}")) | more
        )
    }


def _profile(problems: list[str]) -> tuple[str, dict[str, Any]]:
    """Place and content of the named or default connection, empty if there is none.

    It is looked for where Snowflake's own tools look: first in connections.toml, as [name], then
    in config.toml, as [connections.name].
    """
    home = Path(os.environ.get("SNOWFLAKE_HOME") or "~/.snowflake").expanduser()
    folder = home if home.exists() else user_config_path("snowflake", appauthor=False)
    own, config = (
        (path.exists() and _toml(path, problems)) or {}
        for path in (folder / "connections.toml", folder / "config.toml")
    )
    name = os.environ.get(CONNECTION_NAME) or config.get("default_connection_name") or "default"
    path = folder / ("connections.toml" if own or not config else "config.toml")
    tables = own or config.get("connections")
    if isinstance(tables, dict) and isinstance(tables.get(name), dict):
        return f"[{name}] of {path}", {
            ALIASES.get(key, key): value for key, value in tables[name].items()
        }
    if name != "default" or (tables and not os.environ.get("SNOWFLAKE_ACCOUNT")):
        problems.append(
            f"{CONNECTION_NAME} is {name}, but {path} has "
            f"{', '.join(tables or ['nothing'])}, no section [{name}]: correct one of the two"
        )
    return "another variable for it", {}


def _toml(path: Path, problems: list[str]) -> dict[str, Any] | None:
    return _read(
        path,
        str(path),
        # with a line's end, or the last line would not be counted
        lambda data: tomllib.loads(data.decode("utf-8-sig") + "\n"),
        "; save it as UTF-8, a Windows path in 'single quotes'",
        problems,
    )


def _authenticator(settings: dict[str, Any]) -> str:
    """The one that is named, or that the credentials imply."""
    named = str(
        settings.get("authenticator")
        or next((meant for name, meant in IMPLIED.items() if settings.get(name)), "SNOWFLAKE_JWT")
    )
    # of an Okta address the case counts
    return named if named.lower().startswith("https://") else named.upper()


def _problems(settings: dict[str, Any]) -> list[str]:
    """What is missing, what does not go together, and what cannot be a value."""
    authenticator = _authenticator(settings)
    kind = "SNOWFLAKE" if authenticator.lower().startswith("https://") else authenticator
    if kind not in NEEDED:
        return [f"SNOWFLAKE_AUTHENTICATOR is {authenticator}: use one of {', '.join(NEEDED)}"]
    needed = ["account", *NEEDED[kind]]
    welcome = WELCOME.get(kind, "")
    if kind == "WORKLOAD_IDENTITY" and "OIDC" in str(settings.get(NEEDED[kind][0])).upper():
        needed.append(welcome)
    known = "|".join([*needed, welcome]).split("|")
    missing = [
        _variable(name)
        for name in needed
        if not any(settings.get(either) for either in name.split("|"))
    ]
    strange = [_variable(name) for name in IMPLIED if settings.get(name) and name not in known]
    found = {
        f"{', '.join(missing)} not set, which log-in by {authenticator} needs "
        "(see SNOWFLAKE_AUTHENTICATOR)": missing,
        f"{', '.join(strange)} does not go with log-in by {authenticator}: "
        "unset one of them": strange,
        "SNOWFLAKE_TOKEN and SNOWFLAKE_TOKEN_FILE_PATH are both set: unset one": all(
            map(settings.get, ("token", "token_file_path"))
        ),
        "SNOWFLAKE_ACCOUNT is an address: give only what stands before "
        ".snowflakecomputing.com": "snowflakecomputing" in str(settings.get("account", "")),
        f"SNOWFLAKE_PORT is {settings.get('port')}, not a number": not str(
            settings.get("port", 0)
        ).isdigit(),
    }
    return [problem for problem, is_so in found.items() if is_so]


def _variable(name: str) -> str:
    return " or ".join(f"SNOWFLAKE_{either.upper()}" for either in name.split("|"))


def _read_files(settings: dict[str, Any], problems: list[str]) -> None:
    """Put the token's text in place of its file's path, and try to open the key."""
    key = settings.get("private_key_file")
    if key:
        phrase = str(settings.get("private_key_file_pwd") or "").encode() or None
        settings["private_key_file"] = _read(
            key,
            f"SNOWFLAKE_PRIVATE_KEY_FILE is {key}",
            # which raises for a key that cannot be opened
            lambda data: load_pem_private_key(data, phrase) and str(Path(key).expanduser()),
            "; its pass phrase is PRIVATE_KEY_PASSPHRASE",
            problems,
        )
    token_file = settings.pop("token_file_path", "")
    if token_file:
        what = f"SNOWFLAKE_TOKEN_FILE_PATH is {token_file}"
        token = _read(token_file, what, lambda data: data.decode().strip(), "", problems)
        settings.setdefault("token", token)


def _read(
    name: Path | str, what: str, parse: Callable[[bytes], Any], remedy: str, problems: list[str]
) -> Any:
    """What a file of the log-in holds; None, and one problem more, where it cannot be used.

    Warns of one that others on this machine can read.
    """
    try:
        path = Path(name).expanduser()
        mode = path.stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o077:
            warnings.warn(
                f"{path} is open to others (mode {mode:o}). Close it: chmod 600 {path}",
                stacklevel=2,
            )
        return parse(path.read_bytes())
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        reason = f"not UTF-8 (at line {line})"
    except (OSError, RuntimeError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        reason = getattr(error, "strerror", None) or str(error).strip(" .")
    problems.append(f"{what}: {reason}{remedy}")
    return None
