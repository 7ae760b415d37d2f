import json
from html.parser import HTMLParser
from typing import get_args

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import BadRequest
from otun.http import pages
from otun.http.fields import Field
from otun.http.head import RequestHead
from otun.http.pages import Page

REPLIES: dict[str, tuple[Page, int]] = {
    "tunnel_not_found": (pages.tunnel_not_found("blog.example.com"), 404),
    "no_tunnel_yet": (pages.no_tunnel_yet(), 404),
    "local_service_unreachable": (pages.local_service_unreachable("127.0.0.1:3000", "connection refused"), 502),
    "local_service_reset": (pages.local_service_reset("127.0.0.1:3000"), 502),
    "local_service_timeout": (pages.local_service_timeout("127.0.0.1:3000", 300), 504),
    "empty_reply": (pages.empty_reply(), 502),
    "bad_response": (pages.bad_response("127.0.0.1:3000", "it is malformed"), 502),
    "tunnel_closed": (pages.tunnel_lost(), 502),
    "bad_request": (pages.bad_request(BadRequest("no Host")), 400),
    "request_timeout": (pages.request_timeout("head", 10), 408),
    "busy": (pages.busy(), 503),
    "unhealthy": (pages.unhealthy(), 503),
    "server_full": (pages.server_full(), 503),
    "https_needed": (pages.https_needed(), 400),
    "misdirected": (pages.misdirected("app.example.com"), 421),
    "banned": (pages.banned(), 403),
    "forbidden": (pages.forbidden(), 403),
    "login_required": (pages.login_required("app"), 401),
    "too_many_logins": (pages.too_many_logins(0.5), 429),
    "too_many_requests": (pages.too_many_requests(1.5), 429),
    "daily_limit": (pages.daily_limit(3600.5), 429),
}


def request(method: str = "GET", accept: str | None = None) -> RequestHead:
    fields = [] if accept is None else [Field.of(b"Accept", accept.encode())]
    return RequestHead(method, "/", "a", "1.1", fields=fields)


reply_names = pytest.mark.parametrize("code", list(REPLIES))


def parse(reply: bytes, method: str = "GET") -> tuple[h11.Response, str]:
    """Read *reply* as a client would; the connection must end with it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(reply)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    assert client.trailing_data == (b"", False)
    return response, body.decode("utf-8")


def fields(response: h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in response.headers}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


def tags(html: str) -> list[str]:
    parser = _Tags()
    parser.feed(html)
    return parser.seen


@reply_names
def test_every_reply_is_a_whole_response_that_says_what_it_is(code: str) -> None:
    page, status = REPLIES[code]
    response, body = parse(page.write())
    named = fields(response)
    assert response.status_code == status
    assert named["otun-error"] == code
    assert named["content-type"] == "text/html; charset=utf-8"
    assert named["connection"] == "close"
    assert named["cache-control"] == "no-store"
    assert int(named["content-length"]) == len(body.encode())
    assert "otun" in body
    assert '<meta name="viewport"' in body


@reply_names
def test_a_reply_to_head_has_the_same_fields_and_no_body(code: str) -> None:
    page, _ = REPLIES[code]
    whole, head = page.write(request()), page.write(request("HEAD"))
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1
    assert parse(head, "HEAD")[1] == ""


def test_a_log_in_is_asked_for_by_name() -> None:
    response, _ = parse(pages.login_required("my-app").write())
    assert fields(response)["www-authenticate"] == 'Basic realm="my-app", charset="UTF-8"'


@pytest.mark.parametrize("realm", ["", 'a"b', "a b", "a\r\nb", "x" * 64, "é"])
def test_no_other_text_gets_into_that_field(realm: str) -> None:
    with pytest.raises(ValueError, match="is no tunnel's name"):
        pages.login_required(realm)


@pytest.mark.parametrize(("seconds", "told"), [(0.001, "1"), (1.0, "1"), (1.01, "2"), (300, "300")])
def test_whoever_comes_again_as_told_comes_late_enough(seconds: float, told: str) -> None:
    for page in (pages.too_many_logins(seconds), pages.too_many_requests(seconds)):
        response, body = parse(page.write())
        assert fields(response)["retry-after"] == told
        assert f"Try again in {told} seconds" in body


def test_every_error_code_has_its_reply() -> None:
    assert set(REPLIES) == set(get_args(pages.ErrorCode))


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8", False),
        ("text/html;q=0.5, application/json", True),
        ("application/problem+json", True),
        ("application/json;q=0", False),
        ("application/json;q=nonsense", False),
        ("," * 5000 + "application/json", False),
    ],
)
def test_who_prefers_json_gets_it(accept: str | None, is_json: bool) -> None:
    response, body = parse(pages.busy().write(request(accept=accept)))
    assert fields(response)["content-type"] == ("application/json" if is_json else "text/html; charset=utf-8")
    if is_json:
        told = json.loads(body)
        assert told["error"] == "busy"
        assert told["status"] == 503
        assert told["title"] == "Too many visitors at the moment"


def test_an_unreachable_service_is_named_with_the_reason() -> None:
    _, body = parse(pages.local_service_unreachable("127.0.0.1:3000", "connection refused").write())
    assert "127.0.0.1:3000: connection refused" in body


def test_a_missing_tunnel_is_named() -> None:
    assert "no tunnel at blog.example.com" in parse(pages.tunnel_not_found("blog.example.com").write())[1]
    assert "did not say which host" in parse(pages.tunnel_not_found("").write())[1]


@pytest.mark.parametrize("status", [400, 405, 414, 431, 501, 505])
def test_a_refusal_carries_its_status_and_text(status: int) -> None:
    response, body = parse(pages.bad_request(BadRequest("the target is over 9 bytes", status=status)).write())
    assert response.status_code == status
    assert "The target is over 9 bytes." in body


def test_405_names_the_methods_that_would_do() -> None:
    assert "GET" in fields(parse(pages.bad_request(BadRequest("no", status=405)).write())[0])["allow"]


def test_a_busy_server_says_when_to_come_back() -> None:
    assert fields(parse(pages.busy().write())[0])["retry-after"] == str(pages.RETRY_AFTER)


def test_an_unknown_status_or_code_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="999"):
        Page(999, "busy", "title")
    with pytest.raises(ValueError, match="not an error code"):
        Page(400, "busy\r\nX: y", "title")  # type: ignore[arg-type]  # what a type checker would catch


def test_long_text_from_outside_is_shortened() -> None:
    assert (
        len(pages.tunnel_not_found("a" * 100_000).write())
        < len(pages.tunnel_not_found("a").write()) + pages.MAX_SHOWN + 10
    )


def test_text_from_outside_cannot_hide_or_reorder_anything() -> None:
    _, body = parse(pages.tunnel_not_found("a\x1b[31m\u202eb").write())
    assert "\x1b" not in body
    assert "\u202e" not in body


hostile = st.text(max_size=200) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "a\r\nSet-Cookie: x=y\r\n\r\n",
        '"><img src=x onerror=alert(1)>',
        "\udcff",
        "&amp;",
        "\x00",
    ]
)


@given(hostile, hostile)
def test_text_from_outside_adds_no_field_and_no_tag(text: str, other: str) -> None:
    for reply, plain in [
        (pages.tunnel_not_found(f"x{text}").write(), pages.tunnel_not_found("x").write()),
        (pages.local_service_unreachable(text, other).write(), pages.local_service_unreachable("x", "x").write()),
        (pages.bad_request(BadRequest(text)).write(), pages.bad_request(BadRequest("x")).write()),
    ]:
        response, body = parse(reply)
        plain_response, plain_body = parse(plain)
        assert list(fields(response)) == list(fields(plain_response))
        assert tags(body) == tags(plain_body)
