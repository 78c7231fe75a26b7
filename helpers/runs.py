"""The run folder runs/<run>/: what one notebook leaves for the next."""

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import config
from helpers.files import write_json

# of a folder on every system, that looks like what it is; 60 characters are at most 240 bytes
ODD = (
    r'/\\:*?"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff'
    r"\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
)
RESERVED = r"latest(\.json)?|(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?"
NAME = re.compile(rf"(?!({RESERVED})$)[^.\s{ODD}]([^{ODD}]{{0,58}}[^.\s{ODD}])?", re.I)


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
                f"Run {self.name!a} cannot name a folder. Use at most 60 characters, no dot or "
                'blank at its ends, none of / \\ : * ? " < > |, nothing that is not seen, and not '
                '"latest" or a device of Windows such as "con".'
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

    facts: the other fields of a Run. Raises FileExistsError where a run of this name has others.
    """
    run = Run(name or new_name(), backend, config.identifier(database), **facts)
    path = run.folder / "run.json"
    earlier = Run(**json.loads(path.read_text())) if path.exists() else run
    run = replace(run, model_digest=earlier.model_digest)  # notebook 01 may run again
    if run != replace(earlier, made_database=run.made_database):
        raise FileExistsError(
            f"Run {run.name} is there already, of other data: {path}. "
            "Use another run_name, or remove that folder."
        )
    return run.save()


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


def new_name(number: int = 1) -> str:
    """A run's name that is not taken yet: the time in UTC. Its folder is made: nobody takes it."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = now if number == 1 else f"{now}-{number}"
    try:
        (config.runs_folder() / name).mkdir(parents=True)
    except FileExistsError:
        return new_name(number + 1)
    return name
