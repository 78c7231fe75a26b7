"""Every check of the doctor, on what is well and on what is not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import dask
import pytest
from distributed import LocalCluster
from scenery.drawing import draw_folder
from scenery.recording_proxy import recording_proxy
from scenery.tables import make_tables

from helpers import choice, config, model, runs
from helpers.commands import doctor
from helpers.commands.doctor import deep, images, machine
from helpers.commands.doctor.patient import Patient
from helpers.files import digest_of
from helpers.snowflake import login, stage
from helpers.snowflake.connection import connect, execute
from helpers.snowflake.sql_files import run_file
from helpers.training.pretrained import build

CLOSED = "http://127.0.0.1:9/image.jpg?signature=s3cret"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No settings and no runs of whoever runs the tests."""
    for name in (
        *login.VARIABLES,
        login.CONNECTION_NAME,
        "TUTORIAL_BACKEND",
        "DASK_SCHEDULER_ADDRESS",
        "SATURN_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SNOWFLAKE_HOME", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def patient(connection, tmp_path):
    """One who has been through notebook 01, with six test images."""
    folder = draw_folder(tmp_path / "images", n=2)
    make_tables(connection, folder, "TESTS", images.STAGES)
    return Patient("local", "TESTS", connection=connection)


@pytest.fixture
def account(running_standin, monkeypatch):
    """The stand-in as an account, through a proxy whose `fault` changes what it answers."""
    with recording_proxy(running_standin) as proxy:
        settings = {
            "account": "me",
            "user": "u",
            "password": "p",
            "warehouse": "WH",
            "host": "127.0.0.1",
            "port": str(proxy.port),
            "protocol": "http",
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"SNOWFLAKE_{name.upper()}", value)
        yield proxy


def look(check: str, patient: Patient | None = None) -> list[tuple[str, str]]:
    """State, and what was seen with what to do, of each line of one check."""
    lines = doctor.examine(patient or Patient(), {check: doctor.CHECKS[check]})
    return [(line["state"], f"{line['seen']} | {line['remedy']}") for line in lines]


def one(check: str, patient: Patient | None = None) -> tuple[str, str]:
    (line,) = look(check, patient)
    return line


def logged_in(check: str = "log-in") -> tuple[Patient, list[tuple[str, str]]]:
    patient = Patient("snowflake", "TESTS")
    return patient, look(check, patient)


def rows(*found: dict) -> dict:
    """The answer of an account to a SHOW statement."""
    text = {
        "type": "text",
        "nullable": True,
        "length": 99,
        "byteLength": 99,
        "precision": None,
        "scale": None,
    }
    data = {
        "rowtype": [text | {"name": name} for name in found[0]],
        "rowset": [list(row.values()) for row in found],
        "queryResultFormat": "json",
        "total": len(found),
        "returned": len(found),
        "queryId": "q",
        "statementTypeId": 4096,
        "parameters": [],
    }
    return {"data": data, "success": True, "code": None, "message": None}


def test_python_must_be_one_of_ours(monkeypatch):
    assert one("Python")[0] == "ok"
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.9.1")
    state, text = one("Python")
    assert state == "failed"
    assert text.startswith("3.9.1, wanted is") and "make setup PYTHON=" in text


def test_packages_are_judged_by_project_and_lock(monkeypatch):
    assert one("packages") == ("ok", "as in requirements.txt | ")
    installed = machine.version
    found = {"torch": "1.0", "dask": "2099.1", "papermill": None}

    def version(name: str) -> str:
        if name in found and found[name] is None:
            raise machine.PackageNotFoundError(name)
        return found.get(name) or installed(name)

    monkeypatch.setattr(machine, "version", version)
    seen = {text.split()[0]: (state, text) for state, text in look("packages")}
    states = {name: state for name, (state, _) in seen.items()}
    assert states == {"torch": "failed", "papermill": "failed", "dask": "warning"}
    assert "papermill missing" in seen["papermill"][1] and "tested with ==" in seen["dask"][1]


@pytest.mark.parametrize("check, limits", [("disk", "DISK_GB"), ("memory", "MEMORY_GB")])
def test_little_room_is_a_warning_and_hardly_any_fails(monkeypatch, check, limits):
    for of, state in (((0, 0), "ok"), ((0, 1e9), "warning"), ((1e9, 1e9), "failed")):
        monkeypatch.setattr(machine, limits, of)
        assert one(check)[0] == state


def test_gpu_that_torch_cannot_use_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert one("GPU") == ("ok", "none: everything runs on the CPU | ")
    (tmp_path / "nvidia-smi").touch(0o755)
    state, text = one("GPU")
    assert state == "failed" and "PyTorch" in text and "TORCH=cpu" in text


def test_backend_says_why(monkeypatch):
    assert one("backend") == ("ok", "local, by default | ")
    assert one("backend", Patient("snowflake"))[1] == "snowflake, by --backend | "
    monkeypatch.setenv("TUTORIAL_BACKEND", "oracle")
    state, text = one("backend")
    assert state == "failed" and "'oracle'" in text


def test_log_in_without_settings_names_them():
    _, [(state, text)] = logged_in()
    assert state == "failed"
    assert "SNOWFLAKE_ACCOUNT, SNOWFLAKE_USER" in text and "Use your own account" in text


def test_log_in_that_is_refused_fails(account):
    refused = {
        "success": False,
        "code": "390100",
        "message": "Incorrect username or password was specified.",
        "data": {},
    }
    account.fault = lambda path, body: refused if "login-request" in path else None
    _, [(state, text)] = logged_in()
    assert state == "failed" and "Incorrect username or password" in text


def test_log_in_warns_of_open_files(account, tmp_path):
    (tmp_path / "connections.toml").write_text('[default]\nuser = "u"\n')
    (tmp_path / "connections.toml").chmod(0o644)
    patient, lines = logged_in()
    assert [state for state, _ in lines] == ["warning", "ok"] and "chmod 600" in lines[0][1]
    assert lines[1][1] == "U at ME | "
    patient.session.close()


def test_without_log_in_nothing_of_the_account_is_looked_at():
    for check in doctor.CHECKS.keys() - set(doctor.WITHOUT_ACCOUNT):
        assert one(check, Patient("snowflake"))[0] == "warning"


@pytest.mark.parametrize(
    "name, state", [("TELLER", "ok"), ("ACCOUNTADMIN", "warning"), (None, "failed")]
)
def test_role_is_one_made_for_the_work(account, name, state):

    def fault(_path: str, body: dict) -> dict | None:
        return rows({"R": name}) if "current_role" in body.get("sqlText", "") else None

    account.fault = fault
    patient, _ = logged_in()
    assert one("role", patient)[0] == state
    patient.session.close()


@pytest.mark.parametrize(
    "shown, state, text",
    [
        (
            {"size": "X-Small", "auto_suspend": "60"},
            "ok",
            "WH, X-Small, suspends itself after 60 s",
        ),
        ({"size": "X-Small", "auto_suspend": "600"}, "warning", "AUTO_SUSPEND = 60 costs less"),
        ({"size": "Large", "auto_suspend": "60"}, "warning", "WH, Large"),
        ({"size": "X-Small", "auto_suspend": None}, "warning", "never suspends itself"),
        (None, "failed", "WH: cannot be used | Set SNOWFLAKE_WAREHOUSE"),
    ],
)
def test_warehouse_is_small_and_sleeps(account, shown, state, text):
    def fault(path: str, body: dict) -> dict | None:
        asked = body.get("sqlText", "").lower().startswith("show warehouses")
        return rows({"name": "WH"} | shown) if shown and asked else None

    account.fault = fault
    patient, _ = logged_in()
    found = one("warehouse", patient)
    assert found[0] == state and text in found[1]
    patient.session.close()


def test_no_warehouse_fails(account, monkeypatch):
    monkeypatch.delenv("SNOWFLAKE_WAREHOUSE")
    patient, _ = logged_in()
    remedy = "Set SNOWFLAKE_WAREHOUSE to one you may use."
    assert one("warehouse", patient) == ("failed", f"none: cannot be used | {remedy}")
    patient.session.close()


def granted(*lines: str) -> Callable[[str, dict], dict | None]:
    """A fault that answers SHOW GRANTS with lines "role: PRIVILEGE, PRIVILEGE on KIND NAME"."""
    held = []
    for line in lines:
        role, _, rest = line.partition(": ")
        privileges, _, place = rest.partition(" on ")
        kind, _, name = place.partition(" ")
        for privilege in privileges.split(", "):
            held.append((role, {"privilege": privilege, "granted_on": kind, "name": name}))

    def fault(path: str, body: dict) -> dict | None:
        text = body.get("sqlText", "").lower()
        if not text.startswith("show grants to role "):
            return None
        asked = text.removeprefix("show grants to role ").strip('"')
        found = [row for role, row in held if role.lower() == asked]
        return rows(*found or [{"privilege": "NONE", "granted_on": "NONE", "name": "NONE"}])

    return fault


ALL = (
    "sandbox_role: USAGE on WAREHOUSE WH",
    "sandbox_role: USAGE on DATABASE TESTS",
    "sandbox_role: USAGE on ROLE PAINTER",
    "painter: USAGE, CREATE STAGE, CREATE TABLE, CREATE VIEW on SCHEMA TESTS.PUBLIC",
    "painter: READ, WRITE on STAGE TESTS.PUBLIC.CLOTHING_DATASET",
    "painter: OWNERSHIP on STAGE TESTS.PUBLIC.CLOTHING_DATASET_TRAIN",
    *(
        f"public: SELECT, INSERT, UPDATE, DELETE on TABLE TESTS.PUBLIC.CLOTHING_{name}"
        for name in ("TEST", "TRAIN", "PREDICTION_LOG", "FAILURE")
    ),
    "public: SELECT on VIEW TESTS.PUBLIC.CLOTHING_UNREADABLE",
)


def test_all_grants_are_found_also_through_other_roles(account, patient):
    account.fault = granted(*ALL)
    on_account, _ = logged_in()
    assert [state for state, _ in look("grants", on_account)] == ["ok"] * 10
    on_account.session.close()


def test_each_missing_grant_is_named(account, patient):
    on_account, _ = logged_in()
    for missing in ALL:
        account.fault = granted(*(line for line in ALL if line != missing))
        failed = [text for state, text in look("grants", on_account) if state == "failed"]
        expected = [missing.partition(" on ")[2].partition(" ")[2]]
        if expected == ["PAINTER"]:  # with this role goes all that comes with it
            expected = ["TESTS.PUBLIC", "CLOTHING_DATASET", "CLOTHING_DATASET_TRAIN"]
        assert len(failed) == len(expected), missing
        for name, text in zip(expected, failed):
            assert name in text, missing
            assert "As administrator: grant " in text and text.endswith("to role SANDBOX_ROLE;")
    on_account.session.close()


def test_external_stages_need_usage_only(account, connection):
    run_file(connection, "sql/02_create_stages_external.sql")
    account.fault = granted("sandbox_role: USAGE on STAGE TESTS.PUBLIC.CLOTHING_DATASET")
    on_account, _ = logged_in()
    states = {
        text.split(" |")[0]: state for state, text in look("grants", on_account) if "stage " in text
    }
    assert states == {
        "USAGE on stage TESTS.PUBLIC.CLOTHING_DATASET": "ok",
        "SANDBOX_ROLE lacks USAGE on stage TESTS.PUBLIC.CLOTHING_DATASET_TRAIN": "failed",
    }
    on_account.session.close()


def test_without_database_the_right_to_make_one_is_needed(account, monkeypatch):
    for held, states in (
        (ALL[:1], ["ok", "failed"]),
        ((ALL[0], "public: CREATE DATABASE on ACCOUNT X"), ["ok", "ok"]),
    ):
        account.fault = granted(*held)
        on_account, _ = logged_in()
        on_account.database = "NOT_YET_THERE"
        assert [state for state, _ in look("grants", on_account)] == states
        on_account.session.close()


def test_stage_that_is_not_server_side_encrypted_fails(patient):
    assert [state for state, _ in look("encryption", patient)] == ["ok", "ok"]
    execute(
        patient.connection, "create or replace stage clothing_dataset directory = (enable = true)"
    )
    (good, _), (bad, text) = sorted(look("encryption", patient), reverse=True)
    assert (good, bad) == ("ok", "failed")
    assert "CLOTHING_DATASET is not SNOWFLAKE_SSE" in text
    assert "drop stage CLOTHING_DATASET," in text


def test_directory_table_must_be_there_and_fresh(patient, tmp_path):
    connection = patient.connection
    assert look("directory", patient) == [
        ("ok", "CLOTHING_DATASET: 6 files | "),
        ("ok", "CLOTHING_DATASET_TRAIN: 6 files | "),
    ]
    (tmp_path / "images" / "hat" / "000.jpg").write_bytes(b"other bytes")
    stage.sync(connection, tmp_path / "images", "clothing_dataset")
    state, text = look("directory", patient)[0]
    assert state == "warning" and "alter stage CLOTHING_DATASET refresh" in text
    sse = "encryption = (type = 'SNOWFLAKE_SSE')"
    execute(connection, f"create or replace stage clothing_dataset {sse}")
    execute(
        connection,
        f"create or replace stage clothing_dataset_train {sse} directory = (enable = true)",
    )
    (first, no_table), (second, empty) = look("directory", patient)
    assert (first, second) == ("failed", "warning")
    assert "set directory = (enable = true)" in no_table
    assert "CLOTHING_DATASET_TRAIN is empty" in empty


def test_image_is_fetched_and_decoded(patient):
    state, text = one("image", patient)
    assert state == "ok" and text.startswith("hat/000.jpg, ") and "pixels" in text
    assert "signature=" in patient.url


def test_image_of_a_scrambling_stage_fails(patient, tmp_path):
    execute(
        patient.connection, "create or replace stage clothing_dataset directory = (enable = true)"
    )
    stage.sync(patient.connection, tmp_path / "images", "clothing_dataset")
    execute(patient.connection, "alter stage clothing_dataset refresh")
    state, text = one("image", patient)
    assert state == "failed" and "not a readable image" in text and "encryption" in text


@pytest.mark.parametrize(
    "wrong, seen",
    [
        (lambda url: url + "0", "refused (403)"),
        (lambda url: url + "0", "network policies and private endpoints"),
        (lambda url: CLOSED, "firewall or proxy"),
    ],
)
def test_image_behind_a_bad_url_fails(patient, monkeypatch, wrong, seen):
    sign = images.sign_urls

    def sign_wrongly(*args, **more) -> list[str]:
        return [wrong(url) for url in sign(*args, **more)]

    monkeypatch.setattr(images, "sign_urls", sign_wrongly)
    state, text = one("image", patient)
    assert state == "failed" and seen in text and "signature=" not in text and "s3cret" not in text


@pytest.mark.parametrize("off_s, state", [(0, "ok"), (90, "warning"), (-900, "failed")])
def test_clock_must_agree(patient, monkeypatch, off_s, state):
    monkeypatch.setattr(images, "time", SimpleNamespace(time=lambda: time.time() + off_s))
    assert one("clock", patient)[0] == state


def test_model_is_found_by_its_digest(patient, home):
    state, text = one("model", patient)
    assert state == "warning" and "Run notebook 01_set_up_snowflake" in text
    run = runs.start(
        "local",
        "TESTS",
        data_set="d",
        data_digest="digest",
        test_digest="t",
        classes=["hat", "shirt"],
        images={},
    )
    state, text = one("model", patient)
    assert state == "warning" and "Run notebook 02_train_model" in text
    card = model.ModelCard("resnet18", ["hat", "shirt"], 32, "d", "digest")
    model.save(model.Classifier(build("resnet18", 2), card), config.trained_model())
    state, text = one("model", patient)
    assert state == "ok" and digest_of(config.trained_model())[:12] in text
    choice.with_model(run, "another digest")
    assert one("model", patient)[0] == "warning"
    config.trained_model().write_bytes(config.trained_model().read_bytes()[:1000])
    state, text = one("model", patient)
    assert state == "failed" and "model_trained.pt cannot be read" in text


def test_workers_must_come_and_reach_the_stage(patient):
    one("image", patient)
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        patient.cluster = cluster.scheduler_address
        assert [state for state, _ in look("Dask", patient)] == ["ok", "ok"]
        patient.url = CLOSED
        (first, _), (second, text) = look("Dask", patient)
    assert (first, second) == ("ok", "failed")
    assert "download failed" in text and "network" in text and "s3cret" not in text


def test_scheduler_that_does_not_answer_fails():
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        state, text = one("Dask", Patient(cluster="tcp://127.0.0.1:9"))
    assert state == "failed" and "No Dask scheduler answers at tcp://127.0.0.1:9" in text


def test_saturn_is_not_started_by_itself(monkeypatch):
    monkeypatch.setenv("SATURN_TOKEN", "s3cret")
    state, text = one("Dask", Patient())
    assert state == "warning" and "--cluster saturn" in text


def test_before_notebook_01_nothing_fails(running_standin, capsys):
    assert doctor.main(["--database", "NOT_YET_THERE", "--cluster", "local", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {line["check"] for line in lines} == set(doctor.CHECKS)
    missing = {
        line["check"] for line in lines if "Run notebook 01" in line["seen"] + line["remedy"]
    }
    assert {"database", "encryption", "directory", "image", "model"} <= missing


def test_failure_gives_exit_code_1_and_its_remedy(running_standin, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", {"disk": machine.disk})
    monkeypatch.setattr(machine, "DISK_GB", (1e9, 1e9))
    assert doctor.main([]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("failed   disk") and second.strip().startswith("make clean")


def test_deep_look_finds_what_the_stand_in_was_built_on_and_takes_all_away(patient):
    found = list(doctor.examine(patient, {"deep": deep.deep}))
    assert [line["state"] for line in found] == ["ok"] * 8, found
    for kind in ("stages", "tables"):
        assert not execute(patient.session, f"show {kind} like 'CLOTHING_DOCTOR%'")


@pytest.mark.parametrize("wrong", ["md5", "cached", "never expires", "other time zone"])
def test_deep_look_names_what_is_otherwise(patient, monkeypatch, wrong):
    listing, sign = deep.listing, deep.sign_urls
    if wrong == "md5":

        def of_a_cipher(*args: object) -> dict:
            return {path: (size, "0" * 32) for path, (size, _) in listing(*args).items()}

        monkeypatch.setattr(deep, "listing", of_a_cipher)
        seen = "LIST tells the MD5 of the bytes"
    elif wrong == "cached":
        kept: dict[tuple, list[str]] = {}

        def from_a_cache(connection, stage, paths, seconds) -> list[str]:
            return kept.setdefault((*paths, seconds), sign(connection, stage, paths, seconds))

        monkeypatch.setattr(deep, "sign_urls", from_a_cache)
        seen = "signing again gives new URLs"
    elif wrong == "never expires":

        def long(*args: object, seconds: int) -> list[str]:
            return sign(*args, seconds=300)

        monkeypatch.setattr(deep, "sign_urls", long)
        seen = "an expired URL is refused"
    else:
        monkeypatch.setattr(deep, "sql_columns", lambda schema: "seen_at timestamp_ntz")
        seen = "a time stamp of"
    lines = [*doctor.examine(patient, {"deep": deep.deep})]
    (failed,) = [line for line in lines if line["state"] == "failed"]
    assert failed["seen"].startswith(f"NOT SO: {seen}") and failed["remedy"] == deep.REMEDY


def test_deep_look_takes_all_away_also_after_an_error(patient, monkeypatch):
    monkeypatch.setattr(deep, "sync", lambda *_: 1 / 0)
    (line,) = doctor.examine(patient, {"deep": deep.deep})
    assert (line["state"], line["seen"]) == ("failed", "ZeroDivisionError: division by zero")
    assert not execute(patient.session, "show stages like 'CLOTHING_DOCTOR%'")


def test_deep_look_before_notebook_01_needs_a_database(running_standin):
    with connect("local") as connection:
        (line,) = doctor.examine(Patient(connection=connection), {"deep": deep.deep})
    assert line["state"] == "warning" and "notebook 01" in line["remedy"]


@pytest.mark.parametrize(
    "name, limit", [("memory.max", 2**29), ("memory/memory.limit_in_bytes", 2**29)]
)
@pytest.mark.skipif(os.geteuid() != 0, reason="puts another file in the place of the kernel's")
def test_memory_is_the_containers(tmp_path, name, limit):
    """Both ways in which Linux tells a container's limit, in a mount namespace of its own."""
    groups = tmp_path / "groups"
    (groups / name).parent.mkdir(parents=True)
    (groups / name).write_text(f"{limit}\n")
    look = (
        "from helpers.commands.doctor import machine; print(*next(machine.memory(None)), sep=' | ')"
    )
    bound = f'mount --bind {groups} /sys/fs/cgroup && exec "$@"'
    shown = subprocess.run(
        ["unshare", "--mount", "sh", "-c", bound, "sh", sys.executable, "-c", look],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith("failed | 0.5 GB free | Close programs")


@pytest.mark.parametrize(
    "program, state",
    [
        ("python", "ok"),
        ("python3", "ok"),
        (sys.executable, "ok"),
        ("/usr/bin/python3", "failed"),
        ("/opt/other/.venv/bin/python", "failed"),
    ],
)
def test_kernel_must_be_of_this_environment(tmp_path, monkeypatch, program, state):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    command = {"argv": [program, "-m", "ipykernel_launcher"], "display_name": "x"}
    (spec / "kernel.json").write_text(json.dumps(command | {"language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    found, text = one("kernel")
    assert found == state
    assert state == "ok" or ("JUPYTER_PATH" in text and program in text)


@pytest.mark.parametrize("name", ["DATA-ENG", "AAD Data Scientists", "größe", "lower"])
def test_roles_whose_names_need_quotes_are_looked_at(account, patient, name):
    lines = [line.replace("painter:", f"{name}:").replace("PAINTER", f'"{name}"') for line in ALL]
    account.fault = granted(*lines)
    on_account, _ = logged_in()
    assert [state for state, _ in look("grants", on_account)] == ["ok"] * 10
    assert f'show grants to role "{name}"' in account.statements()
    on_account.session.close()


def test_without_a_warehouse_no_grant_on_none_is_asked_for(account, patient, monkeypatch):
    monkeypatch.delenv("SNOWFLAKE_WAREHOUSE")
    account.fault = granted(*ALL)
    on_account, _ = logged_in()
    found = look("grants", on_account)
    assert found and not [text for _, text in found if "WAREHOUSE" in text or "None" in text]
    on_account.session.close()
