"""Certificates that change while the server runs."""

import logging
from collections.abc import Callable

import pytest
import trio
import trio.testing

from otun import ConfigurationError, TcpAddress, open_tunnel, serve
from otun.tls.trust import Trust

from ..tls.issuing import Authority, in_days, write_anew
from .certificates import DOMAIN, TlsVisitor, names_shown
from .conversation import Conversation, tenant
from .edges import NAME, PATIENCE, Edge, StartEdge
from .harness import LOOPBACK, loopback_settings
from .visitors import connect, fetch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr("otun.tls.certificates.RELOAD_INTERVAL", 0.02)


async def see_names(edge: Edge, names: set[str], *, name: str | None = NAME) -> None:
    """Wait until the server shows a certificate for *names* to who asks for *name*."""
    with trio.fail_after(PATIENCE):
        while await names_shown(edge.https, edge.context, name) != names:
            pass


async def see_lines(caplog: pytest.LogCaptureFixture, count: int, is_meant: Callable[[str], bool]) -> None:
    """Wait until the log has so many lines, which must not become more while nothing changes."""
    with trio.fail_after(PATIENCE):
        while len([1 for record in caplog.records if is_meant(record.getMessage())]) < count:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_new_visitors_see_the_new_certificate_and_old_connections_go_on(
    start_edge: StartEdge, authority: Authority
) -> None:
    edge = await start_edge(certificates=(authority.certify(NAME),))
    async with tenant(edge.control, "app"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        assert (await talk.ask("/1", host=NAME)).text == "app 1 /1"
        authority.certify(NAME, "new.example")
        await see_names(edge, {NAME, "new.example"})
        assert (await talk.ask("/2", host=NAME)).text == "app 1 /2"
        assert (await edge.fetch("/3")).text == "app 2 /3"
    await edge.see_nobody()


async def test_a_handshake_that_has_begun_ends_with_the_certificate_it_began_with(
    start_edge: StartEdge, authority: Authority
) -> None:

    edge = await start_edge(certificates=(authority.certify(NAME),))
    async with await connect(edge.https) as sock:
        visitor = TlsVisitor(sock, edge.context, NAME)
        await sock.send_all(visitor.hello())
        await sock.wait_send_all_might_not_block()
        await edge.see_visitors(1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        authority.certify(NAME, "new.example")
        await see_names(edge, {NAME, "new.example"})
        await visitor.shake_hands()
        assert visitor.names == {NAME}


async def test_hosts_that_a_new_certificate_is_for_are_redirected(start_edge: StartEdge, authority: Authority) -> None:
    edge = await start_edge(certificates=(authority.certify("first.example"),))
    async with tenant(edge.control, "app"):
        assert (await fetch(edge.public, host=NAME)).status == 200
        authority.certify("first.example", NAME)
        await see_names(edge, {"first.example", NAME})
        assert (await fetch(edge.public, host=NAME)).status == 308
    async with tenant(edge.control, "app") as app:
        assert app.url.startswith("https://")


@pytest.mark.parametrize("is_key_first", [True, False])
async def test_key_and_certificate_are_replaced_one_after_the_other(
    start_edge: StartEdge, authority: Authority, is_key_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.certify(NAME)
    assert files.key is not None
    edge = await start_edge(certificates=(files,))
    new = authority.certify(NAME, "new.example", into="new")
    assert new.key is not None
    pairs = [(files.certificate, new.certificate), (files.key, new.key)]
    (first, its_new), (second, other_new) = pairs[::-1] if is_key_first else pairs
    write_anew(first, its_new.read_bytes())
    await see_lines(caplog, 1, lambda line: "the old one stays" in line)
    assert await names_shown(edge.https, edge.context, NAME) == {NAME}
    write_anew(second, other_new.read_bytes())
    await see_names(edge, {NAME, "new.example"})
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage().split(":")[1].strip() for record in lines] == ["it has changed, but the old one stays"]
    caplog.clear()  # It is an error in the log, and none of ours.


async def test_a_broken_file_is_said_once_and_the_old_certificate_is_shown(
    start_edge: StartEdge, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.certify(NAME)
    other = authority.certify("other.example", into="other")
    edge = await start_edge(certificates=(files, other))
    write_anew(files.certificate, b"-----BEGIN CERTIFICATE-----\nnonsense\n")
    await see_lines(caplog, 1, lambda line: "the old one stays" in line)
    authority.certify("other.example", "late.example", into="other")  # Others are loaded all the same.
    await see_names(edge, {"other.example", "late.example"}, name="other.example")
    await see_names(edge, {NAME})
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert str(files.certificate) in errors[0].getMessage()
    caplog.clear()
    authority.certify(NAME, "mended.example")
    await see_names(edge, {NAME, "mended.example"})


async def test_a_client_comes_although_the_new_file_is_broken(
    start_edge: StartEdge, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Even the first one: what it is shown was loaded with the rest."""
    files = authority.certify("localhost")
    edge = await start_edge(certificates=(files,))
    write_anew(files.certificate, b"")
    await see_lines(caplog, 1, lambda line: "the old one stays" in line)
    caplog.clear()
    for port in (edge.control.port, edge.https.port):
        trust = Trust(ca=authority.path)
        async with open_tunnel(TcpAddress("localhost", port), name="app", trust=trust) as tunnel:
            assert tunnel.name == "app"


async def test_an_expired_certificate_is_loaded_and_warned_of(
    start_edge: StartEdge, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    await start_edge(certificates=(authority.certify(NAME),))
    authority.certify(NAME, "late.example", ends=in_days(-1))
    await see_lines(caplog, 1, lambda line: "expired" in line)
    await see_lines(caplog, 1, lambda line: "loaded anew" in line)


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
async def test_a_server_does_not_start_without_what_it_needs(engine, authority: Authority, which: str) -> None:
    files = authority.certify(f"*.{DOMAIN}")
    ca = authority.path
    path = {"certificate": files.certificate, "key": files.key, "client_ca": ca}[which]
    assert path is not None
    path.unlink()
    with pytest.raises(ConfigurationError, match=path.name):
        await serve(loopback_settings(https=LOOPBACK, certificates=(files,), client_ca=ca))
