"""A server before the stand-in that notes each request, and may answer or break one itself."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standin.lifecycle import DIRECT, Server

DROP = "drop"  # what a fault returns to close the connection without an answer
LOST = "lost"  # … to hand the request on, and close the connection before the answer


@dataclass
class Proxy:
    """`fault(path, body)` sees each request first: None lets it pass, a dict is the answer, DROP and LOST break it."""

    server: Server
    port: int = 0
    requests: list[tuple[str, dict]] = field(default_factory=list)
    tokens: list[str] = field(
        default_factory=list
    )  # the Authorization of each statement, which tells its session
    fault: Callable[[str, dict], dict | str | None] = lambda path, body: None

    def logins(self) -> list[dict]:
        """What each log-in sent."""
        return [
            body["data"]
            for path, body in self.requests
            if path.startswith("/session/v1/login-request")
        ]

    def statements(self) -> list[str]:
        """The text of each statement, in order, as often as it was sent."""
        return [
            body["sqlText"]
            for path, body in self.requests
            if path.startswith("/queries/v1/query-request")
        ]


@contextmanager
def recording_proxy(server: Server) -> Iterator[Proxy]:
    """Serves until the block ends. `logins` and `statements` of what it gives tell what arrived."""
    proxy = Proxy(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
            parsed = json.loads(body) if body.strip() else {}
            proxy.requests.append((self.path, parsed))
            if "query-request" in self.path:
                proxy.tokens.append(self.headers["Authorization"])
            answer = proxy.fault(self.path, parsed)
            if answer != DROP and not isinstance(answer, dict):
                answer = self._handed_on(raw) if answer is None else self._handed_on(raw) and DROP
            if answer == DROP:
                self.close_connection = True
                return
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _handed_on(self, raw: bytes) -> bytes | str:
            headers = {
                k: v
                for k, v in self.headers.items()
                if k.lower() not in ("host", "content-length", "connection")
            }
            headers["Accept-Encoding"] = "identity"
            url = f"http://{server.host}:{server.port}{self.path}"
            try:
                with DIRECT.open(
                    urllib.request.Request(url, raw, headers, method="POST"), timeout=60
                ) as response:
                    return response.read()
            except OSError:  # the stand-in has gone
                return DROP

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy.port = listener.server_port
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
