import http.server
import io
import json
import pickle
import ssl
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from scenery.certificates import Authority
from scenery.faulty_server import FaultyServer
from scenery.forward_proxy import CREDENTIAL, QUOTED, forward_proxy

from helpers.cluster.start import start_cluster
from helpers.images import (
    MIN_SIDE,
    Downloader,
    ImageError,
    UrlExpired,
    decode,
    evaluation_transform,
    shrink,
)

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def encoded(mode: str, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(PIXELS).convert(mode)
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode, format",
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("RGB", "WEBP"),
        ("RGB", "GIF"),
        ("RGB", "BMP"),
    ],
)
def test_every_kind_of_image_comes_out_as_rgb(mode, format):
    data = encoded(mode, format)
    image = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert image.dtype == torch.uint8 and image.shape == (3, 40, 30)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 1


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = decode(encoded("I;16", "PNG"))
    assert grey.dtype == torch.uint8
    assert np.abs(grey[0].numpy().astype(int) - PIXELS[:, :, 0]).max() <= 1


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    assert decode(encoded("RGB", "JPEG", exif=exif)).shape == (3, 30, 40)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "not a readable image"),
        (b"just text", "not a readable image"),
        # a program, which Pillow would hand to Ghostscript
        (encoded("RGB", "EPS"), "not a readable image"),
        (encoded("RGB", "JPEG")[:300], "not a readable image"),
        (encoded("RGB", "JPEG")[:-100], "JPEG image cannot be decoded"),
        (encoded("RGB", "PNG")[:900], "PNG image cannot be decoded"),
    ],
)
def test_broken_images_are_refused_with_a_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_size_limits_name_the_limit():
    with pytest.raises(ImageError, match="over the limit of 1000 pixels"):
        decode(encoded("RGB", "JPEG"), max_pixels=1000)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    with pytest.raises(ImageError, match=f"least side of {MIN_SIDE}"):
        decode(buffer.getvalue())


def test_evaluation_sees_the_centre_or_the_whole():
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, 20:60] = 200
    assert evaluation_transform(image, 16).shape == (3, 16, 16)
    assert evaluation_transform(image, 16).min() == 200
    whole = evaluation_transform(image, 16, "whole")
    assert whole[0, 0, 0] == 0 and whole[0, 0, 8] == 200


def test_shrink_bounds_extreme_shapes():
    assert shrink(torch.zeros(3, 10, 10_000, dtype=torch.uint8), 64).shape == (3, 10, 20)
    assert shrink(torch.zeros(3, 300, 400, dtype=torch.uint8), 150).shape == (3, 150, 200)
    assert shrink(torch.zeros(3, 30, 40, dtype=torch.uint8), 150).shape == (3, 30, 40)


def test_errors_cross_processes_whole():
    error = pickle.loads(pickle.dumps(UrlExpired("refused", 3)))
    assert (type(error), error.reason, error.attempts) == (UrlExpired, "refused", 3)


@pytest.fixture
def photographs(tmp_path):
    for i in range(20):
        (tmp_path / f"{i} ä+%.jpg").write_bytes(encoded("RGB", "JPEG") + bytes(i))
    return tmp_path


@pytest.mark.parametrize(
    "faults",
    [{"busy": 0.5, "busy_status": status} for status in (429, 500, 502, 503, 504)] + [{"cut": 0.5}],
)
def test_errors_that_pass_are_tried_again(photographs, faults):
    names = sorted(path.name for path in photographs.iterdir())
    download = Downloader(attempts=12, backoff_s=0.001)
    with FaultyServer(photographs, **faults) as server:
        answers = [download(url) for url in server.sign(names)]
    assert [data for data, _ in answers] == [(photographs / name).read_bytes() for name in names]
    assert [attempts for _, attempts in answers] == [server.requests[name] for name in names]
    assert sum(server.requests.values()) > 25  # about half of them failed at first


@pytest.mark.parametrize("status", [404, 410, 418])
def test_errors_that_stay_are_not_tried_again(photographs, status):
    refused = pytest.raises(ImageError, match=f"HTTP status {status}")
    with FaultyServer(photographs, busy=1, busy_status=status) as server, refused as caught:
        Downloader()(server.sign(["0 ä+%.jpg"])[0])
    assert caught.value.attempts == 1 == sum(server.requests.values())


def test_giving_up_names_the_last_error_but_not_the_url(photographs):
    with FaultyServer(photographs, busy=1, busy_status=500) as server:
        [url] = server.sign(["0 ä+%.jpg"])
        with pytest.raises(ImageError, match="after 3 attempts: HTTP status 500") as busy:
            Downloader(attempts=3, backoff_s=0.001)(url)
    with pytest.raises(ImageError, match="after 3 attempts: NewConnectionError") as gone:
        Downloader(attempts=3, backoff_s=0.001)(url)  # nobody listens any more
    assert busy.value.attempts == gone.value.attempts == 3
    assert FaultyServer.SECRET not in f"{busy.value!r} {gone.value!r}"


def test_expired_url_is_told_apart_and_not_tried_again(photographs):
    with FaultyServer(photographs, url_seconds=-1) as server, pytest.raises(UrlExpired) as caught:
        Downloader()(server.sign(["0 ä+%.jpg"])[0])
    assert caught.value.attempts == 1 == sum(server.requests.values())


def test_stalled_download_times_out_and_is_tried_again(photographs):
    download = Downloader(timeout_s=0.3, backoff_s=0.001)
    with FaultyServer(photographs, stalled=2) as server:
        data, attempts = download(server.sign(["3 ä+%.jpg"])[0])
        assert attempts == 3 and data == (photographs / "3 ä+%.jpg").read_bytes()
        with pytest.raises(ImageError, match="after 2 attempts: ReadTimeoutError"):
            Downloader(timeout_s=0.3, attempts=2, backoff_s=0.001)(server.sign(["4 ä+%.jpg"])[0])


def test_huge_file_is_refused_with_the_limit(photographs):
    with (
        FaultyServer(photographs) as server,
        pytest.raises(ImageError, match="larger than the limit of 100 bytes"),
    ):
        Downloader(max_bytes=100)(server.sign(["0 ä+%.jpg"])[0])


def test_importing_does_no_work():
    """No network or connector code comes with the decoder."""
    code = "import json, sys, helpers.images; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert {"urllib3", "snowflake"}.isdisjoint(loaded)


def test_an_expired_url_of_google_is_signed_anew_and_another_400_is_not():
    class Google(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (
                b"<Error><Code>ExpiredToken</Code></Error>" if "old" in self.path else b"<Error/>"
            )
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UrlExpired, match=r"refused \(400\)"):
            Downloader()(f"{url}/old")
        with pytest.raises(ImageError, match="HTTP status 400") as other:
            Downloader()(f"{url}/wrong")
        assert not isinstance(other.value, UrlExpired)
        server.shutdown()


PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
FAR = "stage.example.invalid"  # a name that no resolver knows, but the proxy's


@pytest.fixture
def surroundings(monkeypatch):
    """The environment, without any setting of proxies and certificates."""
    for name in (*PROXIES, *map(str.upper, PROXIES), *AUTHORITIES):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def far(photographs):
    """A signed URL of a stage that is reached through a proxy alone, and its server's address."""
    with FaultyServer(photographs) as server:
        (url,) = server.sign(["0 ä+%.jpg"])
        yield url.replace(urlsplit(url).netloc, FAR), ("127.0.0.1", urlsplit(url).port)


@pytest.fixture
def far_with_tls(photographs, tmp_path_factory):
    """The same over TLS, and the folder with the authority that signed its certificate."""
    folder = tmp_path_factory.mktemp("authority")
    certificate, key = Authority(folder).issue("stage")
    subprocess.run(["openssl", "rehash", folder], check=True)  # how OpenSSL finds one in a folder
    with FaultyServer(photographs) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        (url,) = server.sign(["0 ä+%.jpg"])
        yield url.replace("http://", "https://"), ("127.0.0.1", urlsplit(url).port), folder


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_images_come_through_the_proxy_of_the_environment(
    photographs, far, surroundings, name, scheme
):
    url, origin = far
    with forward_proxy(origin, CREDENTIAL) as proxy:
        surroundings.setenv(name, f"{scheme}{QUOTED}@{proxy.address}")
        assert Downloader()(url) == ((photographs / "0 ä+%.jpg").read_bytes(), 1)
        assert proxy.seen == [url]


def test_workers_come_through_the_proxy_as_well(photographs, far, surroundings):
    url, origin = far
    with forward_proxy(origin, CREDENTIAL) as proxy:
        surroundings.setenv("HTTP_PROXY", f"http://{QUOTED}@{proxy.address}")
        with start_cluster("local", n_workers=1) as client:
            fetched = client.submit(lambda url: Downloader()(url), url).result()
        assert fetched[0] == (photographs / "0 ä+%.jpg").read_bytes()
        assert proxy.seen == [url]


def test_a_proxy_that_refuses_is_told_without_its_password_and_the_url(
    far, far_with_tls, surroundings
):
    texts = []
    for url, origin in (far, far_with_tls[:2]):
        with forward_proxy(origin, CREDENTIAL) as proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                surroundings.setenv(name, f"http://jane:not-this-one@{proxy.address}")
            with pytest.raises(ImageError, match=r"407|ProxyError") as caught:
                Downloader(attempts=2, backoff_s=0.001)(url)
            texts.append("".join(traceback.format_exception_only(caught.value)))
    told = " ".join(texts)
    assert not [s for s in ("not-this-one", FaultyServer.SECRET, FAR, "jane") if s in told]


@pytest.mark.parametrize("name", AUTHORITIES)
@pytest.mark.parametrize("through", [True, False])
def test_certificates_of_the_environment_are_trusted(
    photographs, far_with_tls, surroundings, name, through
):
    url, origin, folder = far_with_tls
    with forward_proxy(origin) as proxy:
        if through:
            surroundings.setenv("HTTPS_PROXY", proxy.address)
        with pytest.raises(ImageError, match="after 1 attempts: SSLError"):
            Downloader(attempts=1)(url)
        path = folder if name == "SSL_CERT_DIR" else folder / "authority.pem"
        surroundings.setenv(name, str(path))
        assert Downloader(attempts=1)(url)[0] == (photographs / "0 ä+%.jpg").read_bytes()
        assert len(proxy.seen) == 2 * through


def test_a_folder_of_certificates_is_trusted_and_one_that_is_not_there_is_named(
    far_with_tls, surroundings
):
    url, _, folder = far_with_tls
    surroundings.setenv("REQUESTS_CA_BUNDLE", str(folder))
    Downloader(attempts=1)(url)
    surroundings.setenv("REQUESTS_CA_BUNDLE", str(folder / "gone.pem"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pem.*REQUESTS_CA_BUNDLE"):
        Downloader()


@pytest.mark.parametrize(
    "no_proxy, host, direct",
    [
        ("", FAR, False),
        (FAR, FAR, True),
        (FAR, f"{FAR}:8080", True),
        ("other.invalid, example.invalid", FAR, True),
        (".example.invalid", FAR, True),
        ("xample.invalid", FAR, False),
        (f"{FAR}.org", FAR, False),
        (f"{FAR}:8080", f"{FAR}:8080", True),
        (f"{FAR}:8081", f"{FAR}:8080", False),
        ("127.0.0.1", "127.0.0.1:9", True),
        ("127.0.0.1:9", "127.0.0.1:9", True),
        ("127.0.0.1:8", "127.0.0.1:9", False),
        ("x127.0.0.1x", "127.0.0.1:9", False),
        ("127.0.0.0/8", "127.0.0.1:9", True),
        ("10.0.0.0/8", "127.0.0.1:9", False),
        ("::1", "[::1]:9", True),
        ("[::1]", "[::1]:9", True),
        ("[::1]:9", "[::1]:9", True),
        ("[::1]:8", "[::1]:9", False),
        ("::2", "[::1]:9", False),
        ("*", FAR, True),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_no_proxy_names_is_fetched_directly(far, surroundings, name, no_proxy, host, direct):
    url, origin = far
    with forward_proxy(origin) as proxy:
        surroundings.setenv("http_proxy", f"http://{proxy.address}")
        surroundings.setenv(name, no_proxy)
        with suppress(ImageError):  # nobody is there to answer a direct one
            Downloader(timeout_s=2, attempts=1)(url.replace(FAR, host))
        assert bool(proxy.seen) is not direct
