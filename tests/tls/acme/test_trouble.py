"""What goes wrong between pebble and us: each is one line in the log, and tried again in time."""

from pathlib import Path

import pytest
import trio

from otun.tls.acme import Challenges, dns_hook

from .pebble import Clock, Log, Pebble, Ports, StartIssuer

pytestmark = pytest.mark.interop

NAME = "app.example.test"


async def spoil(body: bytes | None) -> bytes | None:
    return b"something else"


async def test_rejected_challenge_is_followed_by_another_kind(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    ports.has_spoilt_tls = True
    running = await start_issuer(pebble.settings(), NAME)
    line = await log.wait_for(f"certificate for {NAME}: refused by the CA: ")
    assert line.endswith("; trying again in 1 minute")
    running.issuer.forget(NAME)
    running.issuer.want(NAME)  # The pause outlives that.
    clock.ahead += 61
    running.issuer.want("wake.up.test")
    await running.watch.wait_for(NAME)
    assert set(ports.visits) == {"tls-alpn-01", "http-01"}


async def test_wrong_answers_are_refused_again_and_again_with_longer_pauses(
    pebble: Pebble, ports: Ports, challenges: Challenges, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    challenges.has_tls_alpn = False
    ports.spoil_http = spoil
    running = await start_issuer(pebble.settings(), NAME)
    for number, pause in enumerate((1, 2, 4, 8, 46), start=1):  # The fifth in an hour: 15 minutes after the first.
        line = await log.wait_for(NAME, count=number)
        assert "did not match" in line.lower() or "refused" in line
        minutes = int(line.split()[-2])
        assert abs(minutes - pause) <= (pause == 46)
        clock.ahead += 60 * minutes + 1
        if number < 5:
            running.issuer.forget(NAME)
            running.issuer.want(NAME)
    ports.spoil_http = None
    running.issuer.forget(NAME)
    running.issuer.want(NAME)
    await running.watch.wait_for(NAME)
    assert pebble.orders == 6


async def test_hook_is_the_last_resort(
    pebble: Pebble, ports: Ports, challenges: Challenges, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    ports.has_spoilt_tls, ports.spoil_http = True, spoil
    running = await start_issuer(pebble.settings(dns_hook=pebble.hook()), NAME)
    for number in (1, 2):
        await log.wait_for(NAME, count=number)
        clock.ahead += 300
        running.issuer.forget(NAME)
        running.issuer.want(NAME)
    await running.watch.wait_for(NAME)


async def test_authority_is_down_and_comes_back(
    pebble: Pebble, ports: Ports, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    await pebble.stop()
    running = await start_issuer(pebble.settings(), NAME, "b.example.test")
    line = await log.wait_for("certificates: the CA at")
    assert line == (
        f"certificates: the CA at {pebble.directory} cannot be reached: Connection refused; trying again in 1 minute"
    )
    await pebble.run()
    clock.ahead += 61
    running.issuer.want("c.example.test")
    for name in (NAME, "b.example.test", "c.example.test"):
        await running.watch.wait_for(name)
    assert len([line for line in log.lines if "cannot be reached" in line]) == 1


async def test_authority_with_another_certificate_is_not_trusted(
    pebble: Pebble, start_issuer: StartIssuer, log: Log
) -> None:
    await start_issuer(pebble.settings(ca=None), NAME)
    line = await log.wait_for("certificates: the CA at")
    assert "has a certificate that cannot be trusted: unable to get local issuer certificate;" in line


HOOKS = {
    "fails": ("echo 'no such zone\x1b[31m'; exit 3", "the DNS hook failed: add ended with 3: no such zone [31m"),
    "talks": ("yes | head -c 1000000; exit 1", "the DNS hook failed: add ended with 1: y y y"),
    "hangs": ("exec sleep 1000", "the DNS hook was stopped: add took more than 1 second"),
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_hook_that_fails_is_a_failure(
    hook: str, pebble: Pebble, start_issuer: StartIssuer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, words = HOOKS[hook]
    if hook == "hangs":
        monkeypatch.setattr(dns_hook, "HOOK_LIMIT", 1.0)
        monkeypatch.setattr(dns_hook, "_REMOVAL_LIMIT", 0.1)
    running = await start_issuer(pebble.settings(dns_hook=pebble.hook(f"#!/bin/sh\n{script}\n")), "*.example.test")
    line = await log.wait_for("certificate for *.example.test")
    assert line.startswith(f"certificate for *.example.test: {words}")
    assert line.endswith("; trying again in 1 minute")
    assert len(line) < 500
    await running.stop()
    assert len(log.lines) == 1


async def test_record_is_removed_when_the_server_ends(
    pebble: Pebble, start_issuer: StartIssuer, tmp_path: Path, log: Log
) -> None:
    marker = tmp_path / "added"
    hook = pebble.hook(f'#!/bin/sh\necho "$@" >> {pebble.journal}\n[ $1 = remove ] || exec cat {marker}\n')
    await trio.run_process(["mkfifo", str(marker)])
    running = await start_issuer(pebble.settings(dns_hook=hook), "*.example.test")
    with trio.fail_after(30):
        # Opening the pipe waits until the hook is there.
        pipe = await trio.open_file(marker, "wb")
    async with pipe:
        await running.stop()
    added, removed = (line.split() for line in pebble.journal.read_text().splitlines())
    assert (added[0], removed[0]) == ("add", "remove")
    assert added[1:] == removed[1:]
    assert not log.lines
