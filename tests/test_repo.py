"""The repository keeps its rules: stripped notebooks, links, environment files that agree."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.commands.tutorial import NOTEBOOKS
from helpers.config import PROJECT_ROOT

CONDA_NAMES = {"pytorch": "torch"}
SECTIONS = ["Check", "Recap", "On your own", "In practice", "Next"]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [
        PROJECT_ROOT / line for line in listed.stdout.splitlines() if (PROJECT_ROOT / line).exists()
    ]


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return nbformat.read(PROJECT_ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)


def sources(notebook, kind: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_notebooks_are_the_six_of_the_tutorial():
    assert sorted(p.stem for p in (PROJECT_ROOT / "notebooks").glob("*.ipynb")) == list(NOTEBOOKS)


def test_notebook_is_stripped(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


def test_notebook_has_one_parameters_cell_of_plain_literals(notebook):
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    for statement in ast.parse(cells[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_notebook_headings_are_in_order(notebook):
    lines = [line for text in sources(notebook, "markdown") for line in text.splitlines()]
    headings = [line for line in lines if re.match(r"#+ ", line)]
    assert headings[0].startswith("# ") and sum(h.startswith("# ") for h in headings) == 1
    steps = [h for h in headings if h.startswith("## Step ")]
    assert 3 <= len(steps) <= 5
    assert [h.split()[2] for h in steps] == [f"{n}:" for n in range(1, len(steps) + 1)]
    assert [h.removeprefix("## ") for h in headings[-len(SECTIONS) :]] == SECTIONS


def test_notebook_cells_are_short(notebook):
    lengths = [source.count("\n") + 1 for source in sources(notebook, "code")]
    assert max(lengths) <= 15 and median(lengths) <= 4, lengths


def test_notebook_pictures_have_alt_text(notebook):
    pictures = re.findall(
        r"!\[(.*?)\]\((.*?)\)", "\n".join(sources(notebook, "markdown")), re.DOTALL
    )
    assert pictures and all(len(alt) > 20 for alt, _ in pictures)


def links(text: str) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in targets if not target.startswith(("http", "#", "mailto:"))]


def test_links_lead_somewhere():
    pages = [p for p in tracked() if p.suffix in (".md", ".ipynb")]
    broken = []
    for page in pages:
        text = page.read_text()
        if page.suffix == ".ipynb":
            text = "\n".join(sources(nbformat.read(page, as_version=4), "markdown"))
        broken += [
            (page.name, t) for t in links(text) if not (page.parent / t.partition("#")[0]).exists()
        ]
    assert len(pages) >= 8 and not broken


def wanted() -> dict[str, str]:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    return {canonicalize_name(r.name): r for r in requirements}


def test_conda_file_wants_what_the_project_wants():
    content = yaml.safe_load((PROJECT_ROOT / "environment.yml").read_text())
    texts = [
        d.replace(" ", "") for d in content["dependencies"] if isinstance(d, str) and d != "pip"
    ]
    pip = next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    found = {}
    for text in texts + pip:
        requirement = Requirement(text)
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        found[canonicalize_name(name)] = (requirement.specifier, requirement.extras)
    python = found.pop("python")
    assert found == {name: (r.specifier, r.extras) for name, r in wanted().items()}
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    assert str(python[0]) == str(Requirement(f"python{project['requires-python']}").specifier)


def test_lock_satisfies_the_project_exactly():
    lock = {}
    for line in (PROJECT_ROOT / "requirements.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert [s.operator for s in requirement.specifier] == ["=="], line
        lock.setdefault(canonicalize_name(requirement.name), []).append(
            next(iter(requirement.specifier)).version
        )
    for name, requirement in wanted().items():
        assert name in lock and all(version in requirement.specifier for version in lock[name]), (
            name
        )


def test_no_file_names_a_registry_a_home_or_a_secret():
    forbidden = re.compile(
        r"pypi\.org|pythonhosted|download\.pytorch|registry\.npmjs|deb\.debian|/root/|/work/|AKIA[0-9A-Z]{16}"
        r"|BEGIN (RSA |ENCRYPTED )?PRIVATE KEY-----\n"
    )
    texts = [
        p
        for p in tracked()
        if p.suffix not in (".pt", ".png", ".jpg") and p.name != Path(__file__).name
    ]
    assert not [p.name for p in texts if forbidden.search(p.read_text(errors="ignore"))]


def test_no_large_file_and_no_photograph():
    files = tracked()
    assert not [p for p in files if p.stat().st_size > 50 * 2**20]
    assert not [p for p in files if p.suffix in (".jpg", ".jpeg")]


def test_config_imports_no_sibling():
    assert "helpers" not in re.findall(
        r"^(?:from|import) (\w+)", (PROJECT_ROOT / "helpers/config.py").read_text(), re.M
    )


def test_training_from_a_folder_needs_only_torch():
    """A GPU machine may have nothing else: no connector, pandas or urllib3 is imported."""
    unwanted = ("snowflake", "pandas", "urllib3", "dask")  # torch itself brings tqdm
    code = (
        "import sys, helpers.__main__, helpers.commands.train; "
        f"print([module for module in {unwanted} if module in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert shown.stdout.strip() == "[]", shown.stderr
