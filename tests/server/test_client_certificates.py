"""Certificates that clients must show, and those that the server shows, also when their files change."""

import socket
import ssl
from pathlib import Path

import attrs
import pytest
import trio

from otun import (
    CertificateFiles,
    ConfigurationError,
    Fingerprint,
    ServerNotTrusted,
    ServerUnreachable,
    TcpAddress,
    Trust,
    open_tunnel,
)
from otun.tls.certificates import CertificateStore

from ..tls.issuing import Authority, certificate_of, fingerprint_of
from .fixtures import StartServer
from .harness import RunningServer, loopback_settings
from .log_lines import LogLines
from .raw_client import raw_client
from .tls_client import (
    TLS_1_2,
    TLS_REQUIRED,
    connect_tls,
    context_for,
    fail_to_start,
    fetch_https,
    see_refusal,
)
from .visitors import fetch


@pytest.fixture
async def closed_server(start_server: StartServer, authority: Authority) -> RunningServer:
    """A server that takes clients with certificates of the authority's only."""
    return await start_server(certificates=(authority.issue("127.0.0.1"),), client_ca=authority.path)


async def test_a_client_shows_its_certificate(closed_server: RunningServer, authority: Authority) -> None:
    trust = Trust(ca=authority.path, certificate=authority.issue("client.example"))
    async with open_tunnel(closed_server.control, name="app", trust=trust) as tunnel:
        assert tunnel.name == "app"


CERTIFICATES = {
    "none": ("it showed no certificate", "certificate required"),
    "of another authority": ("unable to get local issuer certificate", "unknown ca"),
    "expired": ("certificate has expired", "certificate expired"),
    "too early": ("certificate is not yet valid", "bad certificate"),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
async def test_a_client_without_the_right_certificate_is_refused_with_a_line_for_each_end(
    closed_server: RunningServer, authority: Authority, stranger: Authority, server_log: LogLines, kind: str
) -> None:
    shown = {
        "none": lambda: None,
        "of another authority": lambda: stranger.issue("client.example"),
        "expired": lambda: authority.issue_expired("client.example"),
        "too early": lambda: authority.issue_too_early("client.example"),
    }[kind]()
    at_server, at_client = CERTIFICATES[kind]
    text = await see_refusal(closed_server.control, Trust(ca=authority.path, certificate=shown))
    assert text == (
        f"the server at {closed_server.control} ended the connection: the other side said: {at_client} "
        "(see --client-cert)"
    )
    assert await server_log.wait_for(1) == [f"client: ended before it was encrypted: {at_server}"]
    assert (await fetch(closed_server.public)).status == 404


@pytest.mark.parametrize("shown", ["none", "another's"])
async def test_the_same_with_tls_1_2(
    closed_server: RunningServer, authority: Authority, stranger: Authority, server_log: LogLines, shown: str
) -> None:
    certificate = None if shown == "none" else stranger.issue("client.example")
    with pytest.raises(trio.BrokenResourceError):
        await connect_tls(closed_server.control, context_for(authority.path, certificate=certificate, versions=TLS_1_2))
    (line,) = await server_log.wait_for(1)
    assert line.startswith("client: ended before it was encrypted: ")


async def test_where_certificates_are_demanded_nobody_comes_without_tls(
    closed_server: RunningServer, server_log: LogLines
) -> None:
    async with raw_client(closed_server.control) as client:
        await client.say({"type": "register", "subdomain": "app"})
        assert (await client.hear_farewell())["code"] == "tls_required"
    assert await server_log.wait_for(1) == [f"client: refused: {TLS_REQUIRED}"]


async def test_plaintext_and_certificates_of_clients_exclude_each_other(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match=r"--allow-plaintext and --client-ca exclude each other$"):
        loopback_settings(client_ca=authority.path, allow_plaintext=True)


async def test_certificates_of_clients_need_one_of_the_server(authority: Authority) -> None:
    assert await fail_to_start(client_ca=authority.path) == (
        "a control port where clients show certificates needs a certificate, or a state folder for one of its own"
    )


async def test_certificates_are_demanded_on_the_shared_port_of_clients_only(
    start_server: StartServer, authority: Authority
) -> None:
    server = await start_server(
        https=TcpAddress("127.0.0.1", 0),
        certificates=(authority.issue("app.localhost", "127.0.0.1"),),
        client_ca=authority.path,
    )
    (https,) = server.server.https_addresses
    assert b"404" in await fetch_https(https, authority.path)
    assert "certificate required" in await see_refusal(https, Trust(ca=authority.path))
    trust = Trust(ca=authority.path, certificate=authority.issue("client.example"))
    async with open_tunnel(https, trust=trust):
        pass


# The list of clients, changed while the server runs


@attrs.frozen
class ClientList:
    """A file of certificates, and a server that looks at it all the time."""

    path: Path
    _looks: trio.lowlevel.ParkingLot

    async def write(self, *certificates: str) -> None:
        """Have it hold these, and wait until the server has read them."""
        draft = self.path.with_suffix(".draft")
        draft.write_text("".join(certificates))
        draft.replace(self.path)
        await self._looks.park()

    async def remove(self) -> None:
        """Have it vanish, and wait until the server has seen that."""
        self.path.unlink()
        await self._looks.park()


@pytest.fixture
def client_list(monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path) -> ClientList:
    """A list of clients with an authority on it."""

    def take_note(store: CertificateStore, *arguments: object) -> None:
        take_real_note(store, *arguments)
        looks.unpark_all()

    take_real_note = CertificateStore._take_note
    looks = trio.lowlevel.ParkingLot()
    monkeypatch.setattr("otun.tls.certificates.RELOAD_INTERVAL", 0.01)
    monkeypatch.setattr(CertificateStore, "_take_note", take_note)
    path = tmp_path / "clients.pem"
    path.write_bytes(authority.path.read_bytes())
    return ClientList(path, looks)


@pytest.fixture(params=["its own certificate", "a certificate of an authority"])
async def listing_server(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    authority: Authority,
    tmp_path: Path,
    client_list: ClientList,
) -> RunningServer:
    if request.param == "its own certificate":
        return await start_server(state=tmp_path / "state", client_ca=client_list.path)
    return await start_server(certificates=(authority.issue("127.0.0.1"),), client_ca=client_list.path)


async def test_who_is_taken_off_the_list_is_refused_from_then_on(
    listing_server: RunningServer, authority: Authority, stranger: Authority, client_list: ClientList
) -> None:
    async def connect(certificate: CertificateFiles) -> str:
        trust = Trust(fingerprint=listing_server.server.fingerprint, certificate=certificate)
        try:
            async with open_tunnel(listing_server.control, trust=trust):
                return "let in"
        except ServerUnreachable as error:
            return str(error).rpartition(": ")[2]

    refused = "unknown ca (see --client-cert)"
    clients = authority.issue("one"), authority.issue("two"), stranger.issue("one")
    assert [await connect(each) for each in clients] == ["let in", "let in", refused]
    await client_list.write(authority.path.read_text(), stranger.path.read_text())
    assert [await connect(each) for each in clients] == ["let in", "let in", "let in"]
    await client_list.write(stranger.path.read_text())
    assert [await connect(each) for each in clients] == [refused, refused, "let in"]
    # Single certificates
    await client_list.write(certificate_of(clients[0]), certificate_of(clients[2]))
    assert [await connect(each) for each in clients] == ["let in", refused, "let in"]
    await client_list.write(certificate_of(clients[1]))
    assert [await connect(each) for each in clients] == [refused, "let in", refused]


def connect_again(address: TcpAddress, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession:
    """Connect by TLS 1.2, with the *session* of an earlier connection, and return that of this one."""
    with (
        socket.create_connection((address.host, address.port)) as plain,
        context.wrap_socket(plain, server_hostname=address.host, session=session) as sock,
    ):
        assert sock.session is not None
        return sock.session


async def test_who_is_taken_off_the_list_does_not_come_back_by_an_old_session(
    start_server: StartServer, authority: Authority, stranger: Authority, client_list: ClientList
) -> None:
    server = await start_server(certificates=(authority.issue("127.0.0.1"),), client_ca=client_list.path)
    context = context_for(authority.path, certificate=authority.issue("client.example"), versions=TLS_1_2)
    session = await trio.to_thread.run_sync(connect_again, server.control, context, None)
    await client_list.write(stranger.path.read_text())
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        await trio.to_thread.run_sync(connect_again, server.control, context, session)


@pytest.mark.parametrize("mistake", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nMIIB\n", None])
async def test_a_list_that_cannot_be_read_any_more_lets_nobody_in(
    start_server: StartServer,
    authority: Authority,
    client_list: ClientList,
    caplog: pytest.LogCaptureFixture,
    mistake: str | None,
) -> None:
    server = await start_server(certificates=(authority.issue("127.0.0.1"),), client_ca=client_list.path)
    trust = Trust(ca=authority.path, certificate=authority.issue("client.example"))
    if mistake is None:
        await client_list.remove()
        problem = "No such file or directory"
    else:
        await client_list.write(mistake)
        problem = "holds no certificates in PEM"
    assert "unknown ca" in await see_refusal(server.control, trust)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith(f"clients' authorities: {client_list.path}")
    assert errors[0].endswith(f"{problem}; until that is mended, no client is let in")
    caplog.clear()  # The fixture of the engine wants no errors.
    await client_list.write(authority.path.read_text())
    async with open_tunnel(server.control, trust=trust):
        pass


@pytest.mark.parametrize("mistake", [None, "", "nonsense"])
async def test_a_list_that_cannot_be_read_at_the_start_is_an_error(tmp_path: Path, mistake: str | None) -> None:
    path = tmp_path / "clients.pem"
    if mistake is not None:
        path.write_text(mistake)
    problem = f"{path}: No such file or directory" if mistake is None else f"{path} holds no certificates in PEM"
    assert await fail_to_start(state=tmp_path / "state", client_ca=path) == problem


async def test_a_certificate_that_has_changed_is_shown_and_a_bad_one_is_not(
    start_server: StartServer, authority: Authority, client_list: ClientList, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    shown = ClientList(old.certificate, client_list._looks)
    texts = [one.certificate.read_text() for one in (old, new)]
    fingerprints = [fingerprint_of(one) for one in (old, new)]
    server = await start_server(certificates=(old,))

    async def is_shown(fingerprint: Fingerprint) -> bool:
        try:
            async with open_tunnel(server.control, trust=Trust(fingerprint=fingerprint)):
                return True
        except ServerNotTrusted:
            return False

    assert [await is_shown(one) for one in fingerprints] == [True, False]
    await shown.write(texts[1])
    assert [await is_shown(one) for one in fingerprints] == [False, True]
    await shown.write(texts[0][:400])
    assert [await is_shown(one) for one in fingerprints] == [False, True]
    await shown.remove()
    assert [await is_shown(one) for one in fingerprints] == [False, True]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [error.partition(": it has changed, but the old one stays: ")[0] for error in errors] == [
        f"certificate {old}"
    ] * 2
    caplog.clear()
    await shown.write(texts[0])
    assert [await is_shown(one) for one in fingerprints] == [True, False]
