"""Whatever an authority answers: one line in the log, and another attempt in time."""

import datetime
import email.utils
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from otun.tls.acme import network, ordering, store, worker
from otun.tls.keys import new_key

from .authority import Authority, Reply, issue
from .pebble import Clock, Log, StartIssuer, files_in, leaf

NAME = "app.example.test"

PATHS = ["/directory", "/nonce", "/account", "/new-order", "/order", "/authorization", "/finalize", "/certificate"]


async def test_slow_order_is_waited_for(authority: Authority, start_issuer: StartIssuer, log: Log) -> None:
    def replying(status: str, **headers: str) -> Callable[[int], Reply]:
        return lambda number: Reply(200, authority.order(status, number), headers)

    processing = replying("processing", **{"Retry-After": "1"})
    authority.replies["/order"] = [replying("ready"), processing, processing, replying("valid")]
    running = await start_issuer(authority.settings(), NAME)
    await running.watch.wait_for(NAME)
    assert authority.count("/order") == 4
    assert authority.count("/new-order") == 1
    assert len(log.lines) == 1


async def test_order_that_takes_too_long_is_kept_for_the_next_attempt(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "ATTEMPT_LIMIT", 1.0)
    authority.replies["/order"] = [lambda number: Reply(200, authority.order("processing", number))]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert line == f"certificate for {NAME}: the CA has not come to an end within 1 second; trying again in 1 minute"
    del authority.replies["/order"]
    clock.ahead += 61
    running.issuer.want("other.test")
    await running.watch.wait_for(NAME)
    assert authority.names.count(NAME) == 1


@pytest.mark.parametrize("is_date", [False, True])
async def test_rate_limited_name_waits_as_long_as_it_is_told_and_others_do_not(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, is_date: bool
) -> None:
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2, seconds=30)
    patience = email.utils.format_datetime(when, usegmt=True) if is_date else "7200"
    limit = Reply.problem(429, "rateLimited", "too many certificates for example.test", Retry_After=patience)
    authority.replies["/new-order"] = [limit]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert line == (
        f"certificate for {NAME}: refused by the CA: too many certificates for example.test; trying again in 2 hours"
    )
    del authority.replies["/new-order"]
    for ahead, other in ((7100, "a.test"), (7300, "b.test")):
        clock.ahead = ahead
        running.issuer.want(other)
        await running.watch.wait_for(other)
    await running.watch.wait_for(NAME)
    assert authority.count("/new-order") == 4


@pytest.mark.parametrize(
    ("path", "reply", "words"),
    [
        ("/directory", Reply.problem(503, "rateLimited", "busy", Retry_After="7200"), "refuses us: busy"),
        ("/nonce", Reply(503, b"", {"Retry-After": "7200"}), "makes no sense: status 503, without a reason"),
        ("/account", Reply.problem(429, "rateLimited", "too many", Retry_After="7200"), "refuses us: too many"),
        ("/new-order", Reply.problem(500, "serverInternal", "oops", Retry_After="7200"), "has trouble: oops"),
    ],
)
async def test_authority_that_serves_nobody_holds_up_everybody(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, path: str, reply: Reply, words: str
) -> None:
    authority.replies[path] = [reply]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for("certificates: ")
    assert line == f"certificates: the CA at {authority.directory} {words}; trying again in 2 hours"
    requests = len(authority.requests)
    running.issuer.want("other.test")
    await trio.testing.wait_all_tasks_blocked()
    assert len(authority.requests) == requests
    del authority.replies[path]
    clock.ahead += 7201
    running.issuer.want("third.test")
    for name in (NAME, "other.test", "third.test"):
        await running.watch.wait_for(name)


NONSENSE = [b"", b"\xff\x00", b"nonsense", None, 5, "text", [], [5], {}, {"status": 5}, {"detail": 5, "type": []}]


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("path", PATHS)
async def test_nonsense_is_survived(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, path: str, status: int
) -> None:
    running = await start_issuer(authority.settings())
    bodies = [] if (path, status) == ("/nonce", 200) else NONSENSE  # Nobody looks at the body there.
    for number, body in enumerate(bodies, start=1):
        authority.replies[path] = [Reply(status, body)]
        running.issuer.want(f"{number}.test")
        assert "; trying again in " in await log.wait_for("certificate", count=number)
        running.issuer.forget(f"{number}.test")
        clock.ahead += 8 * 3600
    assert not [line for line in log.lines if "should not have happened" in line]
    authority.replies.clear()
    running.issuer.want(NAME)
    await running.watch.wait_for(NAME)


ODD = [
    {"status": "valid"},
    {"status": "ready", "authorizations": None, "finalize": 5},
    {"status": "pending", "authorizations": [5, None]},
    {"status": "valid", "authorizations": [], "certificate": "/nowhere"},
    {"status": "deactivated", "authorizations": []},
    {"status": "invalid", "authorizations": [], "error": {"detail": ["not", "text"]}},
    {"status": "pending", "authorizations": ["file:///etc/passwd"]},
]


@pytest.mark.parametrize("body", ODD)
async def test_odd_orders_are_survived(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, body: object
) -> None:
    authority.replies["/new-order"] = [Reply(201, body, {"Location": f"{authority.url}/odd"})]
    running = await start_issuer(authority.settings(), NAME)
    assert "trying again in 1 minute" in await log.wait_for("certificate")
    del authority.replies["/new-order"]
    authority.replies["/odd"] = [Reply(404)]
    clock.ahead += 61
    running.issuer.want("other.test")
    await running.watch.wait_for(NAME)


async def test_long_hostile_text_is_cut_and_cleaned(authority: Authority, start_issuer: StartIssuer, log: Log) -> None:
    detail = "\x1b[2J\r\nroot: all is well\u202e " * 10_000
    authority.replies["/new-order"] = [Reply.problem(403, "rejectedIdentifier", detail)]
    await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert len(line) < 450
    assert line.isprintable()


async def test_answer_without_end_is_not_read(
    authority: Authority, start_issuer: StartIssuer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MAX_BODY", 1000)
    authority.replies["/directory"] = [Reply(200, b" " * 1001)]
    await start_issuer(authority.settings(), NAME)
    assert "an answer had more than 1,000 octets" in await log.wait_for("certificates")


async def test_authority_that_redirects_without_end_is_left(
    authority: Authority, start_issuer: StartIssuer, log: Log
) -> None:
    authority.replies["/directory"] = [Reply(302, b"", {"Location": authority.directory})]
    await start_issuer(authority.settings(), NAME)
    assert "Exceeded 30 redirects" in await log.wait_for("certificates")


@pytest.mark.parametrize("limit", ["TIMEOUT", "CALL_LIMIT"])
async def test_authority_that_does_not_answer_is_not_waited_for(
    authority: Authority, start_issuer: StartIssuer, log: Log, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(network if limit == "TIMEOUT" else worker, limit, 1)
    may_answer = threading.Event()

    def wait(number: int) -> Reply:
        may_answer.wait(30)
        return Reply(200)

    authority.replies["/account"] = [wait]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for("certificates")
    assert "did not answer within 1 second" in line
    await running.stop()
    may_answer.set()


async def test_invalid_order_is_not_gone_on_with(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock
) -> None:
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"}
    authority.replies["/order"] = [Reply(200, {"status": "invalid", "authorizations": [], "error": error})]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert line == f"certificate for {NAME}: refused by the CA: CAA forbids it; trying again in 1 minute"
    del authority.replies["/order"]
    clock.ahead += 61
    running.issuer.want("other.test")
    await running.watch.wait_for(NAME)
    assert authority.names.count(NAME) == 2


@pytest.mark.parametrize(
    ("name", "words"), [(NAME, "the certificate is for another key"), ("evil.test", "the certificate is for another")]
)
async def test_certificate_that_does_not_fit_is_not_used(
    authority: Authority, start_issuer: StartIssuer, log: Log, state: Path, name: str, words: str
) -> None:
    authority.replies["/certificate"] = [Reply(200, issue(name, new_key().public_key()))]
    running = await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert f"the CA sent no usable certificate: {words}" in line
    assert not running.watch.given
    assert not [file for file in files_in(state) if file.parent.name in {"orders", "certificates"}]


async def test_full_disk_is_a_failure(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        running = await start_issuer(authority.settings(), NAME)
        patches.setattr(store, "write_atomically", fail)
        line = await log.wait_for(f"certificate for {NAME}")
    assert line.endswith(": the state folder cannot be written: No space left on device; trying again in 1 minute")
    clock.ahead += 61
    running.issuer.want("other.test")
    await running.watch.wait_for(NAME)


async def test_account_that_exists_already_is_found_by_its_key(
    authority: Authority, start_issuer: StartIssuer, state: Path
) -> None:
    authority.replies["/account"] = [Reply(200, {"status": "valid"}, {"Location": f"{authority.url}/account/7"})]
    running = await start_issuer(authority.settings(), NAME)
    await running.watch.wait_for(NAME)
    [file] = [file for file in files_in(state) if file.name == "account.json"]
    assert "/account/7" in file.read_text()


async def test_account_that_is_unknown_over_and_over_is_no_endless_loop(
    authority: Authority, start_issuer: StartIssuer, log: Log
) -> None:
    authority.replies["/new-order"] = [Reply.problem(400, "accountDoesNotExist", "who?")]
    await start_issuer(authority.settings(), NAME)
    line = await log.wait_for("certificates")
    assert "does not know the account that it has just made: who?; trying again in 1 minute" in line
    assert authority.count("/account") == 2


async def test_certificate_that_is_old_when_it_comes_is_not_renewed_at_once(
    authority: Authority, start_issuer: StartIssuer, log: Log, clock: Clock
) -> None:
    clock.ahead = 80 * 86400
    running = await start_issuer(authority.settings(), NAME)
    path = await running.watch.wait_for(NAME)
    running.issuer.want("other.test")
    await running.watch.wait_for("other.test")
    assert authority.count("/new-order") == 2
    assert leaf(path)


@pytest.mark.parametrize("value", ["-5", "1e9", "soon", "Mon, 01 Jan 0001 00:00:00 +2300", "9" * 100, "\u0665", ""])
async def test_any_retry_after_is_survived(
    authority: Authority, start_issuer: StartIssuer, log: Log, value: str
) -> None:
    reply = Reply.problem(429, "rateLimited", "too many", Retry_After=value.encode().decode("latin-1"))
    authority.replies["/new-order"] = [reply]
    await start_issuer(authority.settings(), NAME)
    line = await log.wait_for(NAME)
    assert line.endswith("trying again in 7 days" if value.startswith("9") else "trying again in 1 minute")
