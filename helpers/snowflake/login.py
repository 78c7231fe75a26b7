"""The log-in to a Snowflake account, checked before any network call.

Its settings come from connections.toml and the environment.
"""

import json
import os
import tomllib
import warnings
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

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
# setting that names a file -> what to add where it cannot be read
REMEDIES = {
    "private_key_file": "; its pass phrase is PRIVATE_KEY_PASSPHRASE",
    "token_file_path": "",
}


def account_parameters() -> dict[str, Any]:
    """Arguments for snowflake.connector.connect.

    Raises one ValueError for all that is missing or contradicts itself.
    """
    settings, problems = _settings()
    problems += _problems(settings) + _read_files(settings)
    if problems:
        raise ValueError(
            f"The log-in to Snowflake cannot work: {'; '.join(problems)}. "
            "Correct the environment or connections.toml (README, “Use your own account”), "
            'or use backend = "local".'
        )
    # without heartbeats a session ends after four hours of silence, such as training
    return (
        {
            "client_session_keep_alive": True,
        }
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


def _settings() -> tuple[dict[str, Any], list[str]]:
    """A connection of connections.toml filled up from the environment; where the two disagree."""
    place, settings, problems = _profile()
    for variable, argument in VARIABLES.items():
        value = os.environ.get(variable)
        if value and str(settings.setdefault(argument, value)) != value:
            problems.append(
                f"{variable} differs from {argument} in {place or 'another variable for it'}: "
                "unset one"
            )
    return settings, problems


def _profile() -> tuple[str, dict[str, Any], list[str]]:
    """Place and content of the named or default connection, empty if there is none; problems."""
    home = os.environ.get("SNOWFLAKE_HOME") or "~/.snowflake"
    path = Path(home, "connections.toml").expanduser()
    connections = tomllib.loads(path.read_text("utf-8-sig")) if path.exists() else {}
    name = os.environ.get(CONNECTION_NAME) or "default"
    if name in connections:
        _warn_if_open(path)
        settings = {ALIASES.get(key, key): value for key, value in connections[name].items()}
        return f"[{name}] of {path}", settings, []
    problem = (
        f"{CONNECTION_NAME} is {name}, but {path} has "
        f"{', '.join(connections) or 'nothing'}: correct or unset it"
    )
    return "", {}, [problem] if os.environ.get(CONNECTION_NAME) else []


def _authenticator(settings: dict[str, Any]) -> str:
    """The one that is named, or that the credentials imply."""
    implied = (meant for name, meant in IMPLIED.items() if settings.get(name))
    named = str(settings.get("authenticator") or next(implied, "SNOWFLAKE_JWT"))
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


def _read_files(settings: dict[str, Any]) -> list[str]:
    """Put the token's text in place of its file's path, and try to open the key; problems."""
    problems = []
    for name in filter(settings.get, REMEDIES):
        path = Path(settings[name]).expanduser()
        try:
            data = path.read_bytes()
            _warn_if_open(path)
            if name == "private_key_file":
                settings[name] = str(path)
                phrase = settings.get("private_key_file_pwd")
                load_pem_private_key(data, str(phrase).encode() if phrase else None)
            else:
                settings.setdefault("token", data.decode().strip())
                del settings[name]
        except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
            # without the number and the links in parentheses that may follow
            reason = getattr(error, "strerror", None) or str(error).partition("(")[0].strip(" .")
            problems.append(f"{_variable(name)} is {path}: {reason}{REMEDIES[name]}")
    return problems


def _warn_if_open(path: Path) -> None:
    """Warn of a secret that others on this machine can read."""
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        warnings.warn(
            f"{path} is open to others (mode {mode:o}). Close it: chmod 600 {path}", stacklevel=2
        )
