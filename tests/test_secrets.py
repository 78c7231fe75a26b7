"""No password, key, token or signed URL is in any file that the notebooks leave.

Whether they end well or not.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from scenery.certificates import write_key
from scenery.drawing import draw_folder
from scenery.recording_proxy import recording_proxy

import standin
from helpers import model
from helpers.commands.tutorial import NOTEBOOKS, NotebookError, run_notebook, run_tutorial
from helpers.snowflake import login
from helpers.training.pretrained import build
from standin.signing import Signer

TRAINING = {"n_epochs": 1, "batch_size": 8, "image_size": 64, "augmentation": 0}
PASSWORD = "planted-pa55word"
TOKEN = "planted-t0ken"
PHRASE = "planted-pa55-phrase"
# what a reader's environment may hold beside, and the notebooks have no use for
CLOUD = {
    "AWS_ACCESS_KEY_ID": "PLANTEDAKIA0001",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-s3cret",
    "AWS_SESSION_TOKEN": "planted-aws-t0ken",
    "AZURE_STORAGE_KEY": "planted-azure-k3y",
    "AZURE_STORAGE_CONNECTION_STRING": "planted-azure-connect1on",
    "AZURE_STORAGE_SAS_TOKEN": "planted-azure-s4s",
}
# of this stand-in, of S3 and Google, of Azure; a bearer token for the files of a stage
SIGNED = re.compile(
    rb"(?i)(signature|\bsig)(=|%3d|\\u003d)[0-9a-z%+/]{16}|\b\d{10}\.[0-9a-f]{64}\b"
)


def leaks(folder: Path, secrets: dict[str, str], but: Path | None = None) -> list[str]:
    """Which file below `folder` holds which secret, in its bytes or in what they decode to."""
    found = set()
    for path in folder.rglob("*"):
        if not path.is_file() or path == but:
            continue
        for content in contents(path):
            holds = [name for name, secret in secrets.items() if secret.encode() in content]
            if SIGNED.search(content):
                holds.append("a signed URL")
            found |= {f"{path.relative_to(folder)}: {name}" for name in holds}
    return sorted(found)


def contents(path: Path) -> list[bytes]:
    """The file's bytes; and the rows of a Parquet file, the members of an archive."""
    if path.suffix == ".parquet":
        return [path.read_bytes(), pd.read_parquet(path).to_csv().encode()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [path.read_bytes(), *map(archive.read, archive.namelist())]
    return [path.read_bytes()]


def test_the_search_finds_what_is_planted(tmp_path):
    url = Signer(b"key", "http://127.0.0.1:1").signed_url("D/PUBLIC/S", "hat/a.jpg", 60)
    frame = pd.DataFrame({"text": [f"{PASSWORD[:12]}{i}" for i in range(1000)] + [PASSWORD]})
    frame.to_parquet(tmp_path / "part.parquet", compression="zstd", write_statistics=False)
    pd.DataFrame({"url": [url] * 9}).to_parquet(tmp_path / "urls.parquet", compression="zstd")
    # only decoding shows it
    assert PASSWORD.encode() not in (tmp_path / "part.parquet").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card", PASSWORD * 9)
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "deep" / ".hidden" / "log").write_bytes(b"\xff\0" + f"said {PASSWORD}.".encode())
    (tmp_path / "page.html").write_text(f'<img src="{url}">')
    (tmp_path / "escaped").write_text(url.replace("=", "%3D"))
    (tmp_path / "azure").write_text(
        "https://x.blob.core.windows.net/c/f?sv=2024&sig=Ab3%2Fd0123456789abcdef%3D"
    )
    (tmp_path / "bearer").write_text(Signer(b"key", "").transfer_token("put", "D/PUBLIC/S"))
    (tmp_path / "innocent").write_text(
        f"https://standin.local/api/files/D/PUBLIC/S/a.jpg, signature= {'a' * 64}"
    )
    (tmp_path / "secret.key").write_text(PASSWORD)
    found = leaks(tmp_path, {"password": PASSWORD, "token": TOKEN}, but=tmp_path / "secret.key")
    signed = ["azure", "bearer", "escaped", "page.html", "urls.parquet"]
    wanted = [f"{name}: password" for name in ("deep/.hidden/log", "model.pt", "part.parquet")]
    assert found == sorted(wanted + [f"{name}: a signed URL" for name in signed])


@pytest.fixture(scope="module")
def safe(tmp_path_factory) -> Path:
    """Where the secrets lie that are files: apart from what a run leaves."""
    folder = tmp_path_factory.mktemp("safe")
    write_key(rsa.generate_private_key(65537, 2048), folder / "key.p8", PHRASE)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reader's machine: whatever a program leaves in its home is below this folder."""
    home = tmp_path_factory.mktemp("home")
    draw_folder(home / "garments" / "train", n=6)
    draw_folder(home / "garments" / "test", n=3)
    (home / "tmp").mkdir()
    places = {
        "HOME": home,
        "TUTORIAL_HOME": home,
        "TUTORIAL_SANDBOX": home / ".sandbox",
        "TMPDIR": home / "tmp",
    }
    with pytest.MonkeyPatch.context() as patch:
        others = (login.CONNECTION_NAME, "DASK_SCHEDULER_ADDRESS", "XDG_CACHE_HOME")
        for name in (*login.VARIABLES, *others):
            patch.delenv(name, raising=False)
        for name, value in (CLOUD | places | {"NO_PROXY": "127.0.0.1,localhost"}).items():
            patch.setenv(name, str(value))
        yield home
        standin.stop(home / ".sandbox")


@pytest.fixture(scope="module")
def proxy(home):
    """The stand-in, reached as an account is, so that each log-in's secret is in use."""
    with recording_proxy(standin.ensure_running(home / ".sandbox")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def log_in(proxy):
    """Sets the environment for one kind of log-in."""
    account = {
        "SNOWFLAKE_ACCOUNT": "myorg-me",
        "SNOWFLAKE_USER": "me",
        "SNOWFLAKE_HOST": "localhost",
        "SNOWFLAKE_PORT": proxy.port,
        "SNOWFLAKE_PROTOCOL": "http",
    }
    with pytest.MonkeyPatch.context() as patch:

        def log_in(**secret: object) -> None:
            for name in login.VARIABLES:
                patch.delenv(name, raising=False)
            for name, value in (account | secret).items():
                patch.setenv(name, str(value))

        yield log_in


@pytest.fixture(scope="module")
def done(home, log_in) -> Path:
    """The folder of a whole run."""
    log_in(SNOWFLAKE_PASSWORD=PASSWORD)
    more = {"02_train_model": TRAINING, "03_run_inference": {"n_workers": 1}}
    parameters = {name: {"backend": "snowflake"} | more.get(name, {}) for name in NOTEBOOKS}
    return run_tutorial(str(home / "garments"), parameters, train=True)


def left(home: Path, safe: Path, proxy) -> list[str]:
    """The leaks of all that has run so far."""
    signing = home / ".sandbox" / "secret.key"
    secrets = CLOUD | {
        "password": PASSWORD,
        "token": TOKEN,
        "pass phrase": PHRASE,
        "signing key": signing.read_text(),
        "key": (safe / "key.p8").read_text().splitlines()[1],
    }
    for i, login_sent in enumerate(proxy.logins()):
        if "TOKEN" in login_sent:
            secrets[f"token {i}"] = login_sent["TOKEN"]
    for i, header in enumerate(set(proxy.tokens)):
        (secrets[f"session {i}"],) = re.findall('Token="(.+)"', header)
    assert all(len(secret) > 11 for secret in secrets.values()) and "session 3" in secrets
    # the one file that must hold what the stand-in signs with
    return leaks(home, secrets, but=signing)


def fails(name: str, folder: Path, **parameters) -> str:
    """What a notebook that must fail says; kept, to be searched as well."""
    with pytest.raises(NotebookError) as caught:
        run_notebook(name, folder, {"backend": "snowflake"} | parameters)
    (folder / "said.txt").write_text(str(caught.value))
    return str(caught.value)


def passing(_path: str, _body: dict) -> None:
    """No fault of the proxy: everything passes."""


def refusing(place: str, beginning: str, code: str, message: str) -> Callable:
    """A fault of the proxy: what Snowflake says to a log-in or statement that it does not take."""
    answer = {
        "success": False,
        "code": code,
        "message": message,
        "data": {"errorCode": code, "sqlState": "57014"},
    }

    def fault(path: str, body: dict) -> dict | None:
        meant = place in path and body.get("sqlText", "").startswith(beginning)
        return answer if meant else None

    return fault


def save_too_small(path: Path, trained: Path) -> None:
    """A model of the same data as `trained`, for images so small that it fails to compute."""
    card = model.read_card(trained)
    too_small = model.ModelCard("densenet121", card.classes, 16, card.data_set, card.data_digest)
    network = model.Classifier(build("densenet121", len(card.classes)), too_small)
    model.save(network, path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_leaves_no_secret(home, safe, proxy, done):
    assert {found["PASSWORD"] for found in proxy.logins()} == {PASSWORD}
    kinds = {path.suffix for path in done.rglob("*") if path.is_file()}
    assert {".ipynb", ".parquet", ".html", ".json", ".csv", ".log"} <= kinds
    assert (done / "dask-report.html").exists() and (home / ".sandbox" / "server.log").exists()
    assert left(home, safe, proxy) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_that_fail_leave_no_secret(home, safe, proxy, done, log_in):
    """Each fails in a cell that holds a connection, signed URLs, or both."""
    others = home / "others"
    draw_folder(others / "train", n=3, size=44)  # other images: none of them is in the cache
    draw_folder(others / "test", n=3, size=44)
    (others / "test" / "hat" / "000.jpg").write_text("no image")

    log_in(SNOWFLAKE_TOKEN_FILE_PATH=safe / "token")
    proxy.fault = refusing("login-request", "", "390101", "Authentication attempt rejected.")
    assert "Authentication attempt rejected" in fails("01_set_up_snowflake", home / "refused")
    assert proxy.logins()[-1]["TOKEN"] == TOKEN

    log_in(SNOWFLAKE_PRIVATE_KEY_FILE=safe / "key.p8", PRIVATE_KEY_PASSPHRASE=PHRASE)
    proxy.fault = passing
    options = {"backend": "snowflake", "images": str(others)}
    run_notebook("01_set_up_snowflake", home / "unreadable", options)
    said = (home / "unreadable" / "01_set_up_snowflake.ipynb").read_text()
    assert "A picture cannot be shown: not a readable image" in said
    assert proxy.logins()[-1]["AUTHENTICATOR"] == "SNOWFLAKE_JWT"

    shutil.rmtree(home / ".sandbox" / "stages" / "CLOTHING" / "PUBLIC" / "CLOTHING_DATASET_TRAIN")
    fails("02_train_model", home / "lost", **TRAINING)
    assert "HTTP status 404" in (home / "lost" / "02_train_model.ipynb").read_text()

    save_too_small(home / "too_small.pt", home / "model" / "model_trained.pt")
    named = {"model_path": str(home / "too_small.pt"), "run": done.name}
    said = fails("03_run_inference", home / "computed", n_workers=1, **named)
    assert "no working densenet121" in said
    said = fails("04_review_results", home / "mismatched", **named)
    assert "did not make this run's predictions" in said

    too_long = "Statement reached its statement timeout."
    proxy.fault = refusing("query-request", "merge", "000630", too_long)
    assert "statement timeout" in fails("05_write_back", home / "stopped", run=done.name)
    proxy.fault = passing

    doctor = [sys.executable, "-m", "helpers", "doctor", "--json", "--backend", "snowflake"]
    told = subprocess.run(doctor, capture_output=True, text=True)
    (home / "doctor.txt").write_text(told.stdout + told.stderr)
    assert '"log-in"' in told.stdout
    # exports the tables
    run_notebook("06_clean_up", home / "cleaned", {"backend": "snowflake", "run": done.name})
    assert left(home, safe, proxy) == []
