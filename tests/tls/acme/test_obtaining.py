"""Certificates from pebble, by each kind of challenge, whatever it does to make that hard."""

import ssl
from pathlib import Path

import pytest
import trio
from cryptography import x509

from otun.tls.acme import Challenges

from .pebble import DAY, Clock, Log, Pebble, Ports, StartIssuer, files_in, leaf, mode_of

pytestmark = pytest.mark.interop

NAME = "app.example.test"


async def visit(path: Path, name: str, root: bytes) -> None:
    """Shake hands with a server that uses the file as it is, as a browser would."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.create_default_context(cadata=root.decode())
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.SSLStream(theirs, server, server_side=True).do_handshake)
        await trio.SSLStream(ours, client, server_hostname=name).do_handshake()


@pytest.mark.parametrize("kind", ["tls-alpn-01", "http-01"])
async def test_certificate_is_obtained_by_a_port(
    kind: str, pebble: Pebble, ports: Ports, challenges: Challenges, start_issuer: StartIssuer, log: Log, state: Path
) -> None:
    challenges.has_tls_alpn = kind == "tls-alpn-01"
    running = await start_issuer(pebble.settings(), NAME)
    path = await running.watch.wait_for(NAME)
    await visit(path, NAME, await pebble.root())
    assert set(ports.visits) == {kind}
    assert log.lines == [f"certificate for {NAME}: obtained, valid until {leaf(path).not_valid_after_utc:%Y-%m-%d}"]
    await running.stop()
    assert {mode_of(file) for file in files_in(state)} == {0o600}
    assert not [file for file in files_in(state) if file.parent.name == "orders"]
    assert repr(challenges) == "<Challenges http: 0 tls-alpn: 0>"


async def test_wildcard_is_obtained_by_the_hook(pebble: Pebble, ports: Ports, start_issuer: StartIssuer) -> None:
    running = await start_issuer(pebble.settings(dns_hook=pebble.hook()), "*.example.test")
    path = await running.watch.wait_for("*.example.test")
    await visit(path, "any.example.test", await pebble.root())
    added, removed = (line.split() for line in pebble.journal.read_text().splitlines())
    assert added[:2] == ["add", "_acme-challenge.example.test"]
    assert removed == ["remove", *added[1:]]
    assert not ports.visits


async def test_several_names_have_certificates_of_their_own(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer
) -> None:
    names = [f"{number}.example.test" for number in range(6)]
    running = await start_issuer(pebble.settings(email="admin@example.test"), *names)
    for name in names:
        path = await running.watch.wait_for(name)
        found = leaf(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert found.get_values_for_type(x509.DNSName) == [name]
    assert pebble.orders == len(names)
    assert pebble.count("There are now 1 accounts") == 1
    assert pebble.count("There are now 2 accounts") == 0


async def test_every_other_nonce_is_refused(stopped_pebble: Pebble, ports: Ports, start_issuer: StartIssuer) -> None:
    await stopped_pebble.run(PEBBLE_WFE_NONCEREJECT="50")
    running = await start_issuer(stopped_pebble.settings(), NAME)
    await running.watch.wait_for(NAME)
    assert len(running.watch.given) == 1
    assert stopped_pebble.count("reject") > 0


async def test_validation_takes_its_time(stopped_pebble: Pebble, ports: Ports, start_issuer: StartIssuer) -> None:
    await stopped_pebble.run(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="3")
    running = await start_issuer(stopped_pebble.settings(), NAME)
    await running.watch.wait_for(NAME)
    assert stopped_pebble.orders == 1


async def test_authorization_that_is_valid_already_is_not_proven_again(
    stopped_pebble: Pebble, ports: Ports, start_issuer: StartIssuer, clock: Clock
) -> None:
    await stopped_pebble.run(PEBBLE_AUTHZREUSE="100")
    running = await start_issuer(stopped_pebble.settings(), NAME)
    await running.watch.wait_for(NAME)
    visits = len(ports.visits)
    clock.ahead += 4 * 365 * DAY
    running.issuer.forget(NAME)
    running.issuer.want(NAME)
    await running.watch.wait_for(NAME, count=3)
    assert len(ports.visits) == visits


async def test_certificate_is_renewed_after_two_thirds_of_its_lifetime(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    running = await start_issuer(pebble.settings(), NAME)
    path = await running.watch.wait_for(NAME)
    first = leaf(path)
    lifetime = (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds()
    for part, orders in ((0.66, 1), (0.67, 2)):
        clock.ahead = lifetime * part
        running.issuer.forget(NAME)
        running.issuer.want(NAME)
        other = f"after-{orders}.example.test"  # Renewals come first.
        running.issuer.want(other)
        await running.watch.wait_for(other)
        if orders == 2:
            await log.wait_for(f"{NAME}: renewed")
        assert (leaf(path).serial_number != first.serial_number) == (orders == 2)
    assert await running.watch.wait_for(NAME, count=4) == path
    assert len([line for line in log.lines if "renewed" in line]) == 1
