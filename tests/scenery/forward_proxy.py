"""A forward proxy on loopback, such as a company's: absolute requests, CONNECT, and a password."""

import base64
import http.client
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CREDENTIAL = "jane:p@ss/word"
QUOTED = "jane:p%40ss%2Fword"  # as it stands in a URL


class ForwardProxy(ThreadingHTTPServer):
    """Hands on what clients send: all of it to `origin`, whose names no resolver knows."""

    daemon_threads = True

    def __init__(self, origin: tuple[str, int], credential: str = ""):
        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = origin
        self.credential = credential
        self.seen: list[str] = []  # what was asked for: URLs, and host:port of tunnels

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request, or one tunnel."""

    server: ForwardProxy
    protocol_version = "HTTP/1.1"

    def refused(self) -> bool:
        """Notes what is asked for; whether it was answered with 407."""
        self.server.seen.append(self.path)
        wanted = "Basic " + base64.b64encode(self.server.credential.encode()).decode()
        if self.server.credential and self.headers.get("Proxy-Authorization") != wanted:
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True
        return False

    def do_GET(self) -> None:
        if self.refused():
            return
        parts = urlsplit(self.path)
        origin = http.client.HTTPConnection(*self.server.origin)
        origin.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        answer = origin.getresponse()
        body = answer.read()
        origin.close()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        if self.refused():
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(self.server.origin) as origin:
            other = {origin: self.connection, self.connection: origin}
            while True:
                for side in select.select(list(other), [], [], 30)[0]:
                    data = side.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    other[side].sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def forward_proxy(origin: tuple[str, int], credential: str = "") -> Iterator[ForwardProxy]:
    with ForwardProxy(origin, credential) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        yield proxy
        proxy.shutdown()
