"""The house: what each reader must read stays small, and the hand that wrote it stays plain."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.__main__ import COMMANDS
from helpers.commands.tutorial import NOTEBOOKS
from helpers.config import PROJECT_ROOT

HELPERS = PROJECT_ROOT / "helpers"
# statements, so that unfolding a line costs nothing
ONE_CHAPTER = 1_400  # what one notebook imports of helpers/, all that it leads to included
ALL_CHAPTERS = 3_000
PROGRAMS = 1_100
STAND_IN = 3_200
DRAWINGS = 750
# code lines
ONE_FILE = 250
ONE_BODY = 40
COLUMNS = 100
TUPLE_ASSIGNMENTS = 5  # in 1,000 statements
EXAMPLES = 15  # doctests in helpers/


def statements(path: Path) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text())))


def total(paths: set[Path]) -> int:
    return sum(map(statements, paths))


def imported(source: str) -> Iterator[str]:
    """Names of modules of helpers/ that a source imports, also inside of functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    path = PROJECT_ROOT / Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file() and file.is_relative_to(HELPERS):
            return file
    return None


def closure(source: str) -> set[Path]:
    """The files of helpers/ that a source imports, those that they import, and so on."""
    found: set[Path] = set()
    todo = list(imported(source))
    while todo:
        parts = todo.pop().split(".")
        packages = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        for file in filter(None, map(file_of, packages)):
            if file not in found:
                found.add(file)
                todo += imported(file.read_text())
    return found


def code_of(notebook: str) -> str:
    content = json.loads((PROJECT_ROOT / "notebooks" / f"{notebook}.ipynb").read_text())
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


CHAPTERS = {name: closure(code_of(name)) for name in NOTEBOOKS}
STORY = set().union(*CHAPTERS.values())
FILES = sorted(HELPERS.rglob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_chapter_is_readable_in_one_sitting(notebook):
    counts = {path.relative_to(HELPERS).as_posix(): statements(path) for path in CHAPTERS[notebook]}
    assert sum(counts.values()) <= ONE_CHAPTER, counts


def test_the_story_the_programs_the_stand_in_and_the_drawings_keep_their_size():
    programs = {path for path in FILES if path not in STORY}
    assert total(STORY) <= ALL_CHAPTERS
    assert total(programs) <= PROGRAMS
    assert total(set((PROJECT_ROOT / "standin").rglob("*.py"))) <= STAND_IN
    assert total(set((PROJECT_ROOT / "samples").rglob("*.py"))) <= DRAWINGS


def test_what_no_chapter_needs_is_a_program():
    outside = {path.relative_to(HELPERS).as_posix() for path in FILES if path not in STORY}
    programs = {name for name in outside if name.startswith("commands/") or name == "__main__.py"}
    # training and evaluating from a plain folder are programs
    assert outside - programs == {"training/image_folder.py"}


def documented_lines(tree: ast.Module) -> set[int]:
    """Line numbers of docstrings."""
    lines: set[int] = set()
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, owners) and ast.get_docstring(node):
            lines |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def code_lines(text: str, first: int = 1, last: int | None = None) -> int:
    """Lines that hold code: no blank line, comment or docstring."""
    documented = documented_lines(ast.parse(text))
    numbered = list(enumerate(text.splitlines(), 1))[first - 1 : last]
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in numbered
    )


def bodies(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("folder", ["helpers", "standin", "samples"])
def test_files_and_functions_are_short(folder):
    for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
        text = path.read_text()
        assert code_lines(text) <= ONE_FILE, path
        for function in bodies(ast.parse(text)):
            length = code_lines(text, function.body[0].lineno, function.end_lineno)
            assert length <= ONE_BODY, (path, function.name, length)


def test_lines_are_short():
    long = [
        (path.relative_to(PROJECT_ROOT).as_posix(), number)
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert not long


def test_no_line_is_kept_from_the_formatter():
    assert not [path for path in FILES if re.search(r"#\s*fmt:\s*(skip|off)", path.read_text())]


def is_tuple_assignment(node: ast.AST) -> bool:
    """`a, b = x, y`: two steps in one line."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def test_a_line_is_one_step():
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    n_statements = sum(isinstance(node, ast.stmt) for node in nodes)
    n_tuples = sum(map(is_tuple_assignment, nodes))
    assert 1000 * n_tuples <= TUPLE_ASSIGNMENTS * n_statements


def test_a_function_that_has_a_name_is_defined():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr)
            assert not (named and isinstance(node.value, ast.Lambda)), (path, node.lineno)


def test_public_functions_say_what_they_do():
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        public = [n for n in tree.body if hasattr(n, "name") and not n.name.startswith("_")]
        assert not [(path, n.name) for n in public if not ast.get_docstring(n)]


def test_docstrings_have_examples():
    assert sum(path.read_text().count("\n    >>> ") > 0 for path in FILES) >= 10
    blocks = re.findall(r"\n\n( +>>> )", "\n".join(path.read_text() for path in FILES))
    assert len(blocks) >= EXAMPLES


@pytest.mark.parametrize("package", ["standin", "samples"])
def test_the_stand_in_and_the_drawings_import_nothing_of_helpers(package):
    for path in (PROJECT_ROOT / package).rglob("*.py"):
        assert not [name for name in imported(path.read_text()) if name.startswith("helpers")], path


def test_the_map_names_every_room_and_file():
    said = ast.get_docstring(ast.parse((HELPERS / "__init__.py").read_text())) or ""
    contributing = (PROJECT_ROOT / "CONTRIBUTING.md").read_text()
    rooms = [path.parent.name for path in HELPERS.glob("*/__init__.py")]
    ground = [path.stem for path in HELPERS.glob("*.py") if not path.stem.startswith("__")]
    assert all(f"- `{name}`:" in said for name in rooms + ground)
    assert all(f"`{name}/`" in contributing for name in rooms)
    assert COMMANDS.keys() >= {"tutorial", "nightly", "doctor"}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_lines_of_notebooks_fit_the_published_pages(notebook):
    assert max(map(len, code_of(notebook).splitlines())) <= 88
