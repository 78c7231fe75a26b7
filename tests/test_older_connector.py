"""The tutorial with connector 4.8, which whoever has Snowpark or snowflake-ml still needs."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from scenery.certificates import write_key
from scenery.drawing import draw_folder
from scenery.recording_proxy import recording_proxy
from scenery.surroundings import unavailable

from helpers import config, model, runs
from helpers.snowflake import login
from helpers.training.pretrained import build

OLDER = "snowflake-connector-python[pandas]~=4.8"
UV = Path(sys.executable).parent / "uv"
RUN = """
import sys
from jupyter_client.kernelspec import get_kernel_spec
from pathlib import Path
from snowflake import connector
from helpers.commands.tutorial import run_notebook
assert connector.__version__.startswith("4."), connector.__version__
kernel = get_kernel_spec("python3").argv
assert kernel[0] == sys.executable, kernel
more = {
    "01_set_up_snowflake": {"images": sys.argv[1]},
    "03_run_inference": {"cluster": "local", "n_workers": 1},
}
for name in sys.argv[2:]:
    run_notebook(name, Path("notebooks"), {"backend": "local"} | more.get(name, {}))
"""
LOG_IN = """
from helpers.snowflake.connection import connect, execute
with connect("snowflake") as connection:
    print(execute(connection, "select current_user()")[0][0])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An environment that holds the older connector; all else comes from this one, behind it."""
    folder = tmp_path_factory.mktemp("older")
    if not UV.exists():
        unavailable("uv is not beside this Python; make setup installs it")
    python = folder / "bin" / "python"
    make = ["venv", "--python", sys.executable, str(folder)]
    install = ["pip", "install", "--python", str(python), OLDER]
    for command in (make, install):
        done = subprocess.run([UV, *command], capture_output=True, text=True)
        if done.returncode:
            unavailable(f"{OLDER} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, capture_output=True, text=True).stdout.strip())
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "behind.pth").write_text("\n".join(ours))
    kernel = [python, "-m", "ipykernel", "install", "--sys-prefix"]
    subprocess.run(kernel, check=True, capture_output=True)
    return python


@pytest.fixture
def older(python, running_standin, tmp_path, monkeypatch):
    """Runs code with the older connector, in a folder of its own, against the stand-in."""
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_SANDBOX", str(running_standin.root))
    kept = {name: value for name, value in os.environ.items() if name not in login.VARIABLES}

    def older(code: str, *arguments: str, **more: str) -> str:
        ours = {"PYTHONPATH": str(config.PROJECT_ROOT), "NO_PROXY": "127.0.0.1"}
        command = [python, "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=kept | ours | more, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return older


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_notebooks_01_03_and_05_run_with_it(older, tmp_path):
    images = tmp_path / "images"
    draw_folder(images / "train", n=2)
    draw_folder(images / "test", n=2)
    older(RUN, str(images), "01_set_up_snowflake")
    run = runs.open_run("latest", "local", "CLOTHING")
    card = model.ModelCard("resnet18", run.classes, 32, "drawn", run.data_digest)
    classifier = model.Classifier(build("resnet18", len(run.classes)), card)
    model.save(classifier, config.trained_model())
    older(RUN, str(images), "03_run_inference", "05_write_back")
    text = str(nbformat.read(tmp_path / "notebooks" / "05_write_back.ipynb", as_version=4))
    assert "6 predictions, 6 staged: 6 updated" in text and "Traceback" not in text


@pytest.mark.slow
def test_it_takes_the_same_log_ins(older, running_standin, tmp_path):
    phrase = "a phrase"
    write_key(rsa.generate_private_key(65537, 2048), tmp_path / "key.p8", phrase)
    (tmp_path / "token").write_text("t0ken\n")
    place = {
        "SNOWFLAKE_ACCOUNT": "a",
        "SNOWFLAKE_HOST": running_standin.host,
        "SNOWFLAKE_PROTOCOL": "http",
        "SNOWFLAKE_HOME": str(tmp_path),
        "SNOWFLAKE_USER": "me",
    }
    by_key = {
        "SNOWFLAKE_PRIVATE_KEY_FILE": str(tmp_path / "key.p8"),
        "PRIVATE_KEY_PASSPHRASE": phrase,
    }
    by_token = {"SNOWFLAKE_TOKEN_FILE_PATH": str(tmp_path / "token")}
    with recording_proxy(running_standin) as proxy:
        place["SNOWFLAKE_PORT"] = str(proxy.port)
        for settings in (by_key, by_token, {"SNOWFLAKE_PASSWORD": "p"}):
            assert older(LOG_IN, **place, **settings).strip() == "ME"
