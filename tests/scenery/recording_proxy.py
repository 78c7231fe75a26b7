"""A server before the stand-in that notes each request, and may answer or break one itself."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standin.lifecycle import DIRECT, Server
from standin.serve import PASSWORD

DROP = "drop"  # what a fault returns to close the connection without an answer
LOST = "lost"  # … to hand the request on, and close the connection before the answer


@dataclass
class Proxy:
    """What arrives on the way to the stand-in, and what may go wrong there."""

    server: Server
    port: int = 0
    requests: list[tuple[str, dict]] = field(default_factory=list)
    # the Authorization of each statement, which tells its session
    tokens: list[str] = field(default_factory=list)
    # sees path and body of each request first: None lets it pass, a dict is the answer,
    # DROP and LOST break it
    fault: Callable[[str, dict], dict | str | None] = lambda path, body: None

    def logins(self) -> list[dict]:
        """What each log-in sent."""
        return [body["data"] for body in self._bodies("/session/v1/login-request")]

    def statements(self) -> list[str]:
        """The text of each statement, in order, as often as it was sent."""
        return [body["sqlText"] for body in self._bodies("/queries/v1/query-request")]

    def _bodies(self, start: str) -> list[dict]:
        return [body for path, body in self.requests if path.startswith(start)]


class Handler(BaseHTTPRequestHandler):
    """Hands each request on to the stand-in, unless the proxy's fault comes before."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy  # given by a subclass

    def do_POST(self) -> None:
        """Every request of a connector is one."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        text = gzip.decompress(raw) if zipped else raw
        body = json.loads(text) if text.strip() else {}
        self.proxy.requests.append((self.path, body))
        if "query-request" in self.path:
            self.proxy.tokens.append(self.headers["Authorization"])
        content = self._answer(raw, body)
        if content is None:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, raw: bytes, body: dict) -> bytes | None:
        """What goes back; None for nothing, with which the connection is closed."""
        fault = self.proxy.fault(self.path, body)
        if isinstance(fault, dict):
            return json.dumps(fault).encode()
        if fault == DROP:
            return None
        if "login-request" in self.path:  # an account that takes every log-in
            secret = (self.proxy.server.root / PASSWORD).read_text()
            raw = json.dumps(body | {"data": body["data"] | {"PASSWORD": secret}}).encode()
            del self.headers["Content-Encoding"]
        content = self._handed_on(raw)
        return None if fault == LOST else content

    def _handed_on(self, raw: bytes) -> bytes | None:
        own = ("host", "content-length", "connection")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        headers["Accept-Encoding"] = "identity"
        server = self.proxy.server
        url = f"http://{server.host}:{server.port}{self.path}"
        request = urllib.request.Request(url, raw, headers, method="POST")
        try:
            with DIRECT.open(request, timeout=60) as response:
                return response.read()
        except OSError:  # the stand-in has gone
            return None

    def log_message(self, format: str, *args: object) -> None:
        """Tests print nothing."""


@contextmanager
def recording_proxy(server: Server) -> Generator[Proxy, None, None]:
    """Serves until the block ends. `logins` and `statements` of what it gives tell what arrived."""
    proxy = Proxy(server)
    handler = type("ProxyHandler", (Handler,), {"proxy": proxy})
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listener.daemon_threads = True
    proxy.port = listener.server_port
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
