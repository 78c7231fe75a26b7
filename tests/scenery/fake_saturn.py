"""Saturn Cloud's HTTP interface, as far as dask-saturn calls it, before real Dask processes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from scenery.certificates import Authority
from scenery.remote_cluster import RemoteCluster

ROOT = "/api/dask_clusters"
ID = "c1"
DEFAULT_WORKERS = 1  # what the recipe of the resource says


class FakeSaturn:
    """One resource's Dask cluster.

    authority: signs the certificates of clients outside of Saturn Cloud.
    """

    def __init__(self, cluster: RemoteCluster, token: str, authority: Authority | None = None):
        self.cluster = cluster
        self.token = token
        self.authority = authority
        self.pending = 0  # how often it answers that it is starting
        self.error = ""  # what is wrong with the resource
        self.machines = 4  # for workers
        self.refused: set[str] = set()  # calls that fail
        self.closing = {f"POST {ROOT}/{ID}/close"}  # calls that stop the cluster
        self.calls: list[str] = []  # method and path of all requests
        handler = type("Handler", (_Handler,), {"saturn": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.cluster.close()

    def answer(self, call: str, body: bytes) -> tuple[int, object]:
        """Status and content; bytes are sent as they are."""
        if call in self.refused:
            return 500, {"message": f"{call} failed"}
        if call == f"POST {ROOT}":
            return 200, self._start(json.loads(body))
        if call == f"POST {ROOT}/{ID}/csr":
            return 200, self._signed(body)
        if call == f"POST {ROOT}/{ID}/scale":
            self.cluster.scale(min(json.loads(body)["n"], self.machines))
        if call in self.closing:
            self.cluster.close()
            return 200, {}
        answers = self._answers()
        if call not in answers:
            return 404, {"message": f"there is no {call}"}
        return 200, answers[call]

    def _answers(self) -> dict[str, dict]:
        """Of the calls that always have the same."""
        sizes = [{"name": "large", "display": "Large"}]
        links = {
            "dashboard_link": self.cluster.dashboard,
            "scheduler_address": self.cluster.address,
        }
        status = "running" if self.cluster.scheduler else "closed"
        return {
            f"GET {ROOT}/info": {"server_options": {"size": sizes}},
            f"GET {ROOT}/{ID}/info": links,
            f"GET {ROOT}/{ID}/status": {"status": status},
            f"POST {ROOT}/{ID}/scale": {},
        }

    def _start(self, asked: dict) -> dict:
        if self.error:
            return {"status": "error", "errors": [self.error]}
        if self.pending:
            self.pending -= 1
            return {"status": "pending", "id": ID}
        if self.cluster.scheduler is None:
            self.cluster.start(min(asked.get("n_workers", DEFAULT_WORKERS), self.machines))
        return {"status": "ready", "id": ID}

    def _signed(self, body: bytes) -> bytes:
        assert self.authority, "a client came from outside of Saturn Cloud"
        request = x509.load_pem_x509_csr(body)
        certificate = self.authority.sign(request.subject, request.public_key())
        return self.authority.pem(certificate) + self.authority.pem(self.authority.certificate)


class _Handler(BaseHTTPRequestHandler):
    saturn: FakeSaturn

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = f"{self.command} {self.path.partition('?')[0].rstrip('/')}"
        self.saturn.calls.append(call)
        if self.headers["Authorization"] == f"token {self.saturn.token}":
            status, content = self.saturn.answer(call, body)
        else:
            status, content = 401, {"message": "the token is not valid"}
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = _answer
    do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
