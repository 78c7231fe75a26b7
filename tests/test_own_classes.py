"""docs/own_classes.md as a reader follows it: every command as written, to the clean end."""

import json

import pandas as pd
import pytest
from scenery.documents import commands, copy_project, run

import standin
from helpers.config import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "own_classes.md"


def counts(printed: str) -> dict:
    """The one line of JSON that `make batch` ends with."""
    return json.loads(printed.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_page_leads_from_a_folder_to_nightly_predictions(tmp_path):
    copy = copy_project(tmp_path)
    draw, tutorial, first_night, second_night, read, remove = commands(PAGE)
    try:
        run(copy, draw)
        printed = run(copy, tutorial)
        summary = json.loads(printed[printed.index("{") :])
        assert list(copy.glob("runs/*/review/report.html"))
        assert summary["images"] == {"train": 120, "test": 30} and summary["predictions"] == 30
        assert summary["accuracy"] > 0.5  # a third by guessing
        first = counts(run(copy, first_night))
        assert (first["predicted"], first["updated"], first["failed"]) == (30, 30, 0)
        second = counts(run(copy, second_night))
        assert (second["listed"], second["predicted"], second["updated"]) == (1, 1, 1)
        assert "unlabelled/tonight.jpg" in run(copy, read).splitlines()[1]  # the newest comes first
        run(copy, remove)
        assert standin.status(copy / ".sandbox") is None
        files = copy.glob("runs/*/export/clothing_test.parquet")
        exported = [pd.read_parquet(path) for path in files]
        assert sorted(int(table.TYPE.notna().sum()) for table in exported) == [30, 31]
    finally:
        standin.stop(copy / ".sandbox")
