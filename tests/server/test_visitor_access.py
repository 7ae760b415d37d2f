"""Who may visit an HTTP tunnel: log-ins, headers, addresses, and in which order they are looked at."""

import logging
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
import trio

from otun import HttpTimeouts
from otun.access import failures, proven

from .checking import Accesses, Checks, authorization, cheap_login, wait_until
from .conversation import conversation, tenant
from .harness import RunningServer
from .raw_client import raw_client
from .services import END_OF_HEAD, receive_all, receive_head
from .visitors import Answer, ask, connect, fetch, parse, receive_answer, request, reset

ANN = cheap_login("ann", "s3cret")
JOSÉ = cheap_login("José", "pässwörd: ñ")
GOOD = authorization("ann", "s3cret")
BAD = authorization("ann", "wrong")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    watched = Checks.watch(monkeypatch)
    yield watched
    watched.let_go()


@pytest.fixture
def accesses(monkeypatch: pytest.MonkeyPatch) -> Accesses:
    watched = Accesses()
    watched.watch(monkeypatch)
    return watched


def code_of(answer: Answer) -> str | None:
    return answer.fields.get("Otun-Error")


# Logging in


async def test_who_has_not_logged_in_is_asked_to(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]) as app:
        answer = await fetch(server.public)
        assert (answer.status, code_of(answer)) == (401, "login_required")
        assert answer.fields["WWW-Authenticate"] == 'Basic realm="app", charset="UTF-8"'
        assert answer.fields["Cache-Control"] == "no-store"
        assert not app.streams


async def test_who_logs_in_is_served_and_the_service_does_not_see_it(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[JOSÉ, ANN]) as app, conversation(server.public) as visitor:
        for field in (GOOD, GOOD, authorization("José", "pässwörd: ñ"), authorization("ann", "s3cret", "bASIC")):
            answer = await visitor.ask("/x", field, "X-Other: kept")
            assert answer.status == 200
        for head in app.heads:
            assert b"authorization" not in head.lower()
            assert b"X-Other: kept" in head


async def test_decomposed_text_logs_in_too(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[JOSÉ]):
        decomposed = authorization("Jose\N{COMBINING ACUTE ACCENT}", "pässwörd: n\N{COMBINING TILDE}")
        assert (await fetch(server.public, "/", decomposed)).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        [BAD],
        [authorization("ann", "s3cret ")],
        [authorization("Ann", "s3cret")],
        [authorization("bob", "s3cret")],
        [authorization("", "s3cret")],
        [authorization("ann", "")],
        [authorization("ann", "s3cret", "Bearer")],
        ["Authorization: Basic YW5uOnMzY3JldA"],
        ["Authorization: Basic"],
        ["Authorization: " + "x" * 20_000],
        [GOOD, GOOD],
        [GOOD, BAD],
        [BAD, GOOD],
        [GOOD.replace("Authorization", "Proxy-Authorization")],
        [GOOD.replace("Authorization", "X-Authorization")],
    ],
    ids=range(15),
)
async def test_anything_else_is_a_401(server: RunningServer, fields: list[str]) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]) as app:
        answer = await fetch(server.public, "/", *fields)
        assert (answer.status, code_of(answer)) == (401, "login_required")
        assert not app.streams


async def test_every_request_of_a_connection_is_looked_at(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]) as app:
        for last in ([], [BAD], [GOOD, GOOD]):
            async with conversation(server.public) as visitor:
                for _ in range(3):
                    assert (await visitor.ask("/", GOOD)).status == 200
                assert (await visitor.ask("/", *last)).status == 401
        assert len(app.heads) == 9


async def test_a_pipelined_request_waits_for_its_own_log_in(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN, JOSÉ]) as app, await connect(server.public) as visitor:
        await visitor.send_all(
            request("/1", GOOD) + request("/2", authorization("José", "pässwörd: ñ")) + request("/3")
        )
        received = await receive_all(visitor)
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.count(b"HTTP/1.1 401 Unauthorized") == 1
        assert [head.split(b" ")[1] for head in app.heads] == [b"/1", b"/2"]


async def test_a_request_with_a_body_waits_whole(server: RunningServer, checks: Checks) -> None:
    body = b"x" * 200_000
    async with tenant(server.control, "app", basic_auth=[ANN]) as app, conversation(server.public) as visitor:
        answer = await visitor.ask("/", GOOD, method="POST", body=body)
        assert answer.status == 200
        assert app.bodies == [body]
    async with tenant(server.control, "app2", basic_auth=[ANN]) as app:
        chunks = b"5\r\nhello\r\n0\r\n\r\n"
        sent = request(
            "/", GOOD, "Transfer-Encoding: chunked", "Connection: close", host="app2.localhost", method="POST"
        )
        assert parse(await ask(server.public, sent.replace(GOOD.encode(), BAD.encode()) + chunks)).status == 401
        assert not app.streams


async def test_expect_continue_is_answered_by_a_401(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]) as app:
        sent = request("/", BAD, "Expect: 100-continue", "Content-Length: 5", method="POST")
        assert parse(await ask(server.public, sent)).status == 401
        assert not app.streams


async def test_a_page_is_json_for_those_who_want_that_and_empty_for_head(server: RunningServer) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        answer = await fetch(server.public, "/", "Accept: application/json")
        assert '"error": "login_required"' in answer.text
        assert answer.fields["WWW-Authenticate"].startswith("Basic ")
        received = await ask(server.public, request("/", method="HEAD"))
        assert received.endswith(END_OF_HEAD)
        assert b"WWW-Authenticate: Basic" in received


async def test_an_upgrade_needs_a_log_in_like_any_request(server: RunningServer) -> None:
    async def switch(tenant: object, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
        await stream.send_eof()

    upgrade = ("Connection: Upgrade", "Upgrade: echo")
    async with tenant(server.control, "app", switch, basic_auth=[ANN]) as app:
        assert (await fetch(server.public, "/", *upgrade)).status == 401
        assert (await fetch(server.public, "/", *upgrade, BAD)).status == 401
        assert not app.streams
        async with await connect(server.public) as visitor:
            await visitor.send_all(request("/", *upgrade, GOOD))
            head, rest = await receive_head(visitor)
            assert head.startswith(b"HTTP/1.1 101 ")
            await visitor.send_eof()
            assert rest + await receive_all(visitor) == b"hello"
        assert b"authorization" not in app.heads[0].lower()


# What is known already


async def test_a_password_is_checked_once(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        for _ in range(3):
            async with conversation(server.public) as visitor:
                for size in (0, 2000, 0, 2000, 0):  # Longer heads are not known by their bytes.
                    assert (await visitor.ask("/", GOOD, f"X-Long: {'x' * size}")).status == 200
        assert checks.passwords == ["s3cret"]


async def test_wrong_ones_are_checked_each_time(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        for _ in range(3):
            assert (await fetch(server.public, "/", BAD)).status == 401
        assert checks.passwords == ["wrong"] * 3


async def test_unknown_users_take_as_long_as_others(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        assert (await fetch(server.public, "/", authorization("bob", "s3cret"))).status == 401
        assert checks.passwords == ["s3cret"]
        assert (await fetch(server.public, "/", GOOD)).status == 200
        assert (await fetch(server.public, "/", authorization("bob", "s3cret"))).status == 401
        assert checks.passwords == ["s3cret"] * 3


async def test_what_was_proven_at_one_tunnel_says_nothing_about_another(server: RunningServer, checks: Checks) -> None:
    # The same hash, for another user.
    stolen = ANN.replace("ann:", "bob:")
    async with (
        tenant(server.control, "app", basic_auth=[ANN]),
        tenant(server.control, "other", basic_auth=[stolen]) as other,
        conversation(server.public) as visitor,
    ):
        assert (await visitor.ask("/", GOOD)).status == 200
        assert (await visitor.ask("/", GOOD, host="other.localhost")).status == 401
        assert not other.streams


async def test_a_proof_runs_out(server: RunningServer, checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "IDLE_LIMIT", 0.0)
    async with tenant(server.control, "app", basic_auth=[ANN]), conversation(server.public) as visitor:
        for _ in range(4):
            assert (await visitor.ask("/", GOOD)).status == 200
        assert checks.passwords == ["s3cret"] * 4


async def test_a_new_password_takes_the_place_of_the_old_one(server: RunningServer) -> None:
    async with conversation(server.public) as visitor, conversation(server.public) as other:
        async with tenant(server.control, "app", basic_auth=[ANN]):
            for _ in range(2):
                assert (await visitor.ask("/", GOOD)).status == 200
                assert (await other.ask("/", GOOD)).status == 200
        async with tenant(server.control, "app", basic_auth=[cheap_login("ann", "new")]):
            assert (await visitor.ask("/", GOOD)).status == 401
            assert (await other.ask("/", authorization("ann", "new"))).status == 200


async def test_all_who_send_the_same_wait_for_one_check(
    server: RunningServer, nursery: trio.Nursery, checks: Checks, accesses: Accesses, start_server
) -> None:
    server = await start_server()
    checks.hold()
    answers: list[int] = []

    async def visit(field: str) -> None:
        answers.append((await fetch(server.public, "/", field)).status)

    async with tenant(server.control, "app", basic_auth=[ANN]):
        async with trio.open_nursery() as visitors:
            for field in (GOOD, BAD) * 5:
                visitors.start_soon(visit, field)
            await wait_until(
                lambda: accesses.made[-1]._waiting.get("app") == 10, lambda: fetch(server.public, host="x")
            )
            checks.let_go()
        assert sorted(answers) == [200] * 5 + [401] * 5
        assert sorted(checks.passwords) == ["s3cret", "wrong"]
        assert accesses.made[-1]._waiting == {}


# Headers and addresses


async def test_a_required_header_must_be_there_and_its_secret_is_not_passed_on(server: RunningServer) -> None:
    async with tenant(server.control, "app", require_header=["X-Key: s3cret", "X-Client"]) as app:
        for fields in ([], ["X-Key: s3cret"], ["X-Client: a"], ["X-Key: S3cret", "X-Client: a"], ["X-Key: s3cret"] * 2):
            answer = await fetch(server.public, "/", *fields)
            assert (answer.status, code_of(answer)) == (403, "forbidden")
            assert "WWW-Authenticate" not in answer.fields
        assert not app.streams
        assert (await fetch(server.public, "/", "x-key: s3cret", "X-Client: a")).status == 200
        assert b"s3cret" not in app.heads[0]
        assert b"X-Client: a" in app.heads[0]


async def test_an_owner_may_write_what_visitors_may_not(server: RunningServer) -> None:
    edits = ["Authorization: Basic c2VydmljZTpwdw=="]
    async with tenant(server.control, "app", basic_auth=[ANN], request_headers=edits) as app:
        assert (await fetch(server.public, "/", GOOD)).status == 200
        assert app.heads[0].count(b"Authorization: ") == 1
        assert b"Authorization: Basic c2VydmljZTpwdw==" in app.heads[0]


async def test_addresses_are_denied_and_allowed(server: RunningServer) -> None:
    for rules, status in (
        ({"allow_ip": ["127.0.0.0/8"]}, 200),
        ({"allow_ip": ["192.0.2.0/24"]}, 403),
        ({"deny_ip": ["192.0.2.0/24"]}, 200),
        ({"deny_ip": ["127.0.0.1"]}, 403),
        ({"allow_ip": ["127.0.0.0/8"], "deny_ip": ["127.0.0.1"]}, 403),
    ):
        async with tenant(server.control, "app", **rules) as app:
            answer = await fetch(server.public, "/", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1")
            assert answer.status == status
            assert code_of(answer) == (None if status == 200 else "forbidden")
            assert bool(app.streams) == (status == 200)


async def test_behind_a_trusted_proxy_the_visitors_own_address_counts(start_server) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with tenant(server.control, "app", allow_ip=["192.0.2.0/24"]), conversation(server.public) as proxy:
        for value in ("192.0.2.1", "6.6.6.6, 192.0.2.1", "192.0.2.1, 127.0.0.9"):
            assert (await proxy.ask("/", f"X-Forwarded-For: {value}")).status == 200
    for fields in (
        [],
        ["X-Forwarded-For: 6.6.6.6"],
        ["X-Forwarded-For: 192.0.2.1, 6.6.6.6"],
        ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 6.6.6.6"],
        ["X-Forwarded-For: 192.0.2.1, unknown"],
        ["Forwarded: for=192.0.2.1"],
        ["X-Real-IP: 192.0.2.1"],
    ):
        async with tenant(server.control, "app", allow_ip=["192.0.2.0/24"]) as app:
            assert (await fetch(server.public, "/", *fields)).status == 403
            assert not app.streams


async def test_two_visitors_of_one_proxys_connection_are_told_apart(start_server) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with (
        tenant(server.control, "app", allow_ip=["192.0.2.0/24"], basic_auth=[ANN]),
        conversation(server.public) as proxy,
    ):
        for _ in range(3):
            assert (await proxy.ask("/", "X-Forwarded-For: 192.0.2.1", GOOD)).status == 200
        assert (await proxy.ask("/", "X-Forwarded-For: 192.0.3.1", GOOD)).status == 403


async def test_by_a_proxy_header_the_address_in_it_counts(start_server) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with tenant(server.control, "app", allow_ip=["192.0.2.0/24"]):
        for source, status in (("192.0.2.1", 200), ("192.0.3.1", 403)):
            line = f"PROXY TCP4 {source} 203.0.113.1 4711 80\r\n".encode()
            # Whom the proxy speaks for is no proxy of ours.
            sent = line + request("/", "Connection: close", "X-Forwarded-For: 192.0.2.9")
            assert parse(await ask(server.public, sent)).status == status


async def test_addresses_come_first_then_headers_then_the_log_in(server: RunningServer, checks: Checks) -> None:
    rules = {"basic_auth": [ANN], "require_header": ["X-Key: k"]}
    async with tenant(server.control, "app", **rules):
        assert (await fetch(server.public, "/", BAD)).status == 403
        assert (await fetch(server.public, "/", "X-Key: k")).status == 401
        assert (await fetch(server.public, "/", "X-Key: k", GOOD)).status == 200
    async with tenant(server.control, "app", deny_ip=["127.0.0.1"], **rules):
        assert (await fetch(server.public, "/", "X-Key: k", GOOD)).status == 403
    assert checks.passwords == ["s3cret"]


async def test_an_open_tunnel_stays_as_it_was(server: RunningServer) -> None:
    async with tenant(server.control, "app") as app, conversation(server.public) as visitor:
        for field in (GOOD, BAD, "Authorization: Bearer x"):
            assert (await visitor.ask("/", field)).status == 200
            assert field.encode() in app.heads[-1]


# Waiting


async def test_a_visitor_who_waits_holds_up_nobody_else(server: RunningServer, checks: Checks) -> None:
    checks.hold()
    async with (
        tenant(server.control, "app", basic_auth=[ANN]),
        tenant(server.control, "open"),
        await connect(server.public) as visitor,
    ):
        await visitor.send_all(request("/", GOOD, "Connection: close"))
        for _ in range(20):
            assert (await fetch(server.public, host="open.localhost")).status == 200
        checks.let_go()
        assert parse(await receive_all(visitor)).status == 200


async def test_who_is_logged_in_needs_no_check_while_others_wait(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]), conversation(server.public) as known:
        assert (await known.ask("/", GOOD)).status == 200
        checks.hold()
        async with await connect(server.public) as other, await connect(server.public) as third:
            await other.send_all(request("/", BAD))
            await third.send_all(request("/", authorization("ann", "x")))
            for _ in range(20):
                assert (await known.ask("/", GOOD)).status == 200
                assert (await fetch(server.public, "/", GOOD)).status == 200


async def test_those_who_reset_while_they_wait_cost_nothing_further(
    start_server, checks: Checks, accesses: Accesses
) -> None:
    server = await start_server()
    checks.hold()
    async with tenant(server.control, "app", basic_auth=[ANN]) as app:
        visitors = [await connect(server.public) for _ in range(8)]
        for number, visitor in enumerate(visitors):
            await visitor.send_all(request("/", authorization("ann", str(number))))
        await wait_until(lambda: accesses.waiting == 8, lambda: fetch(server.public, host="x"))
        for visitor in visitors:
            reset(visitor)
        await wait_until(lambda: accesses.waiting == 0, lambda: fetch(server.public, host="x"))
        checks.let_go()
        assert (await fetch(server.public, "/", GOOD)).status == 200
        assert len(checks.passwords) <= 3  # Two were being checked.
        assert len(app.streams) == 1
        # The other one of the two may still be on its way.
        await wait_until(lambda: accesses.remembered[1:] == (1, 0), lambda: fetch(server.public, host="x"))


async def test_those_who_have_finished_are_served_if_there_is_room(server: RunningServer, checks: Checks) -> None:
    checks.hold()
    async with tenant(server.control, "app", basic_auth=[ANN]), await connect(server.public) as visitor:
        await visitor.send_all(request("/", GOOD))
        await visitor.send_eof()
        for _ in range(5):  # It has been noticed.
            assert (await fetch(server.public)).status == 401
        checks.let_go()
        assert parse(await receive_all(visitor)).status == 200


async def test_a_tunnel_that_closes_meanwhile_is_gone(server: RunningServer, checks: Checks) -> None:
    checks.hold()
    async with await connect(server.public) as visitor:
        async with tenant(server.control, "app", basic_auth=[ANN]):
            await visitor.send_all(request("/", GOOD, "Connection: close"))
            await wait_until(lambda: checks.running == 1, lambda: fetch(server.public, host="x"))
        await wait_until(lambda: True, lambda: fetch(server.public, host="x"))
        async with tenant(server.control, "other"):
            while (await fetch(server.public, host="app.localhost")).status != 404:
                pass
            checks.let_go()
            answer = parse(await receive_all(visitor))
            assert (answer.status, code_of(answer)) == (404, "tunnel_not_found")


async def test_a_tunnel_with_other_rules_in_its_place_has_its_own_say(server: RunningServer, checks: Checks) -> None:
    checks.hold()
    async with await connect(server.public) as visitor:
        async with tenant(server.control, "app", basic_auth=[ANN]):
            await visitor.send_all(request("/", GOOD, "Connection: close"))
            await wait_until(lambda: checks.running == 1, lambda: fetch(server.public, host="x"))
        while (await fetch(server.public)).status != 404:
            pass
        async with tenant(server.control, "app", deny_ip=["127.0.0.1"]) as app:
            checks.let_go()
            assert parse(await receive_all(visitor)).status == 403
            assert not app.streams


async def test_whoever_waits_for_too_long_is_told_to_come_again(start_server, checks: Checks) -> None:
    server = await start_server(timeouts=HttpTimeouts(head=0.3))
    checks.hold()
    async with tenant(server.control, "app", basic_auth=[ANN]):
        answer = await fetch(server.public, "/", GOOD)
        assert (answer.status, code_of(answer)) == (503, "busy")
        assert int(answer.fields["Retry-After"]) > 0
        checks.let_go()


async def test_a_check_that_fails_is_nobodys_failure(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def is_right(login: object, password: str) -> bool:
        raise MemoryError

    async with tenant(server.control, "app", basic_auth=[ANN]):
        with monkeypatch.context() as broken:
            broken.setattr("otun.access.passwords.Login.is_right", is_right)
            for _ in range(20):
                answer = await fetch(server.public, "/", GOOD)
                assert (answer.status, code_of(answer)) == (503, "busy")
        assert (await fetch(server.public, "/", GOOD)).status == 200
    assert "a password could not be checked" in caplog.text
    assert "s3cret" not in caplog.text
    caplog.clear()
    caplog.get_records("call").clear()


# Failing


async def test_failures_are_answered_late_and_then_not_looked_at(
    server: RunningServer, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "DELAY", 0.01)
    async with tenant(server.control, "app", basic_auth=[ANN]) as app, conversation(server.public) as known:
        assert (await known.ask("/", GOOD)).status == 200
        for _ in range(failures.MAX_FAILURES):
            assert (await fetch(server.public, "/", BAD)).status == 401
        for field in (BAD, authorization("ann", "other"), authorization("bob", "x")):
            answer = await fetch(server.public, "/", field)
            assert (answer.status, code_of(answer)) == (429, "too_many_logins")
            assert 0 < int(answer.fields["Retry-After"]) <= failures.REFUSAL_TIME
        assert checks.passwords == ["s3cret"] + ["wrong"] * failures.MAX_FAILURES
        # Whoever is logged in stays so, also on a new connection; and asking for a log-in is no failure.
        assert (await known.ask("/", GOOD)).status == 200
        assert (await fetch(server.public, "/", GOOD)).status == 200
        assert (await fetch(server.public)).status == 401
        assert len(app.heads) == 3


async def test_a_late_answer_is_late(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FREE_FAILURES", 0)
    monkeypatch.setattr(failures, "DELAY", 0.6)
    async with tenant(server.control, "app", basic_auth=[ANN]), await connect(server.public) as visitor:
        began = trio.current_time()
        await visitor.send_all(request("/", BAD))
        await visitor.send_eof()  # Whoever has finished is not told any sooner.
        assert (await receive_answer(visitor)).status == 401
        assert trio.current_time() - began >= 0.6


async def test_missing_and_unreadable_log_ins_are_no_failures(server: RunningServer, checks: Checks) -> None:
    async with tenant(server.control, "app", basic_auth=[ANN]):
        for number in range(3 * failures.MAX_FAILURES):
            fields = [[], ["Authorization: Basic !"], ["Authorization: Bearer x"]][number % 3]
            assert (await fetch(server.public, "/", *fields)).status == 401
        assert checks.passwords == []
        assert (await fetch(server.public, "/", GOOD)).status == 200


# Registering


@pytest.mark.parametrize(
    "fields",
    [
        {"basic_auth": ["ann:plain"]},
        {"basic_auth": [ANN.replace("m=8", "m=65537")]},
        {"basic_auth": [ANN.replace("t=1", "t=5")]},
        {"basic_auth": [ANN.replace("p=1", "p=9")]},
        {"basic_auth": [ANN, ANN]},
        {"basic_auth": [f"{number}{ANN}" for number in range(33)]},
        {"allow_ip": ["x"]},
        {"deny_ip": ["10.0.0.1/8"]},
        {"allow_ip": [f"10.0.{number}.0/24" for number in range(256)] + ["::1"]},
        {"require_header": ["a b"]},
        {"require_header": ["Host"]},
        {"require_header": ["X"] * 9},
        {"require_header": ["X: " + "y" * 600]},
        {"require_header": ["Authorization"], "basic_auth": [ANN]},
        {"kind": "tcp", "basic_auth": [ANN]},
        {"kind": "tcp", "require_header": ["X"]},
        {"kind": "tls", "basic_auth": [ANN]},
    ],
    ids=range(17),
)
async def test_rules_that_cannot_be_kept_are_refused(start_server, fields: dict[str, object]) -> None:
    server = await start_server()
    async with raw_client(server.control) as client:
        answer = await client.register("app", **fields)
        expected = {"protection_invalid", "kind_unknown"} if fields.get("kind") == "tls" else {"protection_invalid"}
        assert (answer["type"], answer["code"] in expected) == ("error", True)
        assert "plain" not in str(answer)


async def test_the_answer_names_what_is_in_force(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        answer = await client.register("app", basic_auth=[ANN], allow_ip=["::1"], deny_ip=[], require_header=["X"])
        assert answer["protections"] == ["basic_auth", "allow_ip", "require_header"]
    async with raw_client(server.control) as client:
        assert "protections" not in await client.register("open")


# Many requests


async def test_a_tunnel_gets_only_so_many_requests_a_second(start_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start_server(max_requests=1)
    async with (
        tenant(server.control, "app", basic_auth=[ANN]) as app,
        tenant(server.control, "other"),
        conversation(server.public) as visitor,
    ):
        for _ in range(30):
            assert (await fetch(server.public)).status == 401  # These are not the tunnel's.
        statuses = []
        while 429 not in statuses:
            answer = await visitor.ask("/", GOOD)
            statuses.append(answer.status)
        assert len(statuses) >= 10 + 1
        assert code_of(answer) == "too_many_requests"
        assert int(answer.fields["Retry-After"]) == 1
        assert len(app.heads) == len(statuses) - 1
        assert (await fetch(server.public, host="other.localhost")).status == 200


# Secrets


async def test_no_secret_is_logged(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with tenant(server.control, "app", basic_auth=[ANN], require_header=["X-Key: k3y"]):
        for fields in (
            [GOOD, "X-Key: k3y"],
            [BAD, "X-Key: k3y"],
            [authorization("us3r", "wr0ng"), "X-Key: k3y"],
            [GOOD],
        ):
            await fetch(server.public, "/", *fields)
    assert "visitor 127.0.0.1" in caplog.text
    assert "wrong log-in at tunnel app" in caplog.text
    for secret in ("s3cret", "k3y", "wr0ng", "us3r", ANN.partition(":")[2], GOOD.split()[-1]):
        assert secret not in caplog.text
