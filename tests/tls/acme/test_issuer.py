"""Which names are ordered, and what an issuer needs."""

import json
import sys
from pathlib import Path

import pytest
import trio

from otun.errors import ConfigurationError
from otun.tls.acme import AcmeSettings, Challenges, Issuer, agenda, budget, issuer
from otun.tls.acme.ordering import Ordering
from otun.tls.acme.protocol import Conversation

from .authority import Authority
from .pebble import DAY, Clock, Gate, Log, StartIssuer, files_in

NAME = "app.example.test"


async def test_wanting_often_is_wanting_once(authority: Authority, start_issuer: StartIssuer) -> None:
    running = await start_issuer(authority.settings(), NAME, NAME)
    await running.watch.wait_for(NAME)
    running.issuer.want(NAME)
    running.issuer.want("other.test")
    await running.watch.wait_for("other.test")
    assert [name for name, _ in running.watch.given] == [NAME, "other.test"]


async def test_forgotten_name_is_not_renewed_and_keeps_its_certificate(
    authority: Authority, start_issuer: StartIssuer, clock: Clock
) -> None:
    running = await start_issuer(authority.settings(), NAME)
    path = await running.watch.wait_for(NAME)
    running.issuer.forget(NAME)
    running.issuer.forget("unknown.test")
    clock.ahead += 70 * DAY
    running.issuer.want("other.test")
    await running.watch.wait_for("other.test")
    assert path in files_in(path.parent)
    assert authority.count("/new-order") == 2


async def test_name_that_is_forgotten_during_its_order_is_not_handed_out(
    authority: Authority, start_issuer: StartIssuer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    gate = Gate.before(monkeypatch, Conversation, "download")
    running = await start_issuer(authority.settings(), NAME)
    await gate.wait()
    running.issuer.forget(NAME)
    await gate.release()
    await log.wait_for("obtained")
    assert not running.watch.given
    running.issuer.want(NAME)
    assert len(running.watch.given) == 1


async def test_expired_certificate_is_not_handed_out_but_renewed(
    authority: Authority, start_issuer: StartIssuer, clock: Clock, log: Log
) -> None:
    first = await start_issuer(authority.settings(), NAME)
    await first.watch.wait_for(NAME)
    await first.stop()
    clock.ahead += 91 * DAY
    second = await start_issuer(authority.settings(), NAME)
    assert not second.watch.given
    await log.wait_for(f"certificate for {NAME}: renewed")


async def test_wildcard_without_a_hook_is_not_sought(authority: Authority, start_issuer: StartIssuer, log: Log) -> None:
    running = await start_issuer(authority.settings(), "*.example.test", "*.example.test")
    assert log.lines == ["certificate for *.example.test: not sought, as a wildcard needs a DNS hook"]
    running.issuer.forget("*.example.test")
    running.issuer.want("*.example.test")
    assert len(log.lines) == 2


async def test_name_that_no_port_can_prove_is_not_sought(
    authority: Authority, start_issuer: StartIssuer, challenges: Challenges, log: Log
) -> None:
    challenges.has_http = challenges.has_tls_alpn = False
    await start_issuer(authority.settings(), NAME)
    assert log.lines == [
        f"certificate for {NAME}: not sought, as neither port 80 nor port 443 is ours, and there is no DNS hook"
    ]


async def test_wanted_names_are_bounded(
    authority: Authority, start_issuer: StartIssuer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "MAX_NAMES", 2)
    monkeypatch.setattr(issuer, "MAX_NAMES", 2)
    running = await start_issuer(authority.settings(), "a.test", "b.test", "c.test", "d.test")
    assert log.lines[:1] == ["certificate for c.test: not sought, as there are 2 names already"]
    running.issuer.forget("a.test")
    running.issuer.want("d.test")
    for name in ("b.test", "d.test"):
        await running.watch.wait_for(name)
    await log.wait_for("obtained", count=2)
    assert repr(running.issuer) == f"<Issuer {authority.directory} <Agenda wanted: 2 running: 0>>"


async def test_text_that_is_no_host_name_is_a_mistake(authority: Authority, start_issuer: StartIssuer) -> None:
    running = await start_issuer(authority.settings())
    with pytest.raises(ValueError, match="is no host name"):
        running.issuer.want("../../etc/passwd")


async def test_budget_for_new_names_is_kept_and_announced(
    authority: Authority,
    start_issuer: StartIssuer,
    log: Log,
    clock: Clock,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "NEW_NAMES", 2)
    first = await start_issuer(authority.settings(), "a.test", "b.test")
    for name in ("a.test", "b.test"):
        await first.watch.wait_for(name)
    await trio.testing.wait_all_tasks_blocked()
    await first.stop()
    second = await start_issuer(authority.settings(), "a.test", "c.test")
    line = await log.wait_for("the budget of")
    assert line.endswith("is used up; the next can be made in 7 days")
    [file] = [file for file in files_in(state) if file.name == "new-names.json"]
    assert set(json.loads(file.read_text())) == {"a.test", "b.test"}
    assert authority.count("/new-order") == 2
    clock.ahead += 7 * DAY + 1
    second.issuer.want("d.test")
    for name in ("c.test", "d.test"):
        await second.watch.wait_for(name)


async def test_bug_that_one_name_brings_to_light_does_not_harm_the_others(
    authority: Authority, start_issuer: StartIssuer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain = Ordering.obtain

    async def fail(self: Ordering, name: str, kind: object) -> object:
        if name == NAME:
            raise RuntimeError("a bug")
        return await obtain(self, name, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(Ordering, "obtain", fail)
    running = await start_issuer(authority.settings(), NAME, "other.test")
    await running.watch.wait_for("other.test")
    line = await log.wait_for(f"{NAME}: not obtained")
    assert line == f"certificate for {NAME}: not obtained, because of a RuntimeError; trying again in 1 minute"


async def test_log_has_no_keys(
    authority: Authority, start_issuer: StartIssuer, log: Log, caplog: pytest.LogCaptureFixture, state: Path
) -> None:
    caplog.set_level("DEBUG", "otun")
    running = await start_issuer(authority.settings(), NAME)
    await running.watch.wait_for(NAME)
    await running.stop()
    for file in files_in(state):
        file.write_bytes(file.read_bytes()[:-40])
    again = await start_issuer(authority.settings(), NAME)
    await again.watch.wait_for(NAME)
    await again.stop()
    secrets = {line for file in files_in(state) for line in file.read_text().splitlines() if len(line) == 64}
    assert secrets
    assert not [line for line in secrets if line in caplog.text]
    assert log.lines[-1].startswith(f"certificate for {NAME}: ")


def make_issuer(settings: AcmeSettings, folder: Path) -> Issuer:
    return Issuer(settings, folder, Challenges(has_http=True, has_tls_alpn=True), lambda name, path: None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"directory": "http://ca.example/directory"}, "is no https URL"),
        ({"ca": Path("/nonexistent/ca.pem")}, "cannot be used"),
        ({"ca": Path("/dev/null")}, "cannot be used"),
        ({"dns_hook": "no-such-program"}, "the DNS hook no-such-program is no program"),
        ({"dns_hook": "/dev/null"}, "the DNS hook /dev/null is no program"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: dict[str, object], words: str, state: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_issuer(AcmeSettings(**changes), state)


def test_missing_package_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("otun.tls.acme.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "acme", None)
    with pytest.raises(ConfigurationError, match=r"needs the acme package: pip install 'otun\[acme\]'"):
        make_issuer(AcmeSettings(), state)
