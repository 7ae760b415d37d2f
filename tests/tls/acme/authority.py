"""An authority whose every answer a test can change.  It believes every claim, so that nobody has to prove anything."""

import base64
import datetime
import http.server
import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from otun.tls.acme import AcmeSettings

LIFETIME: Final = datetime.timedelta(days=90)

_KEY: Final = ec.generate_private_key(ec.SECP256R1())


def issue(name: str, key: ec.EllipticCurvePublicKey, *, age: datetime.timedelta = datetime.timedelta()) -> bytes:
    """A certificate for *name*, which has begun to be valid *age* ago."""
    start = datetime.datetime.now(datetime.UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
    )
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@attrs.frozen
class Reply:
    """An answer, in JSON unless it is bytes."""

    status: int
    body: object = b""
    headers: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def problem(cls, status: int, code: str, detail: str, **headers: str) -> "Reply":
        body = {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}
        return cls(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@attrs.define(eq=False)
class Authority:
    """*replies* has the answers that are not the usual ones, by path: used up one by one, the last one stays.

    What belongs to an order has its number behind the path, as in ``/finalize?3``; a reply may depend on it.
    """

    url: str
    ca: Path
    replies: dict[str, list[Reply | Callable[[int], Reply]]] = attrs.field(factory=dict)
    requests: list[str] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)
    certificates: dict[int, bytes] = attrs.field(factory=dict)
    nonces: Iterator[int] = attrs.field(factory=itertools.count)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @property
    def directory(self) -> str:
        return f"{self.url}/directory"

    def settings(self, **changes: object) -> AcmeSettings:
        return AcmeSettings(**({"directory": self.directory, "ca": self.ca} | changes))

    def count(self, path: str) -> int:
        return self.requests.count(path)

    def answer(self, target: str, payload: dict[str, object]) -> Reply:
        path, _, text = target.partition("?")
        number = int(text or 0)
        with self._lock:
            self.requests.append(path)
            planned = self.replies.get(path)
            reply = None if not planned else planned.pop(0) if len(planned) > 1 else planned[0]
            if reply is None:
                return self._usual(path, number, payload)
        return reply(number) if callable(reply) else reply

    def _usual(self, path: str, number: int, payload: dict[str, object]) -> Reply:
        match path:
            case "/directory":
                urls = {"newNonce": "nonce", "newAccount": "account", "newOrder": "new-order"}
                return Reply(200, {name: f"{self.url}/{place}" for name, place in urls.items()})
            case "/account":
                return Reply(201, {"status": "valid"}, {"Location": f"{self.url}/account/1"})
            case "/new-order":
                self.names.append(payload["identifiers"][0]["value"])  # type: ignore[index]
                number = len(self.names) - 1
                return Reply(201, self.order("pending", number), {"Location": f"{self.url}/order?{number}"})
            case "/order":
                return Reply(200, self.order("valid" if number in self.certificates else "ready", number))
            case "/authorization":
                return Reply(200, {"status": "valid", "challenges": []})
            case "/finalize":
                der = base64.urlsafe_b64decode(str(payload["csr"]) + "==")
                key = x509.load_der_x509_csr(der).public_key()
                assert isinstance(key, ec.EllipticCurvePublicKey)
                self.certificates[number] = issue(self.names[number], key)
                return Reply(200, self.order("processing", number))
            case "/certificate":
                return Reply(200, self.certificates[number])
        return Reply(200)

    def order(self, status: str, number: int) -> dict[str, object]:
        """An order as JSON."""
        certificate = {"certificate": f"{self.url}/certificate?{number}"} if status == "valid" else {}
        return {
            "status": status,
            "identifiers": [{"type": "dns", "value": self.names[number]}],
            "authorizations": [f"{self.url}/authorization?{number}"],
            "finalize": f"{self.url}/finalize?{number}",
        } | certificate


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # An answer leaves whole.
    authority: Authority

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        signed = json.loads(self.rfile.read(size) or "{}")
        payload = base64.urlsafe_b64decode(signed.get("payload", "") + "==")
        authority = self.authority
        reply = authority.answer(self.path, json.loads(payload or "{}"))
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        kind = "application/json" if reply.status < 400 else "application/problem+json"
        nonce = base64.urlsafe_b64encode(b"nonce%010d" % next(authority.nonces)).decode().rstrip("=")
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Replay-Nonce": nonce}
        self.send_response(reply.status)
        for name, value in (headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever went away in the middle."""


@contextmanager
def open_authority(folder: Path) -> Iterator[Authority]:
    """Run an authority at a free port."""
    root = trustme.CA()
    root.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("localhost").configure_cert(context)
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        handler.authority = Authority(f"https://localhost:{server.server_address[1]}", folder / "ca.pem")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield handler.authority
        finally:
            server.shutdown()
            thread.join()
