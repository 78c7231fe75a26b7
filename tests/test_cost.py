"""What a run costs: by hand, and from what the stand-in's history tells."""

import json
import math
from dataclasses import replace
from itertools import groupby

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenery.predictions import PATHS, draw_files, make_run
from scenery.tables import make_tables

from helpers import __main__ as door
from helpers import config
from helpers.commands import cost as command
from helpers.files import write_json
from helpers.snowflake.connection import connect, execute
from helpers.snowflake.cost import PRICES, SQL, estimate, shown
from helpers.snowflake.login import TAG

DATABASE = "PRICED"
RUN = "año's 50% 🧥"


@pytest.fixture(scope="module")
def connection(running_standin, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_HOME", str(home))
        patch.setenv(TAG, "{}")
        connection = connect("local", notebook="05_write_back", run=RUN)
        make_tables(connection, draw_files(home / "images"), DATABASE)
        yield connection
        execute(connection, f"drop database if exists {DATABASE}")
        connection.close()


@pytest.fixture(scope="module")
def run(connection):
    return make_run(connection, RUN, DATABASE)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """The file that adds up, without what it takes from the history: the statements are given."""
    text = (config.PROJECT_ROOT / SQL).read_text()
    before, _, rest = text.partition("create or replace temporary table clothing_statement as")
    path = tmp_path_factory.mktemp("sql") / "by_hand.sql"
    path.write_text(before + rest.partition(";")[2])
    return path


def added_up(connection, run, sql, statements: list[tuple], **prices: float) -> dict:
    """The estimate of statements: step, X-Smalls (0: no warehouse), start and end in seconds."""
    execute(connection, f"use schema {DATABASE}.PUBLIC")
    execute(
        connection,
        "create or replace temporary table clothing_statement (query_id text, tutorial text, "
        "run text, notebook text, step text, warehouse text, x_smalls float, began float, "
        "ended float)",
    )
    for number, (step, x_smalls, began, ended) in enumerate(statements):
        warehouse = "" if x_smalls == 0 else "W"
        row = (f"{number:03}", "snowflake-images", RUN, "05", step, warehouse, x_smalls)
        execute(
            connection,
            f"insert into clothing_statement values ({', '.join(['%s'] * 9)})",
            (*row, began, ended),
        )
    return estimate(connection, run, PRICES | prices, sql)


def seconds_of(connection, run, sql, spans: list[tuple], auto_suspend_s: float) -> list[float]:
    """What each statement adds to the bill, in the order of their starts."""
    statements = [(f"{number:03}", 1.0, *span) for number, span in enumerate(spans)]
    found = added_up(connection, run, sql, statements, auto_suspend_s=auto_suspend_s)
    return found["usage"].sort_values("step").seconds.tolist()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(100, 101)], [61]),  # one second, and a minute of idleness
        ([(0, 10), (20, 30)], [70, 20]),  # the second keeps it awake for twenty seconds more
        ([(0, 100), (10, 20)], [160, 0]),  # it runs within the first
        ([(0, 10), (70, 71)], [70, 61]),  # just as it would have gone to sleep
        ([(0, 10), (71, 72)], [70, 61]),  # it has slept for a second
        ([(0, 10), (7200, 7260)], [70, 120]),
    ],
)
def test_seconds_of_a_warehouse_that_sleeps_after_a_minute(
    connection, run, by_hand, spans, expected
):
    assert seconds_of(connection, run, by_hand, spans, 60) == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 1)], [60]),
        ([(0, 1), (5, 6)], [60, 0]),  # awake for eleven seconds: the minute is billed once
        ([(0, 1), (20, 21)], [60, 60]),  # it slept from 6 to 20: started twice, billed twice
        ([(0, 58), (60, 90)], [63, 32]),
    ],
)
def test_each_start_is_billed_for_a_minute(connection, run, by_hand, spans, expected):
    assert seconds_of(connection, run, by_hand, spans, 5) == expected


seconds = st.integers(0, 400)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(seconds, st.integers(0, 90)), max_size=6), st.integers(1, 120))
def test_parts_add_up_to_what_second_by_second_is_billed(connection, run, by_hand, lengths, idle_s):
    spans = sorted((start, start + length) for start, length in lengths)
    awake = sorted({t for start, end in spans for t in range(start, end + idle_s)})
    stretches = groupby(enumerate(awake), lambda pair: pair[1] - pair[0])
    billed = sum(max(60, len(list(stretch))) for _, stretch in stretches)
    added = seconds_of(connection, run, by_hand, spans, idle_s)
    assert len(added) == len(spans) and min(added, default=0) >= 0
    assert sum(added) == billed


def test_an_example_worked_by_hand_to_the_cent(connection, run, by_hand):
    """A Small warehouse, 2 credits an hour: awake from 0 to 1,200 s and from 3,600 to 3,960 s.

    1,560 s are 0.8667 hours of an X-Small's twice: 0.8667 credits, at 3.00 they are 2.60. Two
    workers for 1,800 s are an hour: 0.80.
    """
    summary = {"predicted": 1_000, "predicted_before": 0, "workers": 2, "seconds": 1800}
    kept = (run.folder / "inference.json").read_text()
    write_json(run.folder / "inference.json", summary)
    statements = [("a", 2, 0, 600), ("b", 2, 300, 1140), ("", 0, 1000, 1001), ("c", 2, 3600, 3900)]
    prices = {"credit": 3.0, "terabyte_month": 23.0, "worker_hour": 0.8}
    found = added_up(connection, run, by_hand, statements, **prices)
    (run.folder / "inference.json").write_text(kept)
    spent = found["usage"].set_index("step")
    assert spent.statements.to_dict() == {"a": 1, "b": 1, "": 1, "c": 1}
    assert spent.seconds.to_dict() == {"a": 660, "b": 540, "": 0, "c": 360}
    assert spent.x_small_hours.sum() == pytest.approx(2 * 1560 / 3600)
    table = found["bill"].set_index("what")
    assert table.money[["warehouses", "workers"]].round(2).to_dict() == {
        "warehouses": 2.60,
        "workers": 0.80,
    }
    per_million = table["a million images"]
    assert per_million[["warehouses", "workers"]].round(2).to_dict() == {
        "warehouses": 2_600.00,
        "workers": 800.00,
    }
    staged = sum(len(path.encode()) for path in PATHS)
    assert table.money["stages, a month"] == pytest.approx(staged / 2**40 * 23.0)


def test_what_is_not_known_is_said_and_never_nothing(connection, run, by_hand):
    statements = [("a", 1, 0, 10), ("b", None, 0, 10)]  # of a size without a known rate
    for told in (statements, []):
        table = shown(added_up(connection, run, by_hand, told)["bill"]).set_index("what")
        assert table.money["warehouses"] == table.money["the run, without months"] == "unknown"
        assert table.money["workers"] == table.money["tables, a month"] == "unknown"
    known = added_up(connection, run, by_hand, statements[:1])["bill"].set_index("what")
    assert known.money["warehouses"] == pytest.approx(70 / 3600 * PRICES["credit"])


def test_an_interrupted_pass_has_unknown_workers(connection, run, by_hand):
    kept = (run.folder / "inference.json").read_text()
    interrupted = {"predicted": 5, "predicted_before": 3, "workers": 2, "seconds": 3600}
    write_json(run.folder / "inference.json", interrupted)
    table = added_up(connection, run, by_hand, [], worker_hour=1)["bill"].set_index("what")
    (run.folder / "inference.json").write_text(kept)
    assert math.isnan(table.amount["workers"])


def test_the_history_of_a_run_adds_up(connection, run):
    other = connect("local", DATABASE, notebook="03_run_inference", run="another")
    execute(other, "select * from clothing_test")
    other.close()
    found = estimate(connection, run)
    own = found["usage"].set_index("step")
    assert {"", "02_create_stages", "03_create_tables", "04_load_tables"} <= set(own.index)
    assert set(own.notebook) == {"05_write_back"}
    history = "table(information_schema.query_history_by_user(result_limit => 10000))"
    sql = f"select count(*) from {history} where query_tag like %s"
    ((n_statements,),) = execute(connection, sql, (f"%{json.dumps(RUN)}%",))
    assert 0 < own.statements.sum() <= n_statements
    assert own.seconds.sum() > 0
    assert own.x_small_hours.sum() == pytest.approx(own.seconds.sum() / 3600)
    bill = found["bill"].set_index("what")
    assert bill.amount["warehouses"] == pytest.approx(own.x_small_hours.sum())
    assert math.isnan(bill.amount["tables, a month"])  # the stand-in does not tell


def test_the_program_prints_for_people_and_for_machines(connection, run, capsys):
    asked = ["--database", DATABASE, "--worker-hour", "0"]
    assert command.main(asked) == 0
    said = capsys.readouterr().out
    assert "warehouses" in said and "05_write_back" in said and "unknown" in said
    assert command.main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lines = {line["what"]: line for line in told["bill"]}
    assert lines["warehouses"]["money"] > 0 and lines["tables, a month"]["money"] is None
    assert pd.DataFrame(told["usage"]).statements.sum() > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--run", "none"], "does not exist"),
        (["--database", "ELSEWHERE"], "ELSEWHERE"),
    ],
)
def test_the_program_says_why_it_cannot(connection, run, capsys, asked, said):
    assert door.main(["cost", "--database", DATABASE, *asked]) == 1
    assert said in capsys.readouterr().err


def test_after_clean_up_the_program_says_what_is_missing(connection, run, capsys):
    replace(run, name="gone", database="GONE").save()
    assert door.main(["cost", "--database", "GONE", "--run", "gone"]) == 1
    assert "Run notebook 01_set_up_snowflake first" in capsys.readouterr().err
