"""Build the static pages in site/ from a run's notebooks: python docs/make_site.py [--run NAME]."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import site_figures
import site_notebooks
from sphinx.cmd.build import build_main

from helpers import config
from helpers.commands.tutorial import NOTEBOOKS

DOCS = Path(__file__).resolve().parent
COPIED = (
    "README.md",
    "LICENSE",
    "requirements.txt",
    "model/README.md",
    "model/LICENSE-weights",
    "docs/*.md",
    "docs/images/*",
    "sql/*.sql",
    ".saturn/*",
)

# where the README's sections are on the pages
SECTIONS = {
    "README.md#use-your-own-account": "account.md",
    "README.md#what-the-stand-in-does-not-prove": "limits.md",
    "README.md": "index.md",
}


def finished_run(name: str) -> Path:
    """Folder of a run that has all six executed notebooks; "latest" is the newest run.

    Raises FileNotFoundError if one is missing.
    """
    runs = config.runs_folder()
    if name == "latest":
        latest = runs / "latest.json"
        name = json.loads(latest.read_text())["run"] if latest.exists() else ""
    run = runs / name
    missing = [path for path in (*executed(run), run / "summary.json") if not path.exists()]
    if not name or missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist. Run make tutorial, or name a finished run: RUN=NAME."
        )
    return run


def executed(run: Path) -> list[Path]:
    """Where a run has its notebooks, whether they are there or not."""
    return [run / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]


def gather(run: Path, source: Path) -> None:
    """Lay out what the pages are made from as in the repository, so its relative links hold."""
    for pattern in COPIED:
        for path in config.PROJECT_ROOT.glob(pattern):
            target = source / path.relative_to(config.PROJECT_ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for path in source.glob("docs/*.md"):
        path.write_text(_to_pages(path.read_text()))
    shutil.copytree(DOCS / "pages", source, dirs_exist_ok=True)
    (source / "notebooks").mkdir()
    for path in executed(run):
        shown = site_notebooks.page(path, [config.home(), config.PROJECT_ROOT])
        nbformat.write(shown, source / "notebooks" / path.name)
    (source / "figures.md").write_text(site_figures.figures(run))
    (source / "sql.md").write_text(site_figures.sql_files(source / "sql"))
    (source / "api.md").write_text(site_figures.api(config.PROJECT_ROOT / "helpers"))


def _to_pages(text: str) -> str:
    """The text of a page with its links into the README led to where its sections are."""
    for section, page in SECTIONS.items():
        text = text.replace(f"../{section}", f"../{page}")
    return text


def build(run: Path, target: Path) -> None:
    """Put the pages into `target`, whole or not at all.

    Raises RuntimeError if Sphinx finds anything amiss.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        pages = Path(folder, "pages")
        source.mkdir()
        gather(run, source)
        quiet_and_strict = ["-q", "-W", "--keep-going"]
        places = ["-c", str(DOCS), "-d", str(Path(folder, "doctrees")), str(source), str(pages)]
        if build_main([*quiet_and_strict, "-b", "html", *places]):
            raise RuntimeError("Sphinx could not build the pages; its messages are above.")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(pages, target, ignore=shutil.ignore_patterns(".buildinfo", "objects.inv"))
    (target / ".nojekyll").touch()  # GitHub Pages serves folders that start with _ only then


def main() -> int:
    """Exit code: 0 the pages are there, 1 they could not be built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", default="latest", help='name of a finished run in runs/, or "latest"'
    )
    parser.add_argument(
        "--out", type=Path, default=config.home() / "site", help="folder that the pages replace"
    )
    options = parser.parse_args()
    try:
        run = finished_run(options.run)
        build(run, options.out)
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Pages of run {run.name}: {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
