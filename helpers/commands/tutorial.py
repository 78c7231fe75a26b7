"""Run the six notebooks in order on the local stand-in."""

import argparse
import json
import os
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

import standin
from helpers import config, runs
from helpers.files import owned, write_json

NOTEBOOKS = (
    "01_set_up_snowflake",
    "02_train_model",
    "03_run_inference",
    "04_review_results",
    "05_write_back",
    "06_clean_up",
)
# option of this command -> parameter of notebook 02, whose own defaults hold where none is given,
# its kind, and what it is
TRAINING = {
    "epochs": ("n_epochs", int, "epochs of training"),
    "arch": ("arch", str, "a network of helpers.networks"),
    "weights": ("weights", str, "imagenet, none (from scratch), or a checkpoint's path"),
    "image_size": ("image_size", int, "pixels"),
    "batch_size": ("batch_size", int, "images"),
    "lr": ("base_lr", float, "the highest learning rate"),
}
OTHER = "It runs the tutorial: wait for its end, or set TUTORIAL_HOME to a folder of your own."


@dataclass
class NotebookError(ValueError):
    """A notebook that failed, with its cell and error."""

    notebook: str
    cell: int
    error: str
    copy: Path

    def __str__(self) -> str:
        return f"{self.notebook}, cell {self.cell}: {self.error}\nThe executed copy is {self.copy}"


def run_notebook(name: str, folder: Path, parameters: dict) -> Path:
    """Execute one notebook into `folder`; the path of the executed copy.

    Raises NotebookError, and ValueError for a parameter that the notebook does not have.
    """
    source = config.PROJECT_ROOT / "notebooks" / f"{name}.ipynb"
    known = papermill.inspect_notebook(str(source))
    unknown = parameters.keys() - known.keys()
    if unknown:
        raise ValueError(
            f"{name} has no parameter {sorted(unknown)[0]!r}. It has: {', '.join(sorted(known))}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{name}.ipynb"
    # threads that spin starve each other on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _kernels_log(folder / "kernels.log"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            papermill.execute_notebook(
                str(source),
                str(copy),
                parameters,
                progress_bar=False,
                cwd=str(source.parent),
                log_output=False,
            )
    except RuntimeError as error:  # the kernel, before or amid a cell
        said = f"{type(error).__name__}: {error}. See {folder / 'kernels.log'}, and whether "
        said += "`jupyter kernelspec list` shows a python3 of another environment (JUPYTER_PATH)."
        raise NotebookError(name, 0, said, copy) from None
    except PapermillExecutionError as error:
        said = f"{error.ename}: {error.evalue}"
        raise NotebookError(name, error.cell_index, said, copy) from None
    return copy


@contextmanager
def _kernels_log(path: Path) -> Generator[None, None, None]:
    """What kernels and workers write to stderr goes to a file; the notebook has errors of cells."""
    kept = os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def run_tutorial(images: str, parameters: dict[str, dict], train: bool) -> Path:
    """Run all notebooks (02 only if `train`), print a line each, and write summary.json.

    images: folder of train/<class>/ and test/<class>/, "" for drawn ones. parameters: by notebook.
    Returns the run's folder. Raises NotebookError, and ValueError for an unknown parameter.
    """
    name = runs.new_name()
    folder = config.runs_folder() / name
    seconds = {}
    for notebook in NOTEBOOKS:
        if notebook == "02_train_model" and not train:
            continue
        values = {"backend": "local", "run": name}
        if notebook == "01_set_up_snowflake":
            values = {"backend": "local", "images": images, "run_name": name}
        values |= parameters.get(notebook, {})
        started = time.perf_counter()
        print(f"{notebook:24}", end="", flush=True)
        run_notebook(notebook, folder / "notebooks", values)
        seconds[notebook] = round(time.perf_counter() - started, 1)
        print(f"{seconds[notebook]:7.1f} s", flush=True)
    write_json(folder / "summary.json", summarise(folder, seconds))
    return folder


def summarise(folder: Path, seconds: dict[str, float]) -> dict:
    """The figures of a finished run, each from the file that its notebook wrote."""

    def facts(part: str) -> dict:
        return json.loads((folder / f"{part}.json").read_text())

    run = facts("run")
    inference = facts("inference")
    review = facts("review")
    written = facts("write_back")
    return {
        "images": run["images"],
        "predictions": inference["predicted"],
        "failures": inference["failed"],
        "accuracy": review["accuracy"],
        "rows_written_back": written["updated"],
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
        "notebooks": str(folder / "notebooks"),
        "pictures": str(folder / "review"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 all ran."""
    parser = argparse.ArgumentParser(prog="python -m helpers tutorial", description=__doc__)
    parser.add_argument(
        "--images",
        default="",
        help="folder of train/<class>/ and test/<class>/; default: drawn images",
    )
    parser.add_argument(
        "--train", choices=("yes", "skip"), default="yes", help="skip: use a model already there"
    )
    for option, (_, kind, said) in TRAINING.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=kind, help=said)
    options = parser.parse_args(arguments)
    os.environ["TUTORIAL_BACKEND"] = "local"  # never an account, whatever the environment says
    given = vars(options)
    training = {
        parameter: given[option]
        for option, (parameter, *_) in TRAINING.items()
        if given[option] is not None
    }
    alone = owned(config.runs_folder(), OTHER)  # whose lock no run can have
    images = str(Path(options.images).resolve()) if options.images else ""
    with alone, standin.in_use():
        folder = run_tutorial(images, {"02_train_model": training}, options.train == "yes")
    print((folder / "summary.json").read_text())
    return 0
