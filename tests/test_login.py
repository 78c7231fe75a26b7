"""Each way to log in, from each place to write it down; what is refused before any call."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import textwrap
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from scenery.certificates import write_key
from scenery.documents import code_blocks
from scenery.recording_proxy import recording_proxy
from snowflake import connector

from helpers import config
from helpers.snowflake import login
from helpers.snowflake.connection import connect, execute, parameters
from helpers.snowflake.login import tagged

CONNECT = connector.connect


@pytest.fixture
def account(monkeypatch, tmp_path):
    """Sets variables of an environment that has no other setting of an account.

    account(user="me") sets SNOWFLAKE_USER. The connector is out of reach, so that whatever is
    refused is refused without it.
    """
    for name in (*login.VARIABLES, login.CONNECTION_NAME):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SNOWFLAKE_HOME", str(tmp_path))
    monkeypatch.setattr(connector, "connect", lambda **_: pytest.fail("the connector was called"))

    def account(**settings: object) -> None:
        for argument, value in settings.items():
            monkeypatch.setenv(f"SNOWFLAKE_{argument.upper()}", str(value))

    return account


@pytest.fixture
def proxy(running_standin, account, monkeypatch):
    """The stand-in, reached as an account is: by HOST, PORT and PROTOCOL.

    It notes what each log-in sends.
    """
    monkeypatch.setattr(connector, "connect", CONNECT)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with recording_proxy(running_standin) as proxy:
        account(account="myorg-me", host="127.0.0.1", port=proxy.port, protocol="http")
        yield proxy


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def sent(proxy) -> dict:
    """What the connector sends to log in by the settings there are; no warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        connection = connect("snowflake")
    assert execute(connection, "select 1") == [(1,)]
    connection.close()
    return proxy.logins()[-1]


def refusal() -> str:
    with pytest.raises(ValueError, match="The log-in to Snowflake cannot work") as caught:
        connect("snowflake")
    assert "Use your own account" in str(caught.value) and 'backend = "local"' in str(caught.value)
    return str(caught.value)


def test_password_of_a_trial_account(proxy, account):
    account(user="me", password="p4ss", role="teller", warehouse="wh")
    found = sent(proxy)
    who = (found["ACCOUNT_NAME"], found["LOGIN_NAME"], found["PASSWORD"])
    assert who == ("myorg-me", "me", "p4ss")
    path = next(path for path, _ in proxy.requests if path.startswith("/session/v1/login-request"))
    assert "roleName=teller" in path and "warehouse=wh" in path


def test_password_with_second_factor(proxy, account):
    account(user="me", password="p4ss", authenticator="username_password_mfa", passcode="123456")
    found = sent(proxy)
    assert (found["PASSWORD"], found["PASSCODE"]) == ("p4ss", "123456")


@pytest.mark.parametrize("phrase", ["", "a phrase"])
@pytest.mark.parametrize("named", ["", "snowflake_jwt"])
def test_key_pair(proxy, account, key, tmp_path, monkeypatch, phrase, named):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_key(key, tmp_path / "key.p8", phrase)
    account(user="me", private_key_file="~/key.p8", authenticator=named)
    monkeypatch.setenv("PRIVATE_KEY_PASSPHRASE", phrase)
    found = sent(proxy)
    assert found["AUTHENTICATOR"] == "SNOWFLAKE_JWT"
    claims = json.loads(base64.urlsafe_b64decode(found["TOKEN"].split(".")[1] + "=="))
    assert claims["sub"] == "MYORG-ME.ME"


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("named, expected", [("", "PROGRAMMATIC_ACCESS_TOKEN"), ("oauth", "OAUTH")])
def test_token(proxy, account, tmp_path, in_file, named, expected):
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "token").chmod(0o600)
    account(authenticator=named)
    if in_file:
        account(token_file_path=tmp_path / "token")
    else:
        account(token="t0ken")
    found = sent(proxy)
    assert (found["AUTHENTICATOR"], found["TOKEN"]) == (expected, "t0ken")


class TokenServer(BaseHTTPRequestHandler):
    """An identity provider that knows one client."""

    def do_POST(self) -> None:
        credentials = base64.b64encode(b"an-id:a-secret").decode()
        known = self.headers["Authorization"] == f"Basic {credentials}"
        self.rfile.read(int(self.headers["Content-Length"]))
        granted = {"access_token": "granted", "token_type": "Bearer", "expires_in": 600}
        body = json.dumps(granted).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        """Quiet."""


def test_oauth_client_credentials(proxy, account):
    provider = HTTPServer(("127.0.0.1", 0), TokenServer)
    threading.Thread(target=provider.serve_forever, args=(0.05,), daemon=True).start()
    account(oauth_client_id="an-id", oauth_client_secret="a-secret", role="teller")
    account(oauth_token_request_url=f"http://127.0.0.1:{provider.server_port}/token")
    found = sent(proxy)
    provider.shutdown()
    provider.server_close()
    assert (found["AUTHENTICATOR"], found["TOKEN"]) == ("OAUTH", "granted")


def test_workload_identity(proxy, account, monkeypatch):
    header = {"alg": "RS256"}
    claims = {"sub": "me", "iss": "https://issuer", "aud": "snowflakecomputing.com"}
    signature = {}
    parts = [json.dumps(part).encode() for part in (header, claims, signature)]
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    monkeypatch.setenv("SNOWFLAKE_WIF_ALLOWED_HOST_SUFFIXES", "127.0.0.1")
    account(workload_identity_provider="OIDC", token=token)
    found = sent(proxy)
    assert (found["AUTHENTICATOR"], found["TOKEN"]) == ("WORKLOAD_IDENTITY", token)


@pytest.mark.parametrize(
    "settings, authenticator",
    [
        # needs a browser and a person
        ({"authenticator": "externalbrowser", "user": "me"}, "EXTERNALBROWSER"),
        ({"authenticator": "oauth_authorization_code"}, "OAUTH_AUTHORIZATION_CODE"),
        # needs a machine of that cloud
        ({"workload_identity_provider": "AWS"}, "WORKLOAD_IDENTITY"),
        (
            {"authenticator": "https://me.okta.com", "user": "me", "password": "p"},
            "https://me.okta.com",
        ),
    ],
)
def test_what_cannot_be_run_here_reaches_the_connector_whole(account, settings, authenticator):
    account(account="myorg-me", **settings)
    wanted = {"account": "myorg-me"} | settings | {"authenticator": authenticator}
    kept_alive = {
        "client_session_keep_alive": True,
        "session_parameters": {"TIMEZONE": "UTC", "USE_CACHED_RESULT": False} | tagged(),
        "enable_server_session_keep_alive_auto_detection": False,
    }
    assert parameters("snowflake") == wanted | kept_alive


def test_session_parameters_of_the_file_take_nothing_away(account, tmp_path):
    text = '[default]\naccount = "a"\nuser = "me"\npassword = "p"\n'
    own = "[default.session_parameters]\nLOCK_TIMEOUT = 60\n"
    path = tmp_path / "connections.toml"
    path.write_text(text + own)
    path.chmod(0o600)
    account()
    found = parameters("snowflake")["session_parameters"]
    protecting = {"TIMEZONE": "UTC", "USE_CACHED_RESULT": False}
    assert found == protecting | tagged() | {"LOCK_TIMEOUT": 60}


def test_connection_of_the_file(proxy, account, tmp_path, monkeypatch):
    """The default one, or the one named; the environment fills in what it leaves out."""
    (tmp_path / "token").write_text("t0ken")
    default = '[default]\nuser = "me"\npassword = "p1"\n'
    work = f'[work]\nuser = "boss"\ntoken_file_path = "{tmp_path / "token"}"\n'
    (tmp_path / "connections.toml").write_text(f"{default}\n{work}")
    for name in ("token", "connections.toml"):
        (tmp_path / name).chmod(0o600)
    assert sent(proxy)["PASSWORD"] == "p1"
    monkeypatch.setenv(login.CONNECTION_NAME, "work")
    assert sent(proxy)["TOKEN"] == "t0ken"
    assert [login["LOGIN_NAME"] for login in proxy.logins()] == ["me", "boss"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_what_the_readme_has_one_write_logs_in(proxy, tmp_path, monkeypatch):
    """Its commands for the key, and its connections.toml."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SNOWFLAKE_HOME", str(tmp_path / ".snowflake"))
    monkeypatch.delenv("SNOWFLAKE_ACCOUNT")
    blocks = [text for _, text in code_blocks(config.PROJECT_ROOT / "README.md")]
    commands = next(text for text in blocks if "openssl" in text)
    printed = subprocess.run(
        ["bash", "-euc", commands], capture_output=True, text=True, check=True
    ).stdout
    path = tmp_path / ".snowflake" / "connections.toml"
    path.write_text(textwrap.dedent(next(text for text in blocks if "[default]" in text)))
    path.chmod(0o600)
    found = sent(proxy)
    assert (found["LOGIN_NAME"], found["AUTHENTICATOR"]) == ("clothing_service", "SNOWFLAKE_JWT")
    fingerprint = base64.b64encode(hashlib.sha256(base64.b64decode(printed)).digest()).decode()
    claims = json.loads(base64.urlsafe_b64decode(found["TOKEN"].split(".")[1] + "=="))
    assert claims["iss"] == f"MYORG-MYACCOUNT.CLOTHING_SERVICE.SHA256:{fingerprint}"


def test_all_that_is_missing_is_named_at_once(account):
    assert "SNOWFLAKE_ACCOUNT, SNOWFLAKE_USER, SNOWFLAKE_PRIVATE_KEY_FILE not set" in refusal()


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"user": "u", "password": "p"}, "SNOWFLAKE_ACCOUNT not set"),
        ({"account": "a", "password": "p"}, "SNOWFLAKE_USER not set"),
        (
            {"account": "a", "token": "t", "authenticator": "SNOWFLAKE_JWT"},
            "SNOWFLAKE_TOKEN does not go with",
        ),
        (
            {"account": "a", "user": "u", "password": "p", "token": "t"},
            "SNOWFLAKE_TOKEN does not go with",
        ),
        (
            {"account": "a", "authenticator": "EXTERNALBROWSER", "user": "u", "password": "p"},
            "SNOWFLAKE_PASSWORD does",
        ),
        (
            {"account": "a", "authenticator": "OAUTH"},
            "SNOWFLAKE_TOKEN or SNOWFLAKE_TOKEN_FILE_PATH not set",
        ),
        ({"account": "a", "token": "t", "token_file_path": __file__}, "are both set"),
        (
            {"account": "a", "oauth_client_secret": "s"},
            "SNOWFLAKE_OAUTH_CLIENT_ID, SNOWFLAKE_OAUTH_TOKEN_REQUEST_URL",
        ),
        (
            {"account": "a", "authenticator": "WORKLOAD_IDENTITY"},
            "SNOWFLAKE_WORKLOAD_IDENTITY_PROVIDER not set",
        ),
        (
            {"account": "a", "workload_identity_provider": "OIDC"},
            "SNOWFLAKE_TOKEN or SNOWFLAKE_TOKEN_FILE_PATH not",
        ),
        (
            {"account": "a", "authenticator": "MAGIC"},
            "SNOWFLAKE_AUTHENTICATOR is MAGIC: use one of SNOWFLAKE, ",
        ),
        (
            {"account": "a.snowflakecomputing.com", "user": "u", "password": "p"},
            "SNOWFLAKE_ACCOUNT is an address",
        ),
        (
            {"account": "a", "user": "u", "password": "p", "port": "https"},
            "SNOWFLAKE_PORT is https, not a number",
        ),
        (
            {"account": "a", "user": "u", "private_key_file": "/no/such.p8"},
            "/no/such.p8: No such file",
        ),
        (
            {"account": "a", "token_file_path": "/no/such"},
            "SNOWFLAKE_TOKEN_FILE_PATH is /no/such: No such file",
        ),
        (
            {"account": "a", "user": "u", "private_key_file": __file__},
            "SNOWFLAKE_PRIVATE_KEY_FILE is ",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*open to others")
def test_wrong_settings_are_named_before_any_call(account, settings, named):
    account(**settings)
    assert named in refusal()


def test_pass_phrase_must_be_that_of_the_key(account, key, tmp_path, monkeypatch):
    account(account="a", user="u", private_key_file=write_key(key, tmp_path / "key.p8", "right"))
    assert "private key is encrypted; its pass phrase is PRIVATE_KEY_PASSPHRASE" in refusal()
    monkeypatch.setenv("PRIVATE_KEY_PASSPHRASE", "wr0ng")
    assert "could not decrypt key; its pass phrase" in refusal() and "wr0ng" not in refusal()
    account(private_key_file_pwd="right")
    assert "PRIVATE_KEY_PASSPHRASE differs from private_key_file_pwd" in refusal()


def test_file_and_environment_that_disagree(account, tmp_path, monkeypatch):
    path = tmp_path / "connections.toml"
    path.write_text('[default]\naccount = "a"\nuser = "me"\npassword = "p"\n')
    path.chmod(0o600)
    account(user="you", account="a")
    assert f"SNOWFLAKE_USER differs from user in [default] of {tmp_path}" in refusal()
    monkeypatch.setenv(login.CONNECTION_NAME, "work")
    said = refusal()
    assert "SNOWFLAKE_DEFAULT_CONNECTION_NAME is work, but" in said and "has default" in said


def test_no_value_of_a_secret_is_in_a_message(account, tmp_path):
    path = tmp_path / "connections.toml"
    path.write_text('[default]\npassword = "s3cret-1"\ntoken = "s3cret-2"\n')
    path.chmod(0o600)
    account(password="s3cret-3", oauth_client_secret="s3cret-4")
    assert "SNOWFLAKE_PASSWORD differs" in refusal() and "s3cret" not in refusal()


@pytest.mark.parametrize("name", ["key.p8", "token", "connections.toml"])
def test_files_open_to_others_give_a_warning(account, key, tmp_path, name):
    path = tmp_path / name
    account(account="a", user="u")
    if name == "key.p8":
        account(private_key_file=write_key(key, path))
    elif name == "token":
        path.write_text("t")
        account(token_file_path=path)
    else:
        path.write_text('[default]\npassword = "p"\n')
    path.chmod(0o640)
    said = rf"{name} is open to others \(mode 640\). Close it: chmod 600"
    with pytest.warns(UserWarning, match=said):
        login.account_parameters()


WINDOWS_PATH = '[default]\naccount = "a"\nprivate_key_file = "C:\\Users\\me\\key.p8"\n'


@pytest.mark.parametrize(
    "content, said",
    [
        (WINDOWS_PATH.encode(), r"line 3, .*'single quotes'"),
        (b'[default]\nuser = "a"\n[default]\nuser = "b"\n', "twice.*line 3"),
        (b'[default]\nuser = "a"\nuser = "b"\n', "overwrite.*line 3"),
        (b"[default]\nuser = me\n", "line 2"),
        (b"[default", "line 1"),
        ('[default]\nuser = "me"\n'.encode("utf-16"), r"not UTF-8 \(at line 1\).*save it as UTF-8"),
        ('[default]\nuser = "a"\n# Größe\n'.encode("latin-1"), r"not UTF-8 \(at line 3\)"),
        (b'default = "x"\n', r"has default, no section \[default\]"),
        (b'[connections.default]\nuser = "me"\n', r"has connections, no section \[default\]"),
        (b'[work]\nuser = "a"\n[play]\nuser = "b"\n', r"has work, play, no section \[default\]"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_line_and_remedy(account, tmp_path, content, said):
    path = tmp_path / "connections.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    assert re.search(rf"{re.escape(str(path))}\b.*{said}", refusal())


def test_a_file_that_may_not_be_read_is_named(account, tmp_path):
    (tmp_path / "connections.toml").mkdir()  # root may read any file, but no folder
    assert f"{tmp_path / 'connections.toml'}: Is a directory" in refusal()


def test_names_of_the_file_are_no_matter_where_the_environment_has_all(account, tmp_path):
    path = tmp_path / "connections.toml"
    path.write_bytes('\ufeff[work]\r\nuser = "a"\r\n'.encode())  # as Notepad writes it
    path.chmod(0o600)
    account(account="a", user="u", password="p")
    assert login.account_parameters()["user"] == "u"


@pytest.mark.parametrize("named", ["config", "variable", "default"])
@pytest.mark.parametrize("file", ["connections.toml", "config.toml"])
@pytest.mark.parametrize("folder", [".snowflake", ".config/snowflake", "elsewhere/snowflake"])
def test_connections_are_found_where_snowflakes_own_tools_find_them(
    account, tmp_path, monkeypatch, folder, file, named
):
    monkeypatch.delenv("SNOWFLAKE_HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if folder.startswith("elsewhere"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    place = tmp_path / folder
    place.mkdir(parents=True)
    section = "default" if named == "default" else "work"
    parts = {"connections.toml": "", "config.toml": '[cli.logs]\nlevel = "info"\n'}
    if named == "config":
        parts["config.toml"] = 'default_connection_name = "work"\n' + parts["config.toml"]
    if named == "variable":
        monkeypatch.setenv(login.CONNECTION_NAME, "work")
    start = "" if file == "connections.toml" else "connections."
    parts[file] += f'[{start}{section}]\naccount = "a"\nuser = "me"\npassword = "p"\n'
    for name, text in parts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o600)
    assert login.account_parameters()["user"] == "me"


def test_the_session_may_do_only_what_its_role_may(proxy, account):
    account(user="me", password="p")
    connect("snowflake").close()
    assert proxy.statements() == ["use secondary roles none"]


def test_a_session_that_is_restricted_to_its_role_logs_in(proxy, account):
    account(user="me", password="p")
    refused = {"errorCode": "003013", "sqlState": "42501"}
    proxy.fault = lambda path, body: (
        {"success": False, "code": "003013", "message": "Restricted session.", "data": refused}
        if "secondary roles" in body.get("sqlText", "")
        else None
    )
    with connect("snowflake") as connection:
        assert execute(connection, "select 1") == [(1,)]
