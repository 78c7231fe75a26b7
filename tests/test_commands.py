"""The one door to the programs: python -m helpers NAME."""

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from scenery.drawing import draw_folder

import standin
from helpers import __main__ as door
from helpers.commands.tutorial import NotebookError, run_notebook
from helpers.config import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "helpers" / "commands"


def test_alone_it_lists_every_command(capsys):
    for arguments in ([], ["--help"]):
        assert door.main(arguments) == 0
        listed = re.findall(r"^  (\w+) +\w", capsys.readouterr().out, re.M)
        assert listed == list(door.COMMANDS)


def test_unknown_name_is_an_error_that_names_the_commands(capsys):
    assert door.main(["tutorail"]) == 2
    said = capsys.readouterr().err
    assert "There is no command 'tutorail'" in said
    assert all(f"  {name} " in said for name in door.COMMANDS)


def test_commands_are_the_modules_of_their_folder():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert set(door.COMMANDS) == modules | packages


@pytest.mark.parametrize("name", door.COMMANDS)
def test_command_has_a_main_that_takes_arguments(name):
    module = FOLDER / f"{name}.py"
    if not module.exists():
        module = FOLDER / name / "__init__.py"
    statements = ast.parse(module.read_text()).body
    functions = [found for found in statements if isinstance(found, ast.FunctionDef)]
    (main,) = [function for function in functions if function.name == "main"]
    assert [argument.arg for argument in main.args.args] == ["arguments"]
    assert main.returns and ast.unparse(main.returns) == "int"


@pytest.mark.parametrize("name", door.COMMANDS)
def test_command_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit) as ended:
        door.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m helpers {name}" in capsys.readouterr().out


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home of its own with few images, and a temporary folder to look into afterwards."""
    for split in ("train", "test"):
        draw_folder(tmp_path / "images" / split, n=3)
    (tmp_path / "temporary").mkdir()
    places = {"TUTORIAL_HOME": tmp_path, "TUTORIAL_SANDBOX": tmp_path / ".sandbox"}
    for name, folder in (places | {"TMPDIR": tmp_path / "temporary"}).items():
        monkeypatch.setenv(name, str(folder))
    return tmp_path


def tutorial(place) -> subprocess.Popen:
    command = [sys.executable, "-m", "helpers", "tutorial", "--images", str(place / "images")]
    options = ["--epochs", "1", "--image-size", "32", "--weights", "none", "--arch", "resnet18"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], stdout=pipe, stderr=pipe, text=True)


def begun(place, notebook: str) -> None:
    """Waits for the kernel of a notebook."""
    while not list(place.glob(f"runs/*/notebooks/{notebook}.ipynb")):
        time.sleep(0.1)
    time.sleep(3)


def of_place(place) -> list[str]:
    """Processes that know this home from their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("TUTORIAL_HOME") == str(place)
            if mine and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        pytest.param("SIGINT", marks=pytest.mark.slow),
        pytest.param("SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all_that_the_tutorial_started(place, name):
    process = tutorial(place)
    begun(place, "01_set_up_snowflake")
    number = getattr(signal, name)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said and "Stopped." in said
    assert not of_place(place)
    assert not list((place / "temporary").iterdir())


def test_a_kernel_of_another_environment_is_named(place, monkeypatch):
    spec = place / "kernels" / "python3"
    spec.mkdir(parents=True)
    command = {"argv": ["/usr/bin/false", "{connection_file}"], "display_name": "x"}
    (spec / "kernel.json").write_text(json.dumps(command | {"language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(place))
    with pytest.raises(NotebookError, match=r"JUPYTER_PATH") as died:
        run_notebook("01_set_up_snowflake", place / "notebooks", {"backend": "local"})
    assert "kernels.log" in str(died.value) and "Kernel" in str(died.value)


def test_a_second_tutorial_in_one_home_is_told_at_once(place):
    first = tutorial(place)
    begun(place, "01_set_up_snowflake")
    second = tutorial(place)
    _, said = second.communicate(timeout=30)
    assert second.returncode == 1 and "set TUTORIAL_HOME" in said
    assert first.poll() is None and standin.status() is not None
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)


def test_the_stand_in_ends_with_the_last_of_its_users(place):
    with standin.in_use() as server:
        with standin.in_use() as same:
            assert same == server
        assert standin.status() == server
    assert standin.status() is None
    server = standin.ensure_running()  # by hand
    with standin.in_use() as same:
        assert same == server
    assert standin.status() == server
    standin.stop()


SERVE = [sys.executable, "-m", "helpers", "serve", "--port", "0", "--model", "model/model_drawn.pt"]


@pytest.mark.parametrize(
    "before, sent, code",
    [
        ([], ["SIGHUP"], 128 + signal.SIGHUP),
        # which has a closed terminal ignored
        (["nohup"], ["SIGHUP", "SIGTERM"], 128 + signal.SIGTERM),
        ([], ["SIGINT"], 0),
    ],
)
def test_a_signal_ends_the_service_in_order(before, sent, code):
    with subprocess.Popen(
        [*before, *SERVE], cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            next(line for line in process.stderr if "running on" in line)
            for name in sent:
                assert process.poll() is None
                process.send_signal(getattr(signal, name))
                time.sleep(1)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert "Application shutdown complete" in said and "Traceback" not in said
