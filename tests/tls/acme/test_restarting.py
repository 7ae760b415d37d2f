"""A server that ends in the middle of an order, and the next one in its place."""

from pathlib import Path

import pytest
import trio

from otun.tls.acme import Challenges
from otun.tls.acme.protocol import Conversation

from .pebble import Gate, Log, Pebble, Ports, StartIssuer, leaf

pytestmark = pytest.mark.interop

NAME = "app.example.test"


@pytest.mark.parametrize("step", ["authorization", "answer", "order", "finalize", "download"])
@pytest.mark.parametrize("kind", ["tls-alpn-01", "http-01"])
async def test_order_is_gone_on_with(
    step: str,
    kind: str,
    pebble: Pebble,
    ports: Ports,
    challenges: Challenges,
    start_issuer: StartIssuer,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
) -> None:
    challenges.has_tls_alpn = kind == "tls-alpn-01"
    with monkeypatch.context() as patches:
        gate = Gate.before(patches, Conversation, step)
        first = await start_issuer(pebble.settings(), NAME)
        await gate.wait()
        await first.stop()
        assert repr(challenges) == "<Challenges http: 0 tls-alpn: 0>"
        await gate.release()  # The thread that was left to itself does nothing more.
    requests = pebble.count("POST")
    second = await start_issuer(pebble.settings(), NAME)
    await second.watch.wait_for(NAME)
    assert pebble.count("POST") > requests
    assert pebble.orders == 1
    assert pebble.count("There are now 2 accounts") == 0
    assert not first.watch.given
    assert len(log.lines) == 1


@pytest.mark.parametrize("step", ["connect", "register", "new_order"])
async def test_nothing_is_left_of_what_had_not_begun(
    step: str, pebble: Pebble, ports: Ports, start_issuer: StartIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        gate = Gate.before(patches, Conversation, step)
        first = await start_issuer(pebble.settings(), NAME)
        await gate.wait()
        await first.stop()
        await gate.release()
    assert pebble.orders == 0
    second = await start_issuer(pebble.settings(), NAME)
    await second.watch.wait_for(NAME)
    assert pebble.orders == 1


async def test_validation_goes_on_while_nobody_runs(
    pebble: Pebble, ports: Ports, challenges: Challenges, start_issuer: StartIssuer
) -> None:
    challenges.has_tls_alpn = False
    is_looking, may_answer = trio.Event(), trio.Event()

    async def hold(body: bytes | None) -> bytes | None:
        if len(ports.visits) == 3:  # It looks from three places.
            is_looking.set()
        await may_answer.wait()
        return body

    ports.spoil_http = hold
    first = await start_issuer(pebble.settings(), NAME)
    with trio.fail_after(30):
        await is_looking.wait()
    await first.stop()
    second = await start_issuer(pebble.settings(), NAME)
    may_answer.set()
    await second.watch.wait_for(NAME)
    assert pebble.orders == 1


async def test_same_issuer_runs_again(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    with monkeypatch.context() as patches:
        gate = Gate.before(patches, Conversation, "finalize")
        running = await start_issuer(pebble.settings(), NAME)
        await gate.wait()
        with pytest.raises(trio.BusyResourceError):
            await running.issuer.run()
        await running.stop()
        await gate.release()
    nursery.start_soon(running.issuer.run)
    await running.watch.wait_for(NAME)
    assert pebble.orders == 1
    nursery.cancel_scope.cancel()


async def test_certificate_is_used_again_without_any_order(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, log: Log
) -> None:
    first = await start_issuer(pebble.settings(), NAME)
    path = await first.watch.wait_for(NAME)
    await first.stop()
    before = path.read_bytes()
    requests = pebble.count("calling handler")
    second = await start_issuer(pebble.settings(), NAME)
    assert second.watch.given == [(NAME, path)]
    await second.stop()
    assert path.read_bytes() == before
    assert pebble.count("calling handler") == requests
    assert len(log.lines) == 1


async def test_another_authority_or_folder_has_an_account_and_certificates_of_its_own(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, tmp_path: Path
) -> None:
    first = await start_issuer(pebble.settings(), NAME)
    path = await first.watch.wait_for(NAME)
    await first.stop()
    changed = pebble.settings(directory=pebble.directory + "?other")
    for settings, folder in ((changed, tmp_path / "acme"), (pebble.settings(), tmp_path / "other")):
        running = await start_issuer(settings, NAME, folder=folder)
        assert not running.watch.given
        other = await running.watch.wait_for(NAME)
        assert other != path
        assert leaf(other).serial_number != leaf(path).serial_number
    assert pebble.count("There are now 3 accounts") > 0


async def test_authority_that_has_forgotten_everything_gets_a_new_account_and_a_new_order(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    with monkeypatch.context() as patches:
        gate = Gate.before(patches, Conversation, "finalize")
        first = await start_issuer(pebble.settings(), NAME)
        await gate.wait()
        await first.stop()
        await gate.release()
    await pebble.stop()
    await pebble.run()
    second = await start_issuer(pebble.settings(), NAME)
    await second.watch.wait_for(NAME)
    assert pebble.orders == 1
    assert len(log.lines) == 1
