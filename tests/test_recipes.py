"""The Saturn Cloud recipes: of the published form, about what exists here.

That is files, commands and variables.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from helpers.__main__ import COMMANDS
from helpers.commands.tutorial import NOTEBOOKS
from helpers.config import PROJECT_ROOT

FOLDER = PROJECT_ROOT / ".saturn"
SCHEMA = PROJECT_ROOT.parent / "shared" / "reference" / "saturn-resource-schema-2022.08.01.json"
CURRENT = {"workspace": "workspace", "nightly-job": "job", "deployment": "deployment"}  # file: type
COMMON = {
    "name",
    "description",
    "image",
    "instance_type",
    "working_directory",
    "start_script",
    "environment_variables",
    "git_repositories",
    "shared_folders",
    "secrets",
    "dask_cluster",
}
OWN = {
    "workspace": {"disk_space", "auto_shutoff", "ide"},
    "job": {"command", "schedule", "concurrency_policy", "retries"},
    "deployment": {"command", "scale", "routes"},
}


def older() -> dict:
    return json.loads((FOLDER / "saturn.json").read_text())


def current(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def specs() -> dict[str, dict]:
    """Each recipe's body, by its file's name."""
    return {"saturn.json": older()} | {f"{name}.yaml": current(name)["spec"] for name in CURRENT}


@pytest.fixture(params=["saturn.json", *(f"{name}.yaml" for name in CURRENT)])
def recipe(request) -> dict:
    return specs()[request.param]


def test_every_recipe_is_tested():
    assert {path.name for path in FOLDER.iterdir()} == set(specs())


@pytest.mark.skipif(not SCHEMA.exists(), reason=f"{SCHEMA.name} is not beside the project")
def test_the_older_form_is_the_published_one():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(older(), schema, cls=jsonschema.Draft7Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(older() | {"instance": "large"}, schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize("name, kind", CURRENT.items())
def test_the_current_form_has_known_keys_only(name, kind):
    recipe = current(name)
    assert (recipe.keys(), recipe["type"]) == ({"schema_version", "type", "spec"}, kind)
    assert recipe["schema_version"] == "2025.10.01"
    assert recipe["spec"].keys() <= COMMON | OWN[kind]
    assert OWN[kind] <= recipe["spec"].keys()
    assert all(
        secret.keys() == {"name", "attachment_type", "location"}
        for secret in recipe["spec"].get("secrets", [])
    )


def test_paths_are_those_of_one_checkout(recipe):
    (repository,) = recipe["git_repositories"]
    assert repository["path"] == recipe["working_directory"]
    shared = [folder["path"] for folder in recipe.get("shared_folders", [])]
    if shared:
        assert shared == [recipe["environment_variables"]["TUTORIAL_HOME"]]


def test_files_and_notebooks_that_are_named_exist():
    named = set()
    for path in FOLDER.iterdir():
        text = path.read_text()
        named |= set(re.findall(r"\b(?:notebooks|sql|helpers|docs)/[\w./]+\w", text))
        named |= {f"notebooks/{name}.ipynb" for name in re.findall(r"\b\d\d_[a-z_]+\b", text)}
        named |= set(re.findall(r"--requirement (\S+)", text))
        numbers = re.findall(r"notebooks? (\d\d)(?: and (\d\d))?", text)
        known = [name[:2] for name in NOTEBOOKS]
        assert all(number in known for pair in numbers for number in pair if number), path.name
    assert {"notebooks/01_set_up_snowflake.ipynb", "requirements.txt"} <= named
    assert not [name for name in named if not (PROJECT_ROOT / name).exists()]


def test_variables_are_ones_that_the_helpers_read(recipe):
    code = "\n".join(path.read_text() for path in (PROJECT_ROOT / "helpers").rglob("*.py"))
    places = {secret["location"] for secret in recipe.get("secrets", [])}
    names = {place for place in places if "/" not in place}  # the others are files
    for name in names | recipe["environment_variables"].keys():
        read = f'"{name}"' in code
        if name.startswith("SNOWFLAKE_"):  # by the connector's own name of the argument, too
            argument = name.removeprefix("SNOWFLAKE_").lower()
            read = read or f'"{argument}"' in code
        assert read, name


def test_secrets_have_one_name_in_all_recipes_and_in_the_readme():
    secrets = {
        name: {(s["name"], s["location"]) for s in spec["secrets"]}
        for name, spec in specs().items()
        if "secrets" in spec
    }
    assert set(secrets) == {"saturn.json", "workspace.yaml", "nightly-job.yaml"}
    assert len({frozenset(of) for of in secrets.values()}) == 1
    readme = (PROJECT_ROOT / "README.md").read_text()
    for name, location in secrets["saturn.json"]:
        assert f"`{name}`" in readme, name
        if "/" in location:  # a file
            for file in secrets:
                variables = specs()[file]["environment_variables"]
                assert variables["SNOWFLAKE_PRIVATE_KEY_FILE"] == location


def test_the_older_and_the_current_workspace_are_one():
    old = older()
    new = current("workspace")["spec"]
    assert old["dask_cluster"] == new["dask_cluster"] and new["dask_cluster"]["num_workers"] == 3
    for key in ("name", "description", "working_directory"):
        assert old[key] == new[key]
    for key in ("instance_type", "disk_space", "auto_shutoff"):
        assert old["jupyter_server"][key] == new[key]
    assert "{owner}/{name}:{version}".format(**old["image"]) == new["image"]
    assert old["environment_variables"] == new["environment_variables"]
    places = [(folder["name"], folder["path"]) for folder in old["shared_folders"]]
    assert places == [(folder["name"], folder["path"]) for folder in new["shared_folders"]]


def test_all_recipes_share_one_home():
    recipes = [current(name)["spec"] for name in ("workspace", "nightly-job", "deployment")]
    homes = {recipe["environment_variables"]["TUTORIAL_HOME"] for recipe in recipes}
    assert homes == {older()["environment_variables"]["TUTORIAL_HOME"]}
    (home,) = homes
    for recipe in [*recipes, older()]:
        assert home in [folder["path"] for folder in recipe["shared_folders"]]


def test_the_nightly_job_is_make_batch():
    rules = (PROJECT_ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^batch: .*\n\t@(.*)$", rules, re.M)
    assert current("nightly-job")["spec"]["command"] == command.replace("$(BIN)/", "")


@pytest.mark.parametrize("name", ["nightly-job", "deployment"])
def test_a_command_is_one_of_the_door_that_takes_its_options(name):
    words = shlex.split(current(name)["spec"]["command"])
    assert words[:3] == ["python", "-m", "helpers"]
    command = words[3]
    arguments = words[4:]
    assert command in COMMANDS
    assert '__name__ == "__main__"' in (PROJECT_ROOT / "helpers" / "__main__.py").read_text()
    source = (PROJECT_ROOT / "helpers" / "commands" / f"{command}.py").read_text()
    for option in filter(re.compile("--").match, arguments):
        assert re.search(rf'add_argument\(\s*"{option}"', source), option


def test_the_service_listens_where_saturn_cloud_looks():
    spec = current("deployment")["spec"]
    (route,) = spec["routes"]
    assert f"--host 0.0.0.0 --port {route['container_port']}" in spec["command"]


@pytest.mark.parametrize(
    "checkout", [True, False], ids=["with a checkout", "on a worker without one"]
)
def test_the_start_script_installs_the_lock(recipe, checkout, tmp_path):
    """The script itself, with git as it is; in place of pip and uv is what tells of the call."""
    here = subprocess.run(
        ["git", "rev-parse", "--git-dir"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    if here.returncode and not checkout:
        pytest.skip("not a git checkout")
    for tool in ("pip", "uv"):
        tell = f'if [ -f "$PWD/requirements.txt" ]; then echo "{tool} $*"; fi'
        (tmp_path / tool).write_text(f"#!/bin/sh\n{tell}\n")
        (tmp_path / tool).chmod(0o755)
    source = recipe["git_repositories"][0]["url"]
    git = {"COUNT": "1", "KEY_0": f"url.{PROJECT_ROOT.as_uri()}.insteadOf", "VALUE_0": source}
    environment = os.environ | {f"GIT_CONFIG_{name}": value for name, value in git.items()}
    environment |= {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    folder = PROJECT_ROOT if checkout else tmp_path
    script = ["bash", "-c", recipe["start_script"]]
    said = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)
    wanted = "uv pip install --quiet --system --requirement requirements.txt --editable ."
    assert said.stdout.splitlines() == ["pip install --quiet uv", wanted], said.stderr
    clones = [path.parent for path in Path(tmp_path).glob("*/requirements.txt")]
    assert len(clones) == (not checkout)
