"""What the browser tests share: the system's Chromium, and a place for screenshots."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright
from scenery.surroundings import unavailable

from helpers.config import PROJECT_ROOT

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
SCREENSHOTS = PROJECT_ROOT / "runs" / "screenshots"


@contextmanager
def chromium() -> Generator[Browser, None, None]:
    """A running browser."""
    found = [program for program in PROGRAMS if shutil.which(program)]
    if not found:
        unavailable("Chromium is missing. Install it: make chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(found[0]), args=OPTIONS)
        yield browser
        browser.close()


def keep_screenshot(page: Page, name: str) -> None:
    """Save what the page shows now as runs/screenshots/<name>.png, for a person to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
