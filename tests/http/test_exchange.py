import gc
import weakref
from typing import TypeAlias

import pytest

from otun.http.exchange import MAX_OUTSTANDING, MAX_TARGET_LENGTH, Exchange, ExchangeObserver

Seen: TypeAlias = tuple[str, str, int | None]

GET = b"GET /get HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OK_TO_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"


class Log:
    """An observer, and what it has reported so far."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.observer = ExchangeObserver(self.exchanges.append)

    def sends(self, data: bytes | memoryview, now: float = 0.0) -> "Log":
        self.observer.request_bytes(data, now)
        return self

    def answers(self, data: bytes | memoryview, now: float = 0.0) -> "Log":
        self.observer.response_bytes(data, now)
        return self

    def ends(self, now: float = 0.0) -> "Log":
        self.observer.ended(now)
        return self

    @property
    def seen(self) -> list[Seen]:
        return [(exchange.method, exchange.target, exchange.status) for exchange in self.exchanges]


def test_an_exchange_lasts_from_the_requests_first_byte_to_the_answers_last() -> None:
    log = Log().sends(GET[:5], 10.0).sends(GET[5:], 11.0).answers(OK[:30], 12.0).answers(OK[30:-1], 13.0)
    assert log.exchanges == []
    log.answers(OK[-1:], 14.5)
    assert log.exchanges == [Exchange("GET", "/get", 200, 4.5)]
    assert log.ends(20.0).exchanges == [Exchange("GET", "/get", 200, 4.5)]


def test_empty_lines_between_requests_do_not_start_the_clock() -> None:
    log = Log().sends(GET, 1.0).answers(OK, 2.0).sends(b"\r\n", 3.0).sends(GET, 5.0).answers(NOT_FOUND, 5.5)
    assert [exchange.duration for exchange in log.exchanges] == [1.0, 0.5]


def test_keep_alive_is_followed() -> None:
    log = Log()
    for number in range(200):
        log.sends(b"GET /%d HTTP/1.1\r\n\r\n" % number).answers(OK)
    assert log.seen == [("GET", f"/{number}", 200) for number in range(200)]


def test_pipelined_requests_get_their_answers_in_order() -> None:
    log = Log().sends(GET + HEAD + GET).answers(NOT_FOUND + OK_TO_HEAD + OK)
    assert log.seen == [("GET", "/get", 404), ("HEAD", "/head", 200), ("GET", "/get", 200)]


def test_a_body_that_looks_like_messages_is_a_body() -> None:
    body = GET + b"\r\n\r\n" + OK
    log = Log().sends(b"POST /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body + HEAD)
    log.answers(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body + OK_TO_HEAD)
    assert log.seen == [("POST", "/p", 201), ("HEAD", "/head", 200)]


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"X: no length",
        b"Connection: keep-alive",
    ],
)
def test_an_answer_to_head_has_no_body_whatever_its_fields_say(fields: bytes) -> None:
    log = Log().sends(HEAD).answers(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n", 1.0)
    assert log.seen == [("HEAD", "/head", 200)]
    assert log.sends(GET).answers(OK).seen[1:] == [("GET", "/get", 200)]
    assert log.sends(HEAD + HEAD).answers(OK_TO_HEAD + NOT_FOUND).seen[2:] == [
        ("HEAD", "/head", 200),
        ("HEAD", "/head", 404),
    ]


def test_interim_answers_are_not_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    log = Log().sends(GET + HEAD).answers(interim, 1.0)
    assert log.exchanges == []
    log.answers(OK + interim, 2.0).answers(OK_TO_HEAD, 3.0)
    assert log.exchanges == [Exchange("GET", "/get", 200, 2.0), Exchange("HEAD", "/head", 200, 3.0)]


def test_an_interim_answer_to_nothing_is_let_pass() -> None:
    log = Log().answers(b"HTTP/1.1 103 Early Hints\r\n\r\n").sends(GET).answers(OK)
    assert log.seen == [("GET", "/get", 200)]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_cannot_have_a_body_have_none(status: int) -> None:
    log = Log().sends(GET + GET).answers(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status + OK)
    assert log.seen == [("GET", "/get", status), ("GET", "/get", 200)]


@pytest.mark.parametrize("head", [SWITCHING, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_101_is_reported_at_once_and_ends_the_observation(head: bytes) -> None:
    log = Log().sends(UPGRADE, 1.0).answers(head + b"\x81\x05hello", 2.0)
    assert log.exchanges == [Exchange("GET", "/ws", 101, 1.0)]
    log.sends(GET).answers(OK).sends(b"\x81\x00").answers(b"\x81\x00").ends(9.0)
    assert len(log.exchanges) == 1


def test_requests_behind_an_upgrade_are_not_reported() -> None:
    assert Log().sends(GET + HEAD).answers(SWITCHING).ends().seen == [("GET", "/get", 101)]


def test_a_connect_that_succeeds_ends_the_observation() -> None:
    log = Log().sends(b"CONNECT a:443 HTTP/1.1\r\n\r\n").answers(b"HTTP/1.1 200 OK\r\n\r\n")
    assert log.seen == [("CONNECT", "a:443", 200)]
    assert len(log.sends(GET).answers(OK).ends().exchanges) == 1


@pytest.mark.parametrize("first", [UPGRADE, b"CONNECT a:443 HTTP/1.1\r\n\r\n"])
def test_http_goes_on_after_an_upgrade_that_was_refused(first: bytes) -> None:
    log = Log().sends(first).answers(NOT_FOUND).sends(GET).answers(OK).sends(HEAD).answers(OK_TO_HEAD)
    assert [status for _, _, status in log.seen] == [404, 200, 200]


def test_the_body_of_a_request_to_upgrade_is_passed_over() -> None:
    # What Java's client sends first on every connection, unless told otherwise.
    head = b"POST /p HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(GET)
    log = Log().sends(head + GET[:9]).sends(GET[9:]).answers(OK).sends(GET).answers(NOT_FOUND).ends()
    assert log.seen == [("POST", "/p", 200), ("GET", "/get", 404)]


def test_an_answer_that_offers_an_upgrade_is_an_ordinary_answer() -> None:
    offer = b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok"
    assert Log().sends(GET + GET).answers(offer + OK).seen == [("GET", "/get", 200)] * 2


def test_an_answer_ended_by_the_connections_end_lasts_until_its_last_byte() -> None:
    log = Log().sends(GET, 1.0).answers(b"HTTP/1.1 200 OK\r\n\r\nsome", 2.0).answers(b"more", 4.0)
    assert log.exchanges == []
    assert log.ends(60.0).exchanges == [Exchange("GET", "/get", 200, 3.0)]
    assert len(log.ends(61.0).exchanges) == 1


def test_an_answer_cut_short_is_reported_with_its_status() -> None:
    assert Log().sends(GET, 1.0).answers(OK[:-2], 2.0).ends(3.0).exchanges == [Exchange("GET", "/get", 200, 1.0)]


def test_requests_without_an_answer_are_reported_without_a_status() -> None:
    log = Log().sends(GET, 1.0).sends(HEAD, 2.0).ends(5.0)
    assert log.exchanges == [Exchange("GET", "/get", None, 4.0), Exchange("HEAD", "/head", None, 3.0)]


def test_an_answer_is_observed_while_the_request_is_still_being_sent() -> None:
    log = Log().sends(b"POST /p HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome", 1.0)
    log.answers(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 2.0)
    assert log.exchanges == [Exchange("POST", "/p", 413, 1.0)]


def test_an_answer_to_nothing_ends_the_observation() -> None:
    log = Log().sends(GET).answers(OK).answers(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    log.sends(GET).answers(OK).ends()
    assert log.seen == [("GET", "/get", 200)]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_what_is_no_http_is_left_alone(garbage: bytes) -> None:
    log = Log().sends(garbage).answers(garbage).sends(GET).answers(OK).ends()
    assert log.exchanges == []


def test_what_was_asked_before_the_visitor_stopped_speaking_http_is_still_reported() -> None:
    log = Log().sends(GET + HEAD + b"\x00\x01").sends(GET).answers(NOT_FOUND + OK_TO_HEAD).answers(OK).ends()
    assert log.seen == [("GET", "/get", 404), ("HEAD", "/head", 200)]


def test_a_service_that_stops_speaking_http_has_not_answered() -> None:
    log = Log().sends(GET, 1.0).answers(b"SSH-2.0-x\r\n", 2.0).answers(OK, 3.0).sends(GET, 4.0).ends(5.0)
    assert log.exchanges == [Exchange("GET", "/get", None, 4.0)]


def test_a_target_is_cut() -> None:
    target = b"/" + b"x" * 20_000
    pieces = [b"GET " + target[:2000], target[2000:2100], target[2100:] + b" HTTP/1.1\r\n\r\n"]
    log = Log()
    for piece in pieces:
        log.sends(piece)
    assert log.answers(OK).seen == [("GET", target[:MAX_TARGET_LENGTH].decode(), 200)]


def test_more_outstanding_requests_than_the_limit_end_the_observation_after_their_answers() -> None:
    log = Log().sends(GET * (MAX_OUTSTANDING - 1)).sends(HEAD + GET).sends(GET)
    log.answers(OK * (MAX_OUTSTANDING - 1) + OK_TO_HEAD + OK + OK)
    assert log.seen == [("GET", "/get", 200)] * (MAX_OUTSTANDING - 1) + [("HEAD", "/head", 200)]
    assert len(log.sends(GET).answers(OK).ends().exchanges) == MAX_OUTSTANDING


def test_what_on_exchange_raises_reaches_the_caller() -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError(exchange.target)

    observer = ExchangeObserver(fail)
    observer.request_bytes(GET + GET, 0.0)
    with pytest.raises(RuntimeError, match="/get"):
        observer.response_bytes(OK, 0.0)
    with pytest.raises(RuntimeError, match="/get"):
        observer.ended(1.0)


def test_an_ended_observer_needs_no_garbage_collector_to_be_freed() -> None:
    gc.disable()
    try:
        observer = ExchangeObserver(lambda exchange: None)
        observer.request_bytes(GET + HEAD, 0.0)
        observer.response_bytes(OK + OK_TO_HEAD, 0.0)
        observer.ended(1.0)
        watched = [weakref.ref(part) for part in (observer, observer._requests, observer._responses)]
        del observer
        assert [part() for part in watched] == [None, None, None]
    finally:
        gc.enable()
