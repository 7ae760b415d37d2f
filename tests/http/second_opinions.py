"""How h11 and httptools (llhttp) read a connection's bytes: the second opinions on requests."""

from typing import Final, Literal

import attrs
import h11
import httptools

from .messages import Field, Request, normalize_host, values_of

_MAX_HEAD: Final = 64 * 1024


@attrs.frozen
class Opinion:
    """The complete requests in some bytes, and why there are no more.

    ``open``: the next one could follow, or is incomplete; ``closed``: the last one was said to be the last;
    ``refused``: what follows is no request.
    """

    requests: tuple[Request, ...]
    ending: Literal["open", "closed", "refused"]


def read_with_h11(data: bytes) -> Opinion:
    """Read *data* as h11 does, whose answers are all empty: nothing is found."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
    requests: list[Request] = []
    head: h11.Request | None = None
    body = bytearray()
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            match event:
                case h11.Request():
                    head = event
                    body.clear()
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert head is not None
                    requests.append(request_of_h11(head, bytes(body), event))
                    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is not h11.DONE:
                        return Opinion(tuple(requests), "closed")
                    connection.start_next_cycle()
                case _:
                    return Opinion(tuple(requests), "open")
    except h11.RemoteProtocolError:
        return Opinion(tuple(requests), "refused")


def request_of_h11(head: h11.Request, body: bytes, end: h11.EndOfMessage) -> Request:
    """Return the request that h11's events tell of."""
    fields = _to_fields(head.headers.raw_items())
    host = normalize_host(next(iter(values_of(fields, "host")), ""))
    trailers = _to_fields(end.headers.raw_items())
    method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
    return Request(method, target, host, body.decode("latin-1"), trailers, fields)


def _to_fields(items: list[tuple[bytes, bytes]]) -> tuple[Field, ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in items)


def read_with_httptools(data: bytes) -> Opinion:
    """Read *data* as llhttp does in its strict mode, when nobody agrees to speak another protocol."""
    requests: list[Request] = []
    while True:
        findings = _Findings(requests)
        parser = httptools.HttpRequestParser(findings)
        findings.parser = parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            data = data[upgrade.args[0] :]  # All that llhttp says of where the head has ended.
        except httptools.HttpParserError:
            return Opinion(tuple(requests), "closed" if findings.is_last else "refused")
        else:
            return Opinion(tuple(requests), "closed" if findings.is_last else "open")
        finally:
            findings.parser = None  # Breaks the cycle.


@attrs.define(eq=False)
class _Findings:
    requests: list[Request]
    parser: httptools.HttpRequestParser | None = None
    is_last: bool = False
    _target: bytes = b""
    _fields: list[Field] = attrs.field(factory=list)
    _field_count: int = 0
    _body: bytearray = attrs.field(factory=bytearray)

    def on_message_begin(self) -> None:
        self._target, self._fields, self._field_count = b"", [], 0
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("latin-1"), value.rstrip(b" \t").decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._field_count = len(self._fields)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        fields = tuple(self._fields[: self._field_count])
        trailers = tuple(self._fields[self._field_count :])
        host = normalize_host(next(iter(values_of(fields, "host")), ""))
        method, body = self.parser.get_method().decode("latin-1"), self._body.decode("latin-1")
        self.requests.append(Request(method, self._target.decode("latin-1"), host, body, trailers, fields))
        self.is_last = not self.parser.should_keep_alive()
