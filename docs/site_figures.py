"""The generated pages: measured figures, the SQL files, and the API of helpers."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import config

# the rooms of helpers in reading order; "" is the ground floor, which the others stand on
ROOMS = ("", "snowflake", "training", "cluster", "inference", "review", "commands")
BENCHES = {
    "train": "bench-train",
    "inference": "bench-inference",
    "scale": "bench-scale",
    "writeback": "bench-writeback",
}


def figures(run: Path) -> str:
    """Markdown of what this run measured, and of the benchmarks in runs/bench/."""
    summary = json.loads((run / "summary.json").read_text())
    review = json.loads((run / "review.json").read_text())
    facts = json.loads((run / "run.json").read_text())
    images = facts["images"]
    low, high = review["accuracy_95"]
    interval = f"95 % interval {low:.3f} to {high:.3f}, n = {review['n']}"
    shown = {
        "data set": facts["data_set"],
        "training images, test images": f"{images['train']}, {images['test']}",
        "accuracy": f"{review['accuracy']:.3f} ({interval})",
        "always the most frequent class": f"{review['baseline']['accuracy']:.3f}",
        "top-3": f"{review['top3']:.3f}",
        "macro-F1": f"{review['macro_f1']:.3f}",
        "calibration error": f"{review['ece']:.3f}",
        "predictions, failures": f"{summary['predictions']}, {summary['failures']}",
        "rows written back": summary["rows_written_back"],
    }
    parts = [
        "# Measured figures",
        "Nothing here is typed in: it is read from the files of the run that these pages show, "
        "and of the benchmarks.",
        f"## The run of these pages\n\nRun {run.name}, on the local stand-in.",
        _table(["figure", "value"], shown.items()),
        "Seconds that each notebook took on the machine that built these pages:",
        _table(["notebook", "seconds"], summary["seconds"].items()),
    ]
    parts += [_bench(name, target) for name, target in BENCHES.items()]
    return "\n\n".join(parts) + "\n"


def _bench(name: str, target: str) -> str:
    """The section of one benchmark, measured or not."""
    path = config.runs_folder() / "bench" / f"{name}.json"
    heading = f"## Benchmark: {name}\n\n"
    if not path.exists():
        missing = "Not measured on the machine that built these pages."
        return f"{heading}{missing} `make {target}` measures it."
    content = json.loads(path.read_text())
    if all(isinstance(value, dict) for value in content.values()):
        return heading + _sizes(content)
    return heading + _table(["figure", "value"], _flat(content))


def _sizes(content: dict[str, dict]) -> str:
    """A line for each size that was measured, without the figures of its rounds."""
    frame = pd.DataFrame(content).T
    plain = [
        column
        for column in frame
        if not any(isinstance(value, dict | list) for value in frame[column])
    ]
    rows = frame[plain].itertuples(name=None)  # the size is the index
    return _table(["rows", *map(str, plain)], rows)


def _flat(content: dict) -> list[tuple[str, object]]:
    """Nested figures, each by its names with a colon between."""
    rows = []
    for name, value in content.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {inner}", figure) for inner, figure in _flat(value)]
        else:
            rows.append((name, value))
    return rows


def _table(head: list[str], rows: Iterable[Iterable]) -> str:
    """A table in Markdown."""
    lines = []
    for row in [head, ["---"] * len(head), *rows]:
        cells = [str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sql_files(folder: Path) -> str:
    """Markdown with each SQL file under its name."""
    parts = [
        "# The SQL files",
        "The notebooks run these files, in the order of their numbers. "
        "Each can be pasted into a Snowflake worksheet.",
    ]
    for path in sorted(folder.glob("*.sql")):
        parts.append(f"## {path.stem}")
        parts.append(f"```{{literalinclude}} sql/{path.name}\n:language: sql\n:force:\n```")
    return "\n\n".join(parts) + "\n"


def api(folder: Path) -> str:
    """Markdown that asks autodoc for each module of the package in `folder`, room by room."""
    parts = [
        "# API of helpers",
        "The package that the notebooks call, from its docstrings, a room for each chapter.",
    ]
    for room in ROOMS:
        package = f"helpers.{room}".rstrip(".")
        parts.append(f"## {package}")
        parts.append(_documented(package, ":no-members:"))
        for name in _modules(folder, room):
            parts.append(f"### {name}")
            parts.append(_documented(name))
    return "\n\n".join(parts) + "\n"


def _documented(module: str, *options: str) -> str:
    """What asks autodoc for a module's docstrings."""
    lines = [f".. automodule:: {module}", *(f"   {option}" for option in options)]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def _modules(folder: Path, room: str) -> list[str]:
    """Modules of a room, and of packages in it, by name; on the ground floor only its own files."""
    paths = (folder / room).rglob("*.py") if room else folder.glob("*.py")
    names = set()
    for path in paths:
        inside = path.relative_to(folder).with_suffix("")
        module = inside.parent if inside.name == "__init__" else inside
        names.add(".".join(["helpers", *module.parts]))
    return sorted(names - {f"helpers.{room}".rstrip("."), "helpers.__main__"})
