"""What is asked on the admin socket, without a socket."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otun.server.admin.requests import (
    MAX_LINE,
    MAX_TIME,
    AddBan,
    BadCommand,
    BansWanted,
    Kick,
    Lines,
    RemoveBan,
    Request,
    SessionsWanted,
    StatusWanted,
    parse_request,
)

EMOJI = "\N{PILE OF POO}"

GOOD: list[tuple[dict[str, object], Request]] = [
    ({"do": "status"}, StatusWanted()),
    ({"do": "sessions"}, SessionsWanted(0)),
    ({"do": "sessions", "after": 7}, SessionsWanted(7)),
    ({"do": "sessions", "after": None}, SessionsWanted(0)),
    ({"do": "kick", "who": "App"}, Kick("App")),
    ({"do": "ban", "network": "192.0.2.0/24"}, AddBan("192.0.2.0/24")),
    ({"do": "ban", "network": "192.0.2.1"}, AddBan("192.0.2.1/32")),
    ({"do": "ban", "network": "::ffff:192.0.2.1"}, AddBan("192.0.2.1/32")),
    ({"do": "ban", "network": "2001:DB8::/32", "until": 9, "reason": EMOJI}, AddBan("2001:db8::/32", 9, EMOJI)),
    ({"do": "ban", "network": "::/0", "force": True}, AddBan("::/0")),
    ({"do": "unban", "network": "127.0.0.1"}, RemoveBan("127.0.0.1/32")),
    ({"do": "bans", "after": "1"}, BansWanted("1")),
]

BAD: list[tuple[bytes | dict[str, object], str]] = [
    (b"", "a request is not valid JSON"),
    (b"\xff", "a request is not valid UTF-8 at byte 0"),
    (b"{", "a request is not valid JSON"),
    (b"[" * 4000, "a request is nested too deep|a request is not valid JSON"),
    (b'{"do":' * 600, "a request is nested too deep|a request is not valid JSON"),
    (b"null", "a request must be a JSON object, not null"),
    (b'"status"', "a request must be a JSON object, not a string"),
    (b'{"do":"status"} x', "a request is not valid JSON"),
    (b'{"do":"status","do":"kick"}', "a request has the field 'do' twice"),
    (b'{"do":"sessions","after":' + b"9" * 1000 + b"}", "a request has a number of 1000 characters"),
    (b'{"do":"sessions","after":NaN}', "a request has the number NaN"),
    (b'{"do":"kick","who":"\\ud800"}', "a request holds half of a surrogate pair"),
    ({}, "a request has no field 'do'"),
    ({"do": None}, "a request has no field 'do'"),
    ({"do": 5}, "do: expected a string, got a number"),
    ({"do": "x" * 21}, "do: 21 characters are more than 20"),
    ({"do": EMOJI}, "a request wants '.U0001f4a9', which this server cannot do"),
    ({"do": "status", "x\0": 1}, "a request has the unknown field 'x.x00'"),
    ({"do": "sessions", "after": "7"}, "after: expected a whole number, got a string"),
    ({"do": "sessions", "after": True}, "after: expected a whole number, got a boolean"),
    ({"do": "sessions", "after": 1.5}, "after: expected a whole number, got a number"),
    ({"do": "sessions", "after": -1}, "after: -1 is not between"),
    ({"do": "sessions", "after": MAX_TIME + 1}, "after: .* is not between"),
    ({"do": "sessions", "after": 10**63}, "after: 1000.* is not between"),
    ({"do": "kick"}, "a request has no field 'who'"),
    ({"do": "kick", "who": ["app"]}, "who: expected a string, got an array"),
    ({"do": "kick", "who": "x" * 300}, "who: 300 characters are more than 260"),
    ({"do": "ban"}, "a request has no field 'network'"),
    ({"do": "ban", "network": "x"}, "'x' is no IP address and no network"),
    ({"do": "ban", "network": EMOJI}, "is no IP address and no network"),
    ({"do": "ban", "network": "10.0.0.1/8"}, "is no IP address and no network"),
    ({"do": "ban", "network": "fe80::1%eth0"}, "has a zone"),
    ({"do": "ban", "network": "0.0.0.0/0"}, "every address of its kind, too; .* use --force"),
    ({"do": "ban", "network": "127.0.0.1", "force": False}, "this machine itself, too; .* use --force"),
    ({"do": "ban", "network": "::/0", "force": "yes"}, "force: expected a boolean, got a string"),
    ({"do": "ban", "network": "10.0.0.0/8", "until": -5}, "until: -5 is not between"),
    ({"do": "ban", "network": "10.0.0.0/8", "reason": "a\x1b[2J"}, "a reason is one line"),
    ({"do": "ban", "network": "10.0.0.0/8", "reason": "x" * 201}, "reason: 201 characters are more than 200"),
    ({"do": "ban", "network": "10.0.0.0/8", "why": "x"}, "a request has the unknown field 'why'"),
    ({"do": "unban", "network": "10.0.0.0/8", "force": True}, "a request has the unknown field 'force'"),
    ({"do": "bans", "after": 0}, "after: expected a string, got a number"),
]


@pytest.mark.parametrize(("fields", "request_"), GOOD)
def test_requests_are_read(fields: dict[str, object], request_: Request) -> None:
    assert parse_request(json.dumps(fields).encode()) == request_
    assert len(json.dumps(fields)) <= MAX_LINE


@pytest.mark.parametrize(("sent", "problem"), BAD, ids=range(len(BAD)))
def test_a_mistake_is_one_clear_line(sent: bytes | dict[str, object], problem: str) -> None:
    with pytest.raises(BadCommand) as caught:
        parse_request(sent if isinstance(sent, bytes) else json.dumps(sent).encode())
    assert re.search(problem, str(caught.value)), str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert caught.value.code == "bad_request"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["status", "kick", "ban", "10.0.0.0/8", "::/0"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
NAMES = st.sampled_from(["do", "who", "after", "network", "until", "reason", "force"]) | st.text(max_size=5)
DO = st.sampled_from(["status", "sessions", "kick", "ban", "unban", "bans"])


@given(
    st.binary(max_size=200)
    | st.dictionaries(NAMES, VALUES, max_size=5).map(lambda fields: json.dumps(fields).encode())
    | st.builds(
        lambda do, fields: json.dumps({**fields, "do": do}).encode(), DO, st.dictionaries(NAMES, VALUES, max_size=4)
    )
)
@example(b"1" * MAX_LINE)
@example(b"[" * MAX_LINE)
@example(b'{"do":"kick","who":"' + b"\\u0000" * 100 + b'"}')
def test_anything_is_a_request_or_a_mistake(line: bytes) -> None:
    problem = ""
    try:
        parse_request(line)
    except BadCommand as error:
        problem = str(error)
    assert not problem or problem.isprintable()
    assert len(problem) < 400


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_they_are_cut(expected: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    lines, found = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        lines.feed(stream[start:end])
        while (line := lines.next_line()) is not None:
            found.append(line)
    assert found == expected
    assert not lines.has_begun


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_has_a_longest_length(end: bytes) -> None:
    lines = Lines()
    lines.feed(b"x" * MAX_LINE + end)
    assert lines.next_line() == (b"x" * MAX_LINE if end else None)
    lines.feed(b"x" * (MAX_LINE + 1) + end)
    with pytest.raises(BadCommand, match=f"^a request is longer than {MAX_LINE} bytes$"):
        lines.next_line()
