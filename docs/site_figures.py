"""The generated pages: measured figures, the SQL files, and the API of helpers from its docstrings."""

import json
from pathlib import Path

import pandas as pd

from helpers import config

BENCHES = {
    "train": "bench-train",
    "inference": "bench-inference",
    "scale": "bench-scale",
    "writeback": "bench-writeback",
}


def figures(run: Path) -> str:
    """Markdown of what this run measured, and of the benchmarks in runs/bench/."""
    summary, review, facts = (
        json.loads((run / f"{name}.json").read_text()) for name in ("summary", "review", "run")
    )
    low, high = review["accuracy_95"]
    shown = {
        "data set": facts["data_set"],
        "training images, test images": f"{facts['images']['train']}, {facts['images']['test']}",
        "accuracy": f"{review['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}, n = {review['n']})",
        "always the most frequent class": f"{review['baseline']['accuracy']:.3f}",
        "top-3": f"{review['top3']:.3f}",
        "macro-F1": f"{review['macro_f1']:.3f}",
        "calibration error": f"{review['ece']:.3f}",
        "predictions, failures": f"{summary['predictions']}, {summary['failures']}",
        "rows written back": summary["rows_written_back"],
    }
    parts = [
        "# Measured figures",
        "Nothing here is typed in: it is read from the files of the run that these pages show, and of the benchmarks.",
        f"## The run of these pages\n\nRun {run.name}, on the local stand-in.",
        _table(["figure", "value"], shown.items()),
        "Seconds that each notebook took on the machine that built these pages:",
        _table(["notebook", "seconds"], summary["seconds"].items()),
    ]
    return "\n\n".join([*parts, *(_bench(name, target) for name, target in BENCHES.items())]) + "\n"


def _bench(name: str, target: str) -> str:
    path = config.runs_folder() / "bench" / f"{name}.json"
    heading = f"## Benchmark: {name}\n\n"
    if not path.exists():
        return f"{heading}Not measured on the machine that built these pages. `make {target}` measures it."
    content = json.loads(path.read_text())
    if all(
        isinstance(value, dict) for value in content.values()
    ):  # one set of figures for each size
        frame = pd.DataFrame(content).T
        plain = [
            c for c in frame if not frame[c].map(lambda value: isinstance(value, dict | list)).any()
        ]
        return heading + _table(
            ["rows", *plain], [(size, *row) for size, *row in frame[plain].itertuples()]
        )
    return heading + _table(["figure", "value"], _flat(content))


def _flat(content: dict) -> list[tuple]:
    """Nested figures by their dotted name."""
    rows = []
    for name, value in content.items():
        rows += (
            [(f"{name}: {n}", v) for n, v in _flat(value)]
            if isinstance(value, dict)
            else [(name, value)]
        )
    return rows


def _table(head: list[str], rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def sql_files(folder: Path) -> str:
    """Markdown with each SQL file under its name."""
    parts = [
        "# The SQL files",
        "The notebooks run these files, in the order of their numbers. Each can be pasted into a Snowflake worksheet.",
    ]
    for path in sorted(folder.glob("*.sql")):
        parts.append(
            f"## {path.stem}\n\n```{{literalinclude}} sql/{path.name}\n:language: sql\n:force:\n```"
        )
    return "\n\n".join(parts) + "\n"


def api(folder: Path) -> str:
    """Markdown that asks autodoc for each module and package in `folder`."""
    parts = [
        "# API of helpers",
        "The package that the notebooks call, module by module, from its docstrings.",
    ]
    names = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    for name in sorted(names - {"__init__"}):
        parts.append(f"## helpers.{name}\n\n```{{eval-rst}}\n.. automodule:: helpers.{name}\n```")
    return "\n\n".join(parts) + "\n"
