"""The published pages in a browser: whole, quiet, readable on a phone, in the dark and without a mouse."""

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
from scenery.browsing import chromium, keep_screenshot
from scenery.surroundings import readers_machine, unavailable

from helpers import config
from helpers.commands.tutorial import NOTEBOOKS, run_tutorial

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first test waits for a whole run
TRAINING = {
    "02_train_model": {
        "n_epochs": 2,
        "batch_size": 8,
        "arch": "resnet18",
        "image_size": 32,
        "augmentation": 0,
    }
}
AXE, AXE_SHA256 = "4.10.3", "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
# of every page: what a reader sees or follows, and where it leads
FACTS = """() => ({
    title: document.title,
    headings: [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1]),
    images: [...document.images].map(i => ({src: i.src, alt: i.alt, shown: i.complete && i.naturalWidth > 0})),
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
        def log_message(self, *_):
            """Keep the test's output short."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(site))
    )
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
    """What each page holds, by its path, from following every link that begins at the start page."""
    page, visits, complaints = browser.new_page(), {}, []
    waiting = ["search.html", "index.html"]  # a form leads to the first
    page.on(
        "console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on(
        "response", lambda r: complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None
    )
    page.on(
        "request",
        lambda r: complaints.append(f"left: {r.url}") if not local(r.url, address) else None,
    )
    while waiting:
        path = waiting.pop()
        if path in visits:
            continue
        page.goto(address + path, wait_until="networkidle")
        visits[path] = page.evaluate(FACTS) | {"complaints": complaints.copy()}
        complaints.clear()
        inside = [
            urldefrag(link).url.removeprefix(address)
            for link in visits[path]["links"]
            if link.startswith(address)
        ]
        waiting += [
            link or "index.html" for link in inside if (link or "index.html").endswith(".html")
        ]
    page.close()
    return visits


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
    assert not [
        (path, image) for path, image in images if not image["shown"] or len(image["alt"]) < 15
    ]
    outputs = [
        path for path, image in images if re.search(r"/_images/[0-9a-f]{40,}\.", image["src"])
    ]
    assert (
        outputs.count("notebooks/04_review_results.html") >= 9
    )  # and none of them is in the repository
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
    assert (
        f"{review['accuracy']:.3f}" in chapters["figures.html"] and run in chapters["figures.html"]
    )
    assert chapters["figures.html"].count("Not measured on the machine that built these pages") == 4
    assert "SnowflakeImageFolder" in chapters["api.html"] and "merge into" in chapters["sql.html"]
    assert (
        "SNOWFLAKE_ACCOUNT" in chapters["account.html"]
        and "weights_only" in chapters["model/README.html"]
    )
    for path, text in chapters.items():
        assert (
            str(home) not in text
            and str(config.PROJECT_ROOT) not in text
            and "Traceback" not in text
        ), path


def test_nothing_is_wider_than_a_phone(browser, address, visits):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    widths = {}
    for path in visits:
        page.goto(address + path, wait_until="load")
        widths[path] = page.evaluate("document.documentElement.scrollWidth")
        keep_screenshot(page, f"page-{Path(path).stem}-phone")
    page.close()
    assert not {path: width for path, width in widths.items() if width > 360}


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, the checker of accessibility, fetched once by npm."""
    kept = config.PROJECT_ROOT / ".cache" / f"axe-core-{AXE}.js"
    if not kept.exists():
        if not shutil.which("npm"):
            unavailable("npm is missing, which fetches axe-core")
        with tempfile.TemporaryDirectory() as folder:
            packing = subprocess.run(
                ["npm", "pack", f"axe-core@{AXE}", "--silent"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=120,
            )
            if packing.returncode:
                unavailable(f"npm could not fetch axe-core@{AXE}: {packing.stderr}")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
                source = package.extractfile("package/axe.min.js").read()
        kept.parent.mkdir(exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_bytes(source)
        partial.rename(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == AXE_SHA256, (
        f"{kept} is not the pinned axe-core: delete it"
    )
    return kept.read_text()


def findings(page, axe: str) -> list[str]:
    """Serious and critical findings of axe-core on the page as it is."""
    page.evaluate(axe)
    violations = page.evaluate(
        "async () => (await axe.run({resultTypes: ['violations']})).violations"
    )
    return [
        f"{violation['id']}: {node['html'][:200]} ({node['any'][:1] and node['any'][0]['message']})"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_nothing_serious(browser, address, visits, axe, scheme, width):
    page, found = (
        browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme),
        {},
    )
    for path in visits:
        page.goto(address + path, wait_until="load")
        found[path] = findings(page, axe)
        if width > 360:
            keep_screenshot(page, f"page-{Path(path).stem}-{scheme}")
    page.close()
    assert not {path: list_[:5] for path, list_ in found.items() if list_}


def test_axe_would_find_something(browser, address, axe):
    page = browser.new_page()
    page.goto(address)
    page.evaluate(
        "document.querySelector('article').innerHTML += '<img src=x.png><p style=\"color:#eee\">faint</p>'"
    )
    said = findings(page, axe)
    page.close()
    assert any(s.startswith("image-alt") for s in said) and any(
        s.startswith("color-contrast") for s in said
    )


def test_search_finds_a_chapter(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.locator("input[name=q]").first.fill("directory table")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=30_000)
    hits = page.locator("#search-results li a").evaluate_all(
        "links => links.map(link => link.href)"
    )
    page.close()
    assert any("01_set_up_snowflake.html" in hit for hit in hits)


def test_keyboard_reaches_content_and_scrolling_regions(browser, address):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(address + "notebooks/04_review_results.html", wait_until="load")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText.trim()").lower() == "skip to content"
    regions = "[...document.querySelectorAll('article *')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
    regions += "['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"
    assert page.evaluate(f"{regions}.length") > 0
    assert (
        page.evaluate(f"{regions}.filter(e => e.tabIndex < 0).map(e => e.outerHTML.slice(0, 200))")
        == []
    )
    page.close()
