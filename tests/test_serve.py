"""The service over real HTTP: right answers, and a clear refusal of everything else."""

import http.client
import io
import json
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Page
from scenery.browsing import chromium, keep_screenshot
from scenery.drawing import COLOURS

from helpers import __main__ as door
from helpers import config, model
from helpers.commands import serve
from helpers.files import digest_of
from helpers.images import decode
from helpers.training.pretrained import build

CLASSES = ["hat", "shirt", "t-shirt"]
POST = b"POST /predict HTTP/1.1\r\nHost: h\r\n"  # more headers and a body come after


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small network with a temperature, a flip and a whole view: leaving one out would show."""
    torch.manual_seed(0)
    card = model.ModelCard(
        arch="resnet18",
        classes=CLASSES,
        image_size=32,
        data_set="drawn",
        data_digest="d",
        temperature=0.3,
        flip=True,
        view="whole",
        parameters={"weights": "/home/me/w.pt"},
    )
    path = tmp_path_factory.mktemp("served") / "model_trained.pt"
    model.save(model.Classifier(build("resnet18", 3), card), path)
    return path


@pytest.fixture(scope="module")
def address(checkpoint):
    """Host and port of a running service."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(serve.create_app(checkpoint), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.fixture
def url(address) -> str:
    return f"http://{address[0]}:{address[1]}"


def picture(name: str = "hat", format: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    """An image whose left half is white, and the right one of the colour of its class."""
    image = Image.new("RGB", size, COLOURS[name])
    image.paste(Image.new("RGB", (size[0] // 2, size[1]), "white"))
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def refusal(response: requests.Response, status: int) -> dict[str, str]:
    """Thing, value and remedy of an answer of this status."""
    assert response.status_code == status, response.text
    problem = response.json()
    assert sorted(problem) == ["remedy", "thing", "value"] and all(problem.values())
    return problem


def raw(address: tuple[str, int], request: bytes, then_close: bool = False) -> bytes:
    """What the service sends back for these very bytes, until it closes or one answer is whole."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request)
        if then_close:
            return b""
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = b""
        with suppress(ConnectionResetError):  # it hangs up on what it will not read
            body = answer.read()
        return b"%d " % answer.status + body


def alive(url: str) -> bool:
    return requests.get(f"{url}/health", timeout=20).json()["status"] == "ok"


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_answer_is_that_of_the_model(url, checkpoint, name, format):
    data = picture(name, format)
    classifier = model.load(checkpoint)
    with torch.inference_mode():
        logits = classifier(classifier.prepare(decode(data))[None])
    confidence, index = classifier.probabilities(logits)[0].max(0)
    found = requests.post(f"{url}/predict", data=data, timeout=20).json()
    assert found["label"] == CLASSES[int(index)]
    assert found["confidence"] == pytest.approx(confidence.item(), abs=1e-5)
    shares = [candidate["confidence"] for candidate in found["top3"]]
    assert sorted(candidate["label"] for candidate in found["top3"]) == CLASSES
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
    assert found["top3"][0] == {"label": found["label"], "confidence": found["confidence"]}


def test_model_says_what_it_is(url, checkpoint):
    about = requests.get(f"{url}/model", timeout=20).json()
    health = requests.get(f"{url}/health", timeout=20).json()
    assert (about["classes"], about["temperature"], about["view"]) == (CLASSES, 0.3, "whole")
    assert about["digest"] == health["model"] == digest_of(checkpoint)
    assert "/home" not in json.dumps(about)  # nothing of the machine that trained it


def test_every_route_is_described_and_nothing_comes_from_elsewhere(url):
    api = requests.get(f"{url}/openapi.json", timeout=20).json()
    assert sorted(api["paths"]) == ["/health", "/model", "/predict"]
    for methods in api["paths"].values():
        assert all(route["description"] for route in methods.values())
    predict = api["paths"]["/predict"]["post"]
    assert "image/*" in predict["requestBody"]["content"]
    assert set(predict["responses"]) == {"200", "408", "413", "422", "503"}
    page = requests.get(url, timeout=20)
    assert "text/html" in page.headers["content-type"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert refusal(requests.get(f"{url}/docs", timeout=20), 404)["value"] == "GET /docs"
    assert refusal(requests.get(f"{url}/predict", timeout=20), 405)["value"] == "GET /predict"


@pytest.mark.parametrize(
    "body, value",
    [
        (b"", "not a readable image"),
        (b"just text, sent as hat.jpg", "not a readable image"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40'/>",
            "not a readable image",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\nshowpage\n", "not a readable image"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20, "not a readable image"),
        (picture(size=(300, 200))[:-200], "JPEG image cannot be decoded"),
        (picture(format="PNG")[:-30], "PNG image cannot be decoded"),
        (picture(size=(4, 4)), "4 x 4 pixels"),
    ],
    ids=["nothing", "text", "svg", "postscript", "noise", "cut jpeg", "cut png", "tiny"],
)
def test_what_is_no_image_is_refused_with_the_reason(url, body, value):
    claim = {"content-type": "image/jpeg"}
    answer = requests.post(f"{url}/predict", data=body, headers=claim, timeout=20)
    problem = refusal(answer, 422)
    assert problem["thing"] == "image" and value in problem["value"] and "JPEG" in problem["remedy"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has this many pixels, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        length = struct.pack(">I", len(data))
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return length + kind + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 2**24)), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "width, height", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)]
)
def test_decompression_bomb_is_refused_by_its_header(url, width, height):
    data = bomb(width, height)
    started = time.perf_counter()
    problem = refusal(requests.post(f"{url}/predict", data=data, timeout=60), 422)
    assert re.search("pixels|DecompressionBomb|readable", problem["value"])
    assert time.perf_counter() - started < 20 and alive(url)


def test_too_many_bytes_are_refused_before_they_are_sent(address, url):
    """The body never comes, and the answer does not wait for it."""
    head = POST + b"Content-Length: %d\r\n" % (serve.MAX_BYTES + 1)
    answer = raw(address, head + b"\r\n")
    assert answer.startswith(b"413 ") and str(serve.MAX_BYTES).encode() in answer
    assert raw(address, head + b"Expect: 100-continue\r\n\r\n").startswith(b"413 ")
    assert alive(url)


def test_too_many_bytes_without_a_length_are_refused_on_the_way(address):
    """The sender is stopped soon after the limit, however much it has to send."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(serve.MAX_BYTES // 2**20 + 1):
            connection.sendall(b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n")
        answer = http.client.HTTPResponse(connection)  # the last chunk was never sent
        answer.begin()
        assert answer.status == 413 and json.loads(answer.read())["thing"] == "image"


def test_a_picture_of_just_the_limit_is_read(url):
    data = picture(format="BMP")
    padded = data + bytes(serve.MAX_BYTES - len(data))
    assert requests.post(f"{url}/predict", data=padded, timeout=60).status_code == 200
    refusal(requests.post(f"{url}/predict", data=padded + b"x", timeout=60), 413)


def test_content_length_may_lie(address, url, monkeypatch):
    data = picture()
    head = POST + b"Content-Length: %d\r\n\r\n"
    too_short = head % 10 + data
    too_long = head % (len(data) + 10) + data
    assert raw(address, too_short).startswith(b"422 ")  # what is read is no image
    raw(address, too_long, then_close=True)
    monkeypatch.setattr(serve, "BODY_SECONDS", 0.5)
    answer = raw(address, too_long)  # and waits for more
    assert answer.startswith(b"408 ") and b"content-length" in answer
    assert alive(url)


@pytest.mark.parametrize(
    "head",
    [
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Content-Length: 1e9\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n",
        POST + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        POST + b"X: a\0b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP at all\r\n\r\n",
    ],
    ids=["negative", "not digits", "two lengths", "long header", "nul", "tls"],
)
def test_hostile_headers_are_refused(address, url, head):
    assert raw(address, head).startswith(b"400 ")
    assert alive(url)


def test_what_a_header_claims_changes_nothing(url):
    honest = requests.post(f"{url}/predict", data=picture(), timeout=20).json()
    headers = {
        "content-type": "text/html; charset=../../etc",
        "x-forwarded-for": "<script>",
        "content-encoding": "gzip",
    }
    address = f"{url}/predict?model=/etc/passwd"
    claimed = requests.post(address, data=picture(), headers=headers, timeout=20).json()
    assert claimed == honest


def test_requests_at_once_get_their_own_answers(url):

    def answer(name: str) -> dict:
        return requests.post(f"{url}/predict", data=picture(name), timeout=120).json()

    wanted = {name: answer(name) for name in CLASSES}
    assert len({answer["confidence"] for answer in wanted.values()}) == 3
    names = CLASSES * 20
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(answer, names))
    assert answers == [wanted[name] for name in names]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_command_of_the_readme_gets_an_answer(address, tmp_path):
    readme = (config.PROJECT_ROOT / "README.md").read_text()
    command = re.findall(r"^curl .+$", readme, re.M)[0]
    sample = tmp_path / ".samples" / "test" / "hat" / "hat_0001.jpg"
    sample.parent.mkdir(parents=True)
    sample.write_bytes(picture())
    here = shlex.split(command.replace("127.0.0.1:8000", f"{address[0]}:{address[1]}"))
    assert here != shlex.split(command)
    shown = subprocess.run(
        [here[0], "--silent", *here[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["label"] in CLASSES


def test_one_picture_is_computed_at_a_time_and_nobody_else_waits(url, monkeypatch):
    """While a picture is being classified the service answers, and the next has not been begun."""
    begun = threading.Semaphore(0)
    go_on = threading.Event()

    def held_up(data: bytes) -> torch.Tensor:
        begun.release()
        assert go_on.wait(60)
        return decode(data)

    monkeypatch.setattr(serve, "decode", held_up)
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(requests.post, f"{url}/predict", data=picture(), timeout=60)
            for _ in range(2)
        ]
        assert begun.acquire(timeout=20)
        for _ in range(20):
            assert alive(url)
        assert not begun.acquire(blocking=False)
        go_on.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_a_full_service_says_so_at_once_and_slow_clients_cost_the_others_nothing(address, url):
    slow = [socket.create_connection(address) for _ in range(serve.BODIES)]
    try:
        for connection in slow:
            connection.sendall(POST + b"Content-Length: 1000\r\n\r\nbegun")
        time.sleep(0.5)
        started = time.monotonic()
        response = requests.post(f"{url}/predict", picture(), timeout=5)
        assert refusal(response, 503)["remedy"] == "Send it again in a second."
        assert response.headers["Retry-After"] == "1" and alive(url)
        assert time.monotonic() - started < 2
    finally:
        for connection in slow:  # they hang up
            connection.close()
    time.sleep(0.5)
    silent = [socket.create_connection(address) for _ in range(100)]
    assert requests.post(f"{url}/predict", picture(), timeout=5).status_code == 200
    for connection in silent:
        connection.close()


def test_the_trained_model_goes_before_the_provided_one(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(config, "PROJECT_ROOT", tmp_path)
    assert door.main(["serve", "--port", "0"]) == 1
    remedy = "model_trained.pt does not exist. Run notebook 02_train_model first"
    assert remedy in capsys.readouterr().err
    provided = tmp_path / "model" / "model_provided.pt"
    trained = tmp_path / "home" / "model" / "model_trained.pt"
    for path in (provided, trained):
        path.parent.mkdir(parents=True)
        path.symlink_to(checkpoint)
        assert serve.default_model() == path


@pytest.mark.slow
def test_command_serves_until_it_is_interrupted(checkpoint):
    command = [sys.executable, "-m", "helpers", "serve", "--port", "0", "--model", str(checkpoint)]
    with subprocess.Popen(
        command, cwd=config.PROJECT_ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            found = (re.search(r"http://[\d.]+:\d+", line) for line in process.stderr)
            address = next(filter(None, found))[0]
            answer = requests.post(f"{address}/predict", data=picture(), timeout=60).json()
            assert answer["label"] in CLASSES
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()


@pytest.fixture
def browser():
    with chromium() as running:
        yield running


DROP = """([bytes, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name));
    const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true });
    document.querySelector("#drop").dispatchEvent(drop);
}"""


@pytest.fixture
def page(browser):
    """A page on a phone, with lists of what it requested and what it complained of."""
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.set_default_timeout(90_000)
    requested = []
    complaints = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda said: complaints.extend([said.text] if said.type == "error" else []))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, requested, complaints


def shows_answer(page: Page, url: str, name: str) -> None:
    """Waits until the page shows the picture NAME.jpg, and what the service says of it."""
    answer = requests.post(f"{url}/predict", data=picture(name), timeout=20).json()
    said = f"{name}.jpg: {answer['label']}, confidence"
    page.get_by_role("status").get_by_text(said).wait_for()
    rows = [f"{c['label']}\t{100 * c['confidence']:.1f} %" for c in answer["top3"]]
    assert page.locator("#top tbody tr").all_inner_texts() == rows
    width = "image => image.decode().then(() => image.naturalWidth)"
    assert page.get_by_alt_text(f"Your picture {name}.jpg").evaluate(width) == 60


@pytest.mark.browser
def test_page_shows_what_the_service_answers(page, url):
    """Choose a picture by keyboard focus, drop another, drop what is none, choose a huge one."""
    page, requested, complaints = page
    page.goto(url)
    page.get_by_text("resnet18, trained on drawn, knows: hat, shirt, t-shirt.").wait_for()
    page.get_by_text("POST /predict:").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"

    file = page.get_by_label("Choose a picture, or drop one here:")
    file.set_input_files({"name": "hat.jpg", "mimeType": "image/jpeg", "buffer": picture("hat")})
    shows_answer(page, url, "hat")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(DROP, [list(picture("shirt")), "shirt.jpg"])
    shows_answer(page, url, "shirt")
    keep_screenshot(page, "serve")
    assert not complaints, complaints  # what follows are refusals, which a browser logs as errors

    page.evaluate(DROP, [list(b"no picture"), "notes.txt"])
    page.get_by_text("image: not a readable image").wait_for()
    assert not page.locator("#top").is_visible() and not page.locator("#picture").is_visible()
    huge = bytes(serve.MAX_BYTES + 1)
    file.set_input_files({"name": "huge.jpg", "mimeType": "image/jpeg", "buffer": huge})
    page.get_by_text(f"Choose a file of at most {serve.MAX_BYTES}").wait_for()
    fetched = {address for address in requested if not address.startswith(("blob:", "data:"))}
    assert fetched == {f"{url}/{path}" for path in ("", "model", "openapi.json", "predict")}
