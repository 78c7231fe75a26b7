"""The one door to the programs: python -m helpers NAME."""

import ast
import re

import pytest

from helpers import __main__ as door
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
