"""An image server that misbehaves on demand: signed URLs, with errors, cuts and expiry."""

import hashlib
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit


class FaultyServer:
    """Serves `folder` on a free port of the loopback interface; use as a context manager.

    busy, cut: shares (0 to 1) of the requests that are answered with `busy_status`, or cut off
    half-way. Which ones is drawn from the path and the number of the request for it, so that two
    runs meet the same faults. stalled: how many requests for each path send half of the body and
    then nothing until the server ends.
    """

    SECRET = "signature-that-must-not-leak"

    def __init__(
        self,
        folder: Path,
        busy: float = 0,
        cut: float = 0,
        url_seconds: float = 3600,
        delay_s: float = 0,
        busy_status: int = 503,
        stalled: int = 0,
    ):
        self.folder = folder
        self.busy = busy
        self.cut = cut
        self.url_seconds = url_seconds
        self.delay_s = delay_s
        self.busy_status = busy_status
        self.stalled = stalled
        self.requests = Counter()  # by path
        self.statuses = Counter()  # by HTTP status, and "cut"
        self.signed = 0
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def sign(self, paths: list[str]) -> list[str]:
        self.signed += len(paths)
        expires = time.time() + self.url_seconds
        base = f"http://127.0.0.1:{self._server.server_address[1]}"
        return [f"{base}/{quote(path)}?expires={expires}&signature={self.SECRET}" for path in paths]

    def answer(self, path: str, expires: float) -> tuple[int, bytes, int]:
        """Status, body, and how many bytes of the body to send."""
        self.requests[path] += 1
        if time.time() > expires:
            return 403, b"expired", 7
        seed = hashlib.sha256(f"{path} {self.requests[path]}".encode()).digest()
        drawn = random.Random(seed).random()
        if drawn < self.busy:
            return self.busy_status, b"busy", 4
        file = self.folder / path
        if not file.is_file():
            return 404, b"", 0
        body = file.read_bytes()
        if self.requests[path] <= self.stalled or drawn < self.busy + self.cut:
            return 200, body, len(body) // 2
        return 200, body, len(body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                time.sleep(server.delay_s)
                expires = float(parse_qs(parts.query)["expires"][0])
                status, body, sent = server.answer(unquote(parts.path).lstrip("/"), expires)
                server.statuses[status if sent == len(body) else "cut"] += 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:sent])
                if sent < len(body) and server.stalled:
                    self.wfile.flush()
                    server._ended.wait(60)
                self.close_connection = sent < len(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler
