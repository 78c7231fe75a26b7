"""The run folder runs/<run>/: what one notebook leaves for the next."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from helpers import config
from helpers.files import write_json

# of a folder on every system; 60 characters are at most 240 bytes
ODD = r'/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff'
NAME = re.compile(rf"(?!(latest|con|prn|aux|nul)$)[^.\s{ODD}]([^{ODD}]{{0,58}}[^.\s{ODD}])?", re.I)


@dataclass(frozen=True)
class Run:
    """One pass through the notebooks; what it knows of itself is in its run.json."""

    name: str
    backend: str
    database: str
    data_set: str  # name of the images' folder
    data_digest: str  # of the training images, as in a checkpoint
    test_digest: str  # of the test images
    classes: list[str]  # of the training images
    images: dict[str, int]  # number of images by split
    model_digest: str = ""  # of the model that made the predictions
    made_database: bool = False  # whether notebook 01 created the database

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"Run {self.name!r} cannot name a folder. Use at most 60 characters, no dot or "
                'blank at its ends, none of / \\ : * ? " < > |, and not "latest".'
            )

    @property
    def folder(self) -> Path:
        """Where everything of this run lies."""
        return config.runs_folder() / self.name

    @property
    def predictions(self) -> Path:
        """Folder of the Parquet parts."""
        return self.folder / "predictions"

    def save(self) -> "Run":
        """Write run.json and make this the latest run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", asdict(self))
        write_json(config.runs_folder() / "latest.json", {"run": self.name})
        return self


def start(backend: str, database: str, name: str = "", **facts: Any) -> Run:
    """A new run with a folder of its own, named by the time in UTC unless `name` is given.

    facts: the other fields of a Run.
    """
    return Run(name or new_name(), backend, config.identifier(database), **facts).save()


def open_run(name: str, backend: str, database: str) -> Run:
    """The run `name` ("latest": the newest) of this backend and database.

    Raises FileNotFoundError if there is none, ValueError if it is of another.
    """
    if name == "latest":
        latest = config.runs_folder() / "latest.json"
        if not latest.exists():
            raise FileNotFoundError(
                f"No run in {config.runs_folder()}. Run notebook 01_set_up_snowflake first."
            )
        name = json.loads(latest.read_text())["run"]
    path = config.runs_folder() / name / "run.json"
    if not NAME.fullmatch(name) or not path.exists():
        raise FileNotFoundError(
            f'Run {path.parent} does not exist. Use run = "latest" or the name of a folder there.'
        )
    run = Run(**json.loads(path.read_text()))
    if (run.backend, run.database) != (backend, database.upper()):
        raise ValueError(
            f"Run {run.name} is of backend {run.backend}, database {run.database}; "
            f"asked for was {backend}, {database.upper()}. "
            "Set those parameters, or run notebook 01_set_up_snowflake for the other."
        )
    return run


def require_predictions(run: Run) -> None:
    """Raises FileNotFoundError if notebook 03 has not finished in this run."""
    if not (run.folder / "inference.json").exists():
        raise FileNotFoundError(
            f"Run {run.name} has no finished predictions in {run.predictions}. "
            "Run notebook 03_run_inference first."
        )


def new_name() -> str:
    """A run's name that is not taken yet: the time in UTC."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    names = chain([now], (f"{now}-{n}" for n in count(2)))
    return next(name for name in names if not (config.runs_folder() / name).exists())
