"""HTTPS with programs that are in use: curl, `openssl s_client`, nginx and a browser."""

import base64
import hashlib
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from otun import TcpAddress, TunnelSettings
from otun.addresses import LocalTarget
from otun.tls.contexts import CertificateFiles
from otun.tls.trust import Trust

from ..client.support import forward_until_end
from ..server.certificates import fetch_tls
from ..server.harness import LOOPBACK, RunningServer, loopback_settings, run_server
from ..server.services import response, start_service
from ..tls.issuing import Authority, in_days
from .conftest import lack
from .http_peers import Origin, head
from .support import LIMIT, Program, Start, blocks, connect
from .tenants import DOMAIN, host
from .test_browser import FLAGS
from .websocket_peers import WebSocket, echo

pytestmark = pytest.mark.interop

NAME: Final = host("one")
LARGE: Final = 20_000_000

NGINX: Final = """\
daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 512; }}
http {{
    access_log off; keepalive_timeout 600s;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    client_max_body_size 100k;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    server {{ listen 127.0.0.1:{ports[0]} ssl; root {root}; add_header X-Seen "$host $ssl_server_name"; }}
    server {{
        listen 127.0.0.1:{ports[1]} ssl proxy_protocol; root {root}; add_header X-Seen $proxy_protocol_addr;
    }}
}}
"""


@attrs.frozen
class Edge:
    """A server with HTTPS in this process, and programs that visit it."""

    server: RunningServer
    authority: Authority
    files: CertificateFiles
    start: Start
    nursery: trio.Nursery

    @property
    def port(self) -> int:
        return self.server.https.port

    async def open(self, name: str, serve: Callable[[Origin], object]) -> None:
        """Open a tunnel to a local service that calls *serve* for each connection."""

        async def handle(connection: trio.abc.HalfCloseableStream) -> None:
            assert isinstance(connection, trio.SocketStream)
            await serve(Origin(connection))  # type: ignore[misc]

        service = await start_service(self.nursery, handle)
        await self.forward(service.address, name=name)

    async def forward(self, local: TcpAddress | LocalTarget, **options: object) -> None:
        await self.nursery.start(partial(forward_until_end, self.server.control, local, **options))

    async def curl(self, *words: str | Path, target: str = "/", name: str = NAME) -> Program:
        """Run curl to its end.  It prints the status behind the body; its standard error has the conversation."""
        ports = {self.port, self.server.public.port}
        addresses = [word for port in ports for word in ("--resolve", f"{name}:{port}:127.0.0.1")]
        program = await self.start(
            "curl", "-sv", "-w", "\\n%{http_code}\\n", "--max-time", str(LIMIT), "--cacert", self.authority.path,
            *addresses, *words, f"https://{name}:{self.port}{target}",
        )  # fmt: skip
        await program.wait_for_end()
        return program

    async def s_client(self, *words: str | Path) -> Program:
        """Connect with OpenSSL's own client, which has nothing to say."""
        program = await self.start(
            "openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.authority.path, *words
        )  # fmt: skip
        await program.wait_for_end()
        return program


@pytest.fixture
async def edge(
    nursery: trio.Nursery, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Edge]:
    """A server with a certificate for the tunnels' names, which sends visitors to HTTPS for good."""
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            lack(f"{program} is not installed")
    authority = Authority(tmp_path)
    files = authority.certify(f"*.{DOMAIN}", ends=in_days(90))
    settings = loopback_settings(domain=DOMAIN, https=LOOPBACK, certificates=(files,), hsts=3600)
    yield Edge(await run_server(nursery, settings), authority, files, start, nursery)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def answer_by_digest(origin: Origin) -> None:
    """Answer each request with what has come: its target, the SHA-256 of its body."""
    while (asked := await origin.receive_request()) is not None:
        digest = hashlib.sha256()
        while piece := await origin.receive_body_piece():
            digest.update(piece)
        await origin.send(response(f"{asked.method} {asked.target} {digest.hexdigest()}".encode()))


# curl


async def test_curl_believes_the_certificate_and_gets_its_answer(edge: Edge) -> None:
    await edge.open("one", answer_by_digest)
    program = await edge.curl(target="/x?y")
    assert program.output[0].startswith("GET /x?y ")
    assert program.output[1] == "200"
    conversation = "\n".join(program.errors).lower()
    assert "ssl certificate verify ok" in conversation
    assert conversation.count("< strict-transport-security: max-age=3600") == 1


async def test_curl_sends_and_receives_large_bodies(edge: Edge, tmp_path: Path) -> None:
    data = b"".join(blocks(LARGE))
    (tmp_path / "sent").write_bytes(data)

    async def echo_body(origin: Origin) -> None:
        while (await origin.receive_request()) is not None:
            body = await origin.receive_body()
            await origin.send(response(body))

    await edge.open("one", echo_body)
    for words in (["-T", tmp_path / "sent"], ["-T", tmp_path / "sent", "-H", "Transfer-Encoding: chunked"]):
        program = await edge.curl(*words, "-o", tmp_path / "received")
        assert program.output[-1] == "200"
        assert (tmp_path / "received").read_bytes() == data


async def test_curl_follows_the_redirect_with_its_body(edge: Edge) -> None:
    await edge.open("one", answer_by_digest)
    program = await edge.start(
        "curl", "-s", "-w", "\\n", "-L", "-d", "a=b", "--cacert", edge.authority.path, "--max-time", str(LIMIT),
        "--resolve", f"{NAME}:{edge.port}:127.0.0.1", "--resolve", f"{NAME}:{edge.server.public.port}:127.0.0.1",
        f"http://{NAME}:{edge.server.public.port}/form?x",
    )  # fmt: skip
    await program.wait_for_success()
    assert program.output == [f"POST /form?x {hashlib.sha256(b'a=b').hexdigest()}"]


async def test_curl_is_told_that_the_port_speaks_https(edge: Edge) -> None:
    program = await edge.start("curl", "-s", f"http://127.0.0.1:{edge.port}/")
    await program.wait_for_success()
    assert any("https://" in line for line in program.output)


@pytest.mark.parametrize(
    ("words", "name", "said"),
    [
        (["--cacert", "/etc/ssl/certs/ca-certificates.crt"], NAME, "certificate"),
        ([], f"a.b.{DOMAIN}", "does not match"),
        (["--tls-max", "1.1", "--tlsv1.1", "--ciphers", "DEFAULT@SECLEVEL=0"], NAME, "protocol version"),
    ],
    ids=["another authority", "another name", "an old version"],
)
async def test_curl_says_what_it_does_not_like(edge: Edge, words: list[str], name: str, said: str) -> None:
    program = await edge.curl(*words, name=name)
    assert program.process.returncode
    assert said in "\n".join(program.errors)


# openssl s_client


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_s_client_finds_nothing_to_complain_of(edge: Edge, version: str) -> None:
    program = await edge.s_client("-servername", NAME, "-verify_hostname", NAME, "-verify_return_error", version)
    printed = "\n".join(program.output)
    assert program.process.returncode == 0
    assert "Verify return code: 0 (ok)" in printed
    assert "Compression: NONE" in printed
    if version == "-tls1_2":
        assert "Secure Renegotiation IS supported" in printed
        assert "Cipher is ECDHE-" in printed


@pytest.mark.parametrize("words", [["-noservername"], ["-servername", "unknown.example"], ["-alpn", "h2"]])
async def test_s_client_is_shown_the_certificate_whatever_it_asks_for(edge: Edge, words: list[str]) -> None:
    program = await edge.s_client(*words, "-verify_return_error")
    assert program.process.returncode == 0
    assert any("Verify return code: 0 (ok)" in line for line in program.output)


async def test_s_client_resumes_a_session_of_tls_1_2(edge: Edge, tmp_path: Path) -> None:
    await edge.s_client("-servername", NAME, "-tls1_2", "-sess_out", tmp_path / "session")
    program = await edge.s_client("-servername", NAME, "-tls1_2", "-sess_in", tmp_path / "session")
    assert any(line.startswith("Reused, TLSv1.2") for line in program.output)


@pytest.mark.parametrize("words", [["-cipher", "AES128-SHA"], ["-cipher", "ECDHE-RSA-AES128-SHA256"]], ids=" ".join)
async def test_s_client_gets_no_weak_cipher(edge: Edge, words: list[str]) -> None:
    program = await edge.s_client("-servername", NAME, "-tls1_2", *words)
    assert program.process.returncode
    assert "handshake failure" in "\n".join(program.errors)


# nginx with TLS


@attrs.frozen
class Nginx:
    """nginx with a key of its own: a port as it is, and one that wants a PROXY header."""

    ports: tuple[int, int]
    authority: Authority
    large: bytes


@pytest.fixture
async def nginx(start: Start, free_port: Callable[[], int], tmp_path: Path) -> Nginx:
    executable = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        lack("nginx is not installed (nginx-light)")
    folder = tmp_path / "nginx"
    (folder / "root").mkdir(parents=True)
    authority = Authority(folder)
    files = authority.certify("localhost", host("own"))
    large = b"".join(blocks(LARGE))
    (folder / "root" / "large").write_bytes(large)
    (folder / "root" / "small").write_bytes(b"small")
    ports = (free_port(), free_port())
    text = NGINX.format(certificate=files.certificate, key=files.key, ports=ports, root=folder / "root")
    (folder / "nginx.conf").write_text(text)
    await start(executable, "-p", folder, "-c", "nginx.conf", "-e", "stderr")
    for port in ports:
        await (await connect(port)).aclose()
    return Nginx(ports, authority, large)


async def test_tls_passes_through_to_nginx(edge: Edge, nginx: Nginx, tmp_path: Path) -> None:
    settings = TunnelSettings(name="own", kind="tls")
    await edge.forward(TcpAddress("127.0.0.1", nginx.ports[0]), settings=settings)
    authority = ("--cacert", nginx.authority.path)
    program = await edge.curl(*authority, "-o", tmp_path / "received", target="/large", name=host("own"))
    assert program.output[-1] == "200"
    assert (tmp_path / "received").read_bytes() == nginx.large
    assert f"< X-Seen: {host('own')} {host('own')}" in [line.strip() for line in program.errors]
    assert not any("strict-transport-security" in line.lower() for line in program.errors)
    refused = await edge.curl(target="/small", name=host("own"))  # The server's own authority knows nothing of it.
    assert refused.process.returncode == 60


async def test_nginx_learns_the_visitors_address_before_tls(edge: Edge, nginx: Nginx) -> None:
    settings = TunnelSettings(name="own", kind="tls")
    await edge.forward(TcpAddress("127.0.0.1", nginx.ports[1]), settings=settings, proxy_protocol=True)
    local = LocalTarget(TcpAddress("localhost", nginx.ports[1]), is_encrypted=True)
    await edge.forward(local, name="one", local_trust=Trust(ca=nginx.authority.path), proxy_protocol=True)
    for name, authority in (("own", nginx.authority), ("one", edge.authority)):
        context = authority.client_context()
        answer = await fetch_tls(edge.server.https, context, "/small", name=host(name), host=host(name))
        assert (answer.text, answer.fields["X-Seen"]) == ("small", "127.0.0.1")


async def test_nginx_is_a_local_service_that_speaks_tls(edge: Edge, nginx: Nginx, tmp_path: Path) -> None:
    local = LocalTarget(TcpAddress("localhost", nginx.ports[0]), is_encrypted=True)
    await edge.forward(
        local,
        settings=TunnelSettings(name="one", host_header=f"localhost:{nginx.ports[0]}"),
        local_trust=Trust(ca=nginx.authority.path),
    )
    program = await edge.curl("-o", tmp_path / "received", target="/large")
    assert (tmp_path / "received").read_bytes() == nginx.large
    assert "< X-Seen: localhost localhost" in [line.strip() for line in program.errors]
    (tmp_path / "sent").write_bytes(bytes(LARGE))
    assert (await edge.curl("-T", tmp_path / "sent", target="/small")).output[-1] == "413"
    assert (await edge.curl("-I", target="/small")).output[-1] == "200"


async def test_nginx_is_refused_with_a_hint_unless_it_is_believed(edge: Edge, nginx: Nginx) -> None:
    local = LocalTarget(TcpAddress("localhost", nginx.ports[0]), is_encrypted=True)
    await edge.forward(local, name="one")
    program = await edge.curl(target="/small")
    assert program.output[-1] == "502"
    assert any("--local-ca" in line for line in program.output)
    await edge.forward(local, name="blind", local_trust=Trust(is_blind=True))
    assert "small" in (await edge.curl(target="/small", name=host("blind"))).output


# A browser

PAGE: Final = """\
<!doctype html>
<meta charset="utf-8">
<title>one</title>
<script>
const site = location.origin;

function converse() {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket(site.replace("https:", "wss:") + "/socket");
        socket.onopen = () => socket.send("hello");
        socket.onmessage = event => { resolve(event.data); socket.close(1000, "bye"); };
        socket.onerror = () => reject(new Error("no socket"));
    });
}

function listen() {
    return new Promise((resolve, reject) => {
        const events = [], source = new EventSource("/events");
        source.onmessage = event => {
            events.push(event.data);
            if (events.length == 3) { source.close(); resolve(events); }
        };
        source.onerror = () => reject(new Error("no events"));
    });
}

async function look() {
    const texts = Array.from({length: 30}, async (_, number) => (await fetch(`/${number}`)).text());
    const posted = await fetch("/posted", {method: "POST", body: "x".repeat(300000)});
    return {
        origin: site, secure: isSecureContext, socket: await converse(), events: await listen(),
        texts: await Promise.all(texts), posted: await posted.text(),
    };
}

window.onload = async () => {
    const report = await look().catch(error => ({error: String(error)}));
    await fetch("/report", {method: "POST", body: JSON.stringify(report)});
};
</script>
"""


def key_hash(files: CertificateFiles) -> str:
    """The hash of a certificate's key, by which a browser can be told to believe it."""
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


async def test_a_browser_uses_everything_over_https(edge: Edge, tmp_path: Path) -> None:
    executable = shutil.which("chromium")
    if executable is None:
        lack("chromium is not installed")
    reports: list[dict[str, object]] = []
    has_reported = trio.Event()

    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert asked.fields["x-forwarded-proto"] == "https"
            if asked.target == "/socket":
                fields = [f"{field}: {value}" for field, value in asked.fields.items()]
                received = head("GET /socket HTTP/1.1", *fields) + origin.leave_http()
                await echo(await WebSocket.accept(origin.stream, received=received))
                return
            body = await origin.receive_body()
            match asked.target:
                case "/":
                    await origin.send(response(PAGE.encode(), "Content-Type: text/html"))
                case "/events":
                    await origin.send(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream"))
                    for number in range(3):
                        await origin.send(f"data: {number}\n\n".encode())
                    return
                case "/posted":
                    await origin.send(response(b"%d" % len(body)))
                case "/report":
                    reports.append(json.loads(body))
                    await origin.send(response())
                    has_reported.set()
                case _:
                    await origin.send(response(asked.target.encode()))

    await edge.open("one", serve)
    browser = await edge.start(
        executable,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={key_hash(edge.files)}",
        f"http://{NAME}:{edge.server.public.port}/",  # It is redirected.
    )

    async def fail_when_it_ends() -> None:
        status = await browser.wait_for_end(limit=None)
        pytest.fail(f"chromium has ended with {status}: {os.linesep.join(browser.errors)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_when_it_ends)
        with trio.fail_after(LIMIT):
            await has_reported.wait()
        nursery.cancel_scope.cancel()
    assert reports == [
        {
            "origin": f"https://{NAME}:{edge.port}",
            "secure": True,
            "socket": "hello",
            "events": ["0", "1", "2"],
            "texts": [f"/{number}" for number in range(30)],
            "posted": "300000",
        }
    ]
