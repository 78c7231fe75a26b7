"""What the benchmarks share: images from every class, and the tables that the tests use too."""

import sys
from itertools import zip_longest
from pathlib import Path

from helpers.config import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "tests"))
from scenery import tables  # ty: ignore[import-not-found] - it is there

PHOTOGRAPHS = PROJECT_ROOT.parent / "shared" / "clothing-dataset-small"
make_tables = tables.make_tables
make_empty_tables = tables.make_empty_tables


def link_in_turns(classes: dict[str, list[Path]], n: int, target: Path) -> Path:
    """Links target/<class>/<file> to at most `n` images, taken from the classes in turn."""
    paths = [path for turn in zip_longest(*classes.values()) for path in turn if path]
    for path in paths[:n]:
        link = target / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return target
