"""The log-in to a Snowflake account: connections.toml and the environment, checked before any network call."""

import os
import tomllib
import warnings
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

# arguments of snowflake.connector.connect that may stand in the environment, under the Snowflake CLI's names
ARGUMENTS = (
    "account", "user", "password", "passcode", "role", "warehouse", "database", "schema", "authenticator",
    "private_key_file", "private_key_file_pwd", "token", "token_file_path", "workload_identity_provider",
    "oauth_client_id", "oauth_client_secret", "oauth_token_request_url", "oauth_authorization_url",
    "oauth_redirect_uri", "oauth_scope", "host", "port", "protocol",
)  # fmt: skip
VARIABLES = {f"SNOWFLAKE_{argument.upper()}": argument for argument in ARGUMENTS}
VARIABLES |= {
    "SNOWFLAKE_PRIVATE_KEY_PATH": "private_key_file",
    "PRIVATE_KEY_PASSPHRASE": "private_key_file_pwd",
}
ALIASES = {"private_key_path": "private_key_file", "private_key_passphrase": "private_key_file_pwd"}
CONNECTION_NAME = "SNOWFLAKE_DEFAULT_CONNECTION_NAME"
# credential -> the authenticator that it means where none is named
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
WELCOME = {
    "WORKLOAD_IDENTITY": "token|token_file_path",
    "OAUTH_AUTHORIZATION_CODE": "oauth_client_secret",
}


def account_parameters() -> dict:
    """Arguments for snowflake.connector.connect. Raises one ValueError for all that is missing or contradicts."""
    settings, problems = _settings()
    problems += _problems(settings) + _read_files(settings)
    if problems:
        raise ValueError(
            f"The log-in to Snowflake cannot work: {'; '.join(problems)}. Correct the environment or "
            'connections.toml (README, “Use your own account”), or use backend = "local".'
        )
    settings["authenticator"] = _authenticator(settings)
    # without heartbeats a session ends after four hours of silence, such as training
    return (
        {"client_session_keep_alive": True}
        | settings
        | {"enable_server_session_keep_alive_auto_detection": False}
    )


def _settings() -> tuple[dict, list[str]]:
    """A connection of connections.toml filled up from the environment, and where the two disagree."""
    place, settings, problems = _profile()
    for variable, argument in VARIABLES.items():
        value = os.environ.get(variable)
        if value and str(settings.setdefault(argument, value)) != value:
            problems.append(
                f"{variable} differs from {argument} in {place or 'another variable for it'}: unset one"
            )
    return settings, problems


def _profile() -> tuple[str, dict, list[str]]:
    """The place and content of the named or default connection; empty if there is none."""
    name = os.environ.get(CONNECTION_NAME, "")
    path = (
        Path(os.environ.get("SNOWFLAKE_HOME") or Path.home() / ".snowflake").expanduser()
        / "connections.toml"
    )
    found = tomllib.loads(path.read_text()) if path.exists() else {}
    if (name or "default") not in found:
        has = ", ".join(found) or "nothing"
        return (
            "",
            {},
            [f"{CONNECTION_NAME} is {name}, but {path} has {has}: correct or unset it"]
            if name
            else [],
        )
    _warn_if_open(path)
    settings = {ALIASES.get(key, key): value for key, value in found[name or "default"].items()}
    return f"[{name or 'default'}] of {path}", settings, []


def _authenticator(settings: dict) -> str:
    named = str(settings.get("authenticator", ""))
    if named.lower().startswith("https://"):  # an Okta address, whose case counts
        return named
    return named.upper() or next(
        (IMPLIED[name] for name in IMPLIED if settings.get(name)), "SNOWFLAKE_JWT"
    )


def _problems(settings: dict) -> list[str]:
    """What is missing, what does not go together, and what cannot be a value."""
    authenticator, problems = _authenticator(settings), []
    okta = authenticator.lower().startswith("https://")
    if not okta and authenticator not in NEEDED:
        return [f"SNOWFLAKE_AUTHENTICATOR is {authenticator}: use one of {', '.join(NEEDED)}"]
    needed = ("account", *NEEDED["SNOWFLAKE" if okta else authenticator])
    welcome = WELCOME.get(authenticator, "")
    if (
        authenticator == "WORKLOAD_IDENTITY"
        and str(settings.get("workload_identity_provider")).upper() == "OIDC"
    ):
        needed += (welcome,)
    if missing := [
        name for name in needed if not any(settings.get(either) for either in name.split("|"))
    ]:
        named = ", ".join(_variable(name) for name in missing)
        problems.append(
            f"{named} not set, which log-in by {authenticator} needs (see SNOWFLAKE_AUTHENTICATOR)"
        )
    known = "|".join((*needed, welcome)).split("|")
    if strange := [_variable(name) for name in IMPLIED if settings.get(name) and name not in known]:
        problems.append(
            f"{', '.join(strange)} does not go with log-in by {authenticator}: unset one of them"
        )
    if settings.get("token") and settings.get("token_file_path"):
        problems.append("SNOWFLAKE_TOKEN and SNOWFLAKE_TOKEN_FILE_PATH are both set: unset one")
    if "snowflakecomputing" in str(settings.get("account", "")):
        problems.append(
            "SNOWFLAKE_ACCOUNT is an address: give only what stands before .snowflakecomputing.com"
        )
    if not str(settings.get("port", 0)).isdigit():
        problems.append(f"SNOWFLAKE_PORT is {settings['port']}, not a number")
    return problems


def _variable(name: str) -> str:
    return " or ".join(f"SNOWFLAKE_{either.upper()}" for either in name.split("|"))


def _read_files(settings: dict) -> list[str]:
    """Put the token's text in place of its file's path, and try to open the key; what was wrong."""
    problems = []
    for name in ("private_key_file", "token_file_path"):
        if not settings.get(name):
            continue
        path = Path(settings[name]).expanduser()
        try:
            data = path.read_bytes()
            _warn_if_open(path)
            if name == "token_file_path":
                settings.setdefault("token", data.decode().strip())
                del settings[name]
            else:
                settings[name] = str(path)
                phrase = settings.get("private_key_file_pwd")
                load_pem_private_key(data, str(phrase).encode() if phrase else None)
        except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("(")[
                0
            ].strip().rstrip(".")
            remedy = (
                "; its pass phrase is PRIVATE_KEY_PASSPHRASE" if name == "private_key_file" else ""
            )
            problems.append(f"{_variable(name)} is {path}: {reason}{remedy}")
    return problems


def _warn_if_open(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        warnings.warn(
            f"{path} is open to others (mode {mode:o}). Close it: chmod 600 {path}", stacklevel=2
        )
