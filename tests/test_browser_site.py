"""The published pages in a browser: whole, quiet, readable on a phone, in the dark, by keyboard."""

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Page, Request, Response
from scenery.browsing import chromium, keep_screenshot
from scenery.surroundings import readers_machine, unavailable

from helpers import config
from helpers.commands.tutorial import NOTEBOOKS, run_tutorial

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first test waits for a whole run
TRAINING = {
    "02_train_model": {
        "n_epochs": 2,
        "batch_size": 8,
        "image_size": 64,
        "augmentation": 0,
    }
}
AXE = "4.10.3"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
# of every page: what a reader sees or follows, and where it leads
FACTS = """() => ({
    title: document.title,
    headings: [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1]),
    images: [...document.images].map(
        i => ({src: i.src, alt: i.alt, shown: i.complete && i.naturalWidth > 0})
    ),
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id),
    language: document.documentElement.lang,
    text: document.querySelector('article, [role=main]').innerText,
})"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A reader's machine with a finished run on small images."""
    with readers_machine(tmp_path_factory.mktemp("home"), train=10, test=4) as home:
        run_tutorial(str(home / "garments"), TRAINING, train=True)
        yield home


@pytest.fixture(scope="module")
def site(home) -> Path:
    """The folder of pages that `make site RUN=latest` builds."""
    command = [sys.executable, str(config.PROJECT_ROOT / "docs" / "make_site.py")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return home / "site"


@pytest.fixture(scope="module")
def address(site):
    """Serves the pages, and nothing else, on loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output short."""

    handler = functools.partial(Handler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def visits(browser, address) -> dict[str, dict]:
    """What each page holds, by its path, from following every link from the start page."""
    page = browser.new_page()
    complaints = complaints_of(page, address)
    visits = {}
    waiting = ["search.html", "index.html"]  # a form leads to the first
    while waiting:
        path = waiting.pop()
        if path in visits:
            continue
        page.goto(address + path, wait_until="networkidle")
        visits[path] = page.evaluate(FACTS) | {"complaints": complaints.copy()}
        complaints.clear()
        for link in visits[path]["links"]:
            target = urldefrag(link).url.removeprefix(address) or "index.html"
            if link.startswith(address) and target.endswith(".html"):
                waiting.append(target)
    page.close()
    return visits


def complaints_of(page: Page, address: str) -> list[str]:
    """A list that grows while the page loads: errors, failed requests, and ones that leave."""
    complaints = []

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def response(answer: Response) -> None:
        if answer.status >= 400:
            complaints.append(f"{answer.status}: {answer.url}")

    def request(asked: Request) -> None:
        if not local(asked.url, address):
            complaints.append(f"left: {asked.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda asked: complaints.append(f"failed: {asked.url}"))
    page.on("response", response)
    page.on("request", request)
    return complaints


def local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def test_start_page_leads_to_every_page(site, visits):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert {f"notebooks/{name}.html" for name in NOTEBOOKS} < built
    assert set(visits) == built


def test_pages_load_without_complaint_and_without_leaving_the_site(visits):
    assert not {path: facts["complaints"] for path, facts in visits.items() if facts["complaints"]}


def test_links_and_anchors_lead_somewhere(site, visits, address):
    broken = []
    for path, facts in visits.items():
        for link in facts["links"]:
            if not link.startswith(address):
                assert urlsplit(link).hostname not in ("127.0.0.1", "localhost"), (path, link)
                continue
            target, anchor = urldefrag(link.removeprefix(address))
            target = target or "index.html"
            if not (site / target).is_file() or (anchor and anchor not in visits[target]["ids"]):
                broken.append((path, link))
    assert not broken


def test_pictures_are_there_and_described(visits):
    images = [(path, image) for path, facts in visits.items() for image in facts["images"]]
    for path, image in images:
        assert image["shown"] and len(image["alt"]) >= 15, (path, image)
    output = re.compile(r"/_images/[0-9a-f]{40,}\.")  # in no folder of the repository
    outputs = [path for path, image in images if output.search(image["src"])]
    # one each of what every run has; none of near-duplicates, of which these images have none
    assert outputs.count("notebooks/04_review_results.html") >= 8
    assert not [path for path, image in images if image["alt"].startswith(("http", "../"))]


def test_headings_are_in_order(visits):
    for path, facts in visits.items():
        levels = facts["headings"]
        assert levels.count(1) == 1 and levels[0] == 1, (path, levels)
        assert all(after <= before + 1 for before, after in pairwise(levels)), (path, levels)
        assert facts["language"] == "en" and facts["title"], path


def test_chapters_show_what_the_run_printed(visits, home):
    run = json.loads((home / "runs" / "latest.json").read_text())["run"]
    review = json.loads((home / "runs" / run / "review.json").read_text())
    chapters = {path: facts["text"] for path, facts in visits.items()}
    assert "LocalCluster" in chapters["notebooks/03_run_inference.html"]
    assert "epoch 2/2: 100%" in chapters["notebooks/02_train_model.html"]  # the bar's last words
    assert "need a running kernel" in chapters["notebooks/04_review_results.html"]
    figures = chapters["figures.html"]
    assert f"{review['accuracy']:.3f}" in figures and run in figures
    assert figures.count("Not measured on the machine that built these pages") == 4
    assert "SnowflakeImageFolder" in chapters["api.html"] and "merge into" in chapters["sql.html"]
    assert "SNOWFLAKE_ACCOUNT" in chapters["account.html"]
    assert "weights_only" in chapters["model/README.html"]
    for path, text in chapters.items():
        for unwanted in (str(home), str(config.PROJECT_ROOT), "Traceback"):
            assert unwanted not in text, path


@pytest.mark.parametrize("width", [320, 360, 768, 820, 1024, 1280, 1366, 1440, 1600, 1920])
def test_nothing_is_wider_than_the_window(browser, address, visits, width):
    page = browser.new_page(viewport={"width": width, "height": 740})
    widths = {}
    for path in visits:
        page.goto(address + path, wait_until="load")
        widths[path] = page.evaluate("document.documentElement.scrollWidth")
        if width == 360:
            keep_screenshot(page, f"page-{Path(path).stem}-phone")
    page.close()
    assert not {path: wide for path, wide in widths.items() if wide > width}


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, the checker of accessibility, fetched once by npm."""
    kept = config.PROJECT_ROOT / ".cache" / f"axe-core-{AXE}.js"
    if not kept.exists():
        if not shutil.which("npm"):
            unavailable("npm is missing, which fetches axe-core")
        with tempfile.TemporaryDirectory() as folder:
            pack = ["npm", "pack", f"axe-core@{AXE}", "--silent"]
            packing = subprocess.run(pack, cwd=folder, capture_output=True, text=True, timeout=120)
            if packing.returncode:
                unavailable(f"npm could not fetch axe-core@{AXE}: {packing.stderr}")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
                member = package.extractfile("package/axe.min.js")
                assert member
                source = member.read()
        kept.parent.mkdir(exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_bytes(source)
        partial.rename(kept)
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert digest == AXE_SHA256, f"{kept} is not the pinned axe-core: delete it"
    return kept.read_text()


def findings(page: Page, axe: str) -> list[str]:
    """Serious and critical findings of axe-core on the page as it is."""
    page.evaluate(axe)
    run = "async () => (await axe.run({resultTypes: ['violations']})).violations"
    found = []
    for violation in page.evaluate(run):
        if violation["impact"] not in ("serious", "critical"):
            continue
        for node in violation["nodes"]:
            why = [check["message"] for check in node["any"][:1]]
            found.append(f"{violation['id']}: {node['html'][:200]} {why}")
    return found


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_nothing_serious(browser, address, visits, axe, scheme, width):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = {}
    for path in visits:
        page.goto(address + path, wait_until="load")
        found[path] = findings(page, axe)
        if width > 360:
            keep_screenshot(page, f"page-{Path(path).stem}-{scheme}")
    page.close()
    assert not {path: said[:5] for path, said in found.items() if said}


def test_axe_would_find_something(browser, address, axe):
    page = browser.new_page()
    page.goto(address)
    wrong = """<img src=x.png><p style="color:#eee">faint</p>"""
    page.evaluate(f"document.querySelector('article').innerHTML += '{wrong}'")
    kinds = {said.partition(":")[0] for said in findings(page, axe)}
    page.close()
    assert {"image-alt", "color-contrast"} <= kinds


def test_search_finds_a_chapter(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("input[name=q]").first.fill("directory table")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=30_000)
    links = page.locator("#search-results li a")
    hits = links.evaluate_all("links => links.map(link => link.href)")
    page.close()
    assert any("01_set_up_snowflake.html" in hit for hit in hits)


def test_keyboard_reaches_content_and_scrolling_regions(browser, address):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(address + "notebooks/04_review_results.html", wait_until="load")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText.trim()").lower() == "skip to content"
    scrolling = """[...document.querySelectorAll('article *')].filter(e =>
        e.scrollWidth > e.clientWidth + 1
        && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"""
    assert page.evaluate(f"{scrolling}.length") > 0
    unreachable = "filter(e => e.tabIndex < 0).map(e => e.outerHTML.slice(0, 200))"
    assert page.evaluate(f"{scrolling}.{unreachable}") == []
    page.close()
