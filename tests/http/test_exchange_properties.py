from collections.abc import Callable
from typing import TypeAlias

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from otun.http.exchange import Exchange, ExchangeObserver

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


@attrs.frozen
class Step:
    """One exchange of a made-up dialogue, as bytes and as it should be reported."""

    request: bytes
    response: bytes
    seen: Seen


bodies = st.binary(max_size=30) | st.sampled_from([b"\r\n\r\n", b"\n", OK, GET, b"HTTP/1.1 500 X\r\n\r\n"])


def counted(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    chunks = b"%x\r\n" % len(body) + body + b"\r\n" if body else b""
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: t\r\n\r\n"


framings: st.SearchStrategy[Callable[[bytes], bytes]] = st.sampled_from([counted, chunked])


@st.composite
def steps(draw: st.DrawFn) -> Step:
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "DELETE"]))
    target = "/" + draw(st.text("ab/%2", max_size=5))
    body = draw(framings)(draw(bodies)) if method == "POST" else b"\r\n"
    request = f"{method} {target} HTTP/1.1\r\nHost: a\r\n".encode() + body
    interim = draw(
        st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"])
    )
    status = draw(st.sampled_from([200, 204, 304, 404, 500]))
    answer = draw(framings)(draw(bodies))
    if method == "HEAD" or status in (204, 304):
        answer = answer[: answer.index(b"\r\n\r\n") + 4]
    response = interim + b"HTTP/1.1 %d X\r\nServer: s\r\n" % status + answer
    return Step(request, response, (method, target, status))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


cuts = st.lists(st.integers(0, 2000), max_size=20)


@given(st.lists(steps(), max_size=8), cuts, cuts)
@example([Step(HEAD, OK_TO_HEAD, ("HEAD", "/head", 200)), Step(GET, OK, ("GET", "/get", 200))], [], [36, 37, 38, 39])
def test_a_pipelined_dialogue_split_anywhere_is_reported_in_full(
    dialogue: list[Step], request_cuts: list[int], response_cuts: list[int]
) -> None:
    log = Log()
    for piece in split(b"".join(step.request for step in dialogue), request_cuts):
        log.sends(piece)
    for piece in split(b"".join(step.response for step in dialogue), response_cuts):
        log.answers(memoryview(piece))
    assert log.seen == [step.seen for step in dialogue]
    assert log.ends().seen == [step.seen for step in dialogue]


@given(st.lists(steps(), max_size=4))
def test_a_dialogue_byte_by_byte_and_in_turns_is_reported_in_full(dialogue: list[Step]) -> None:
    log = Log()
    for number, step in enumerate(dialogue):
        for index in range(len(step.request)):
            log.sends(step.request[index : index + 1])
        for index in range(len(step.response)):
            assert len(log.exchanges) == number
            log.answers(step.response[index : index + 1])
    assert log.seen == [step.seen for step in dialogue]


fragments = st.sampled_from(
    [GET, HEAD, UPGRADE, OK, OK_TO_HEAD, NOT_FOUND, SWITCHING, GET[:9], OK[:20], b"\r\n", b"\x00"]
)


@given(st.lists(st.tuples(st.booleans(), fragments | st.binary(max_size=20)), max_size=30))
def test_any_bytes_in_any_order_are_borne(events: list[tuple[bool, bytes]]) -> None:
    log = Log()
    for now, (is_request, data) in enumerate(events):
        if is_request:
            log.sends(data, float(now))
        else:
            log.answers(data, float(now))
    log.ends(float(len(events)))
    assert all(0.0 <= exchange.duration <= len(events) for exchange in log.exchanges)
