"""Saturn Cloud's HTTP interface, as far as dask-saturn calls it, in front of real Dask processes."""

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

    pending: how often it answers that it is starting. error: what is wrong with the resource. machines: for workers.
    authority: signs the certificates of clients outside of Saturn Cloud. refused: calls that fail. calls: method and
    path of all requests.
    """

    def __init__(self, cluster: RemoteCluster, token: str, authority: Authority | None = None):
        self.cluster, self.token, self.authority = cluster, token, authority
        self.pending, self.error, self.machines, self.refused = 0, "", 4, set()
        self.calls: list[str] = []
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
        if call == f"POST {ROOT}/{ID}/close":
            self.cluster.close()
        status = "running" if self.cluster.scheduler else "closed"
        answers = {
            f"GET {ROOT}/info": {
                "server_options": {"size": [{"name": "large", "display": "Large"}]}
            },
            f"GET {ROOT}/{ID}/info": {
                "dashboard_link": self.cluster.dashboard,
                "scheduler_address": self.cluster.address,
            },
            f"GET {ROOT}/{ID}/status": {"status": status},
            f"POST {ROOT}/{ID}/scale": {},
            f"POST {ROOT}/{ID}/close": {},
        }
        return (
            (200, answers[call]) if call in answers else (404, {"message": f"there is no {call}"})
        )

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
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *_) -> None:
        """Quiet."""
