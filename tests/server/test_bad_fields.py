"""Fields of a registration that hold anything but what they should."""

import json
from typing import Final

import pytest

from .harness import RunningServer
from .raw_client import raw_client

SECRET: Final = "a-token-that-nobody-repeats"
EMOJI: Final = "\U0001f600"

WRONG_TYPES: Final = [5, -1, 1.5, True, [], ["x"], {}, {"x": SECRET}, [SECRET], [[]]]
BAD_TEXTS: Final = ["\x00", "\x1b[31m\r\n", EMOJI, "\u202e", "x" * 60_000, " ", "../..", "a" * 64]


@pytest.fixture
def engine() -> None:
    """Any: messages do not depend on how bytes are moved."""


@pytest.fixture
async def server(start_server) -> RunningServer:
    return await start_server(tokens=frozenset({SECRET}), domain="tunnel.test", allow_hostnames=("*.example.org",))


async def see_refusal(server: RunningServer, field: str, value: object, **others: object) -> dict[str, object]:
    """See it refused with one line that does not repeat the token, and the server go on; the answer."""
    async with raw_client(server.control) as client:
        said = {"type": "register", "token": SECRET, "subdomain": "app", **others, field: value}
        await client.say(json.dumps(said, ensure_ascii=False).encode())
        answer = await client.hear_farewell()
    message = answer["message"]
    assert isinstance(message, str)
    assert message.isprintable()
    assert len(message) <= 503
    assert SECRET not in json.dumps(answer)
    assert answer["code"]
    assert not answer.get("retryable", False)
    async with raw_client(server.control) as client:
        assert (await client.register("app", token=SECRET))["type"] == "registered"
    return answer


@pytest.mark.parametrize("field", ["token", "resume", "subdomain", "id", "kind", "path", "host_header", "local"])
@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
async def test_what_is_no_text_where_there_must_be_some_is_named(
    server: RunningServer, field: str, value: object
) -> None:
    answer = await see_refusal(server, field, value)
    assert answer["code"] == "bad_message"
    assert field in str(answer["message"])


@pytest.mark.parametrize("field", ["hostnames", "request_headers", "basic_auth", "allow_ip", "require_header"])
@pytest.mark.parametrize("value", ["x", 5, True, {}, {"x": "y"}, [5], [None], [["x"]], [{}]], ids=repr)
async def test_what_is_no_list_of_texts_where_there_must_be_one_is_named(
    server: RunningServer, field: str, value: object
) -> None:
    answer = await see_refusal(server, field, value)
    assert answer["code"] == "bad_message"
    assert field in str(answer["message"])


@pytest.mark.parametrize("value", ["20000", 1.5, True, [], {}, 2**70, -1, 0, 65536], ids=repr)
async def test_what_is_no_port_is_refused(server: RunningServer, value: object) -> None:
    answer = await see_refusal(server, "remote_port", value, kind="tcp")
    assert answer["code"] in ("bad_message", "port_not_allowed")


@pytest.mark.parametrize(
    ("field", "codes"),
    [
        ("token", {"bad_token"}),
        ("subdomain", {"name_invalid"}),
        ("kind", {"kind_unknown"}),
        ("path", {"path_invalid"}),
    ],
)
@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: ascii(text[:12]))
async def test_text_that_makes_no_sense_is_refused(
    server: RunningServer, field: str, codes: set[str], text: str
) -> None:
    assert (await see_refusal(server, field, text))["code"] in codes


@pytest.mark.parametrize("text", [*BAD_TEXTS, ""], ids=lambda text: ascii(text[:12]))
async def test_host_names_that_make_no_sense_are_refused(server: RunningServer, text: str) -> None:
    answer = await see_refusal(server, "hostnames", [text])
    assert answer["code"] in ("hostname_invalid", "hostname_not_allowed")


@pytest.mark.parametrize("field", ["request_headers", "response_headers", "require_header", "basic_auth"])
@pytest.mark.parametrize(
    "value", [f"X Key: {SECRET}", f"X-Key: \x00{SECRET}", f"X\u00e9:{SECRET}", f"X-Key: {SECRET}{EMOJI * 15_000}"]
)
async def test_headers_and_log_ins_that_make_no_sense_are_refused_without_their_values(
    server: RunningServer, field: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await see_refusal(server, field, [value]))["code"] in ("header_invalid", "protection_invalid")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("field", ["allow_ip", "deny_ip"])
@pytest.mark.parametrize("text", [*BAD_TEXTS, "", EMOJI * 15_000, "'" * 60_000], ids=lambda text: ascii(text[:12]))
async def test_networks_that_make_no_sense_are_refused(server: RunningServer, field: str, text: str) -> None:
    assert (await see_refusal(server, field, [text]))["code"] == "protection_invalid"


async def test_too_many_of_a_kind_are_refused(server: RunningServer) -> None:
    hosts = [f"h{number}.example.org" for number in range(1000)]
    assert (await see_refusal(server, "hostnames", hosts))["code"] == "hostname_not_allowed"


@pytest.mark.parametrize("number", ["x" * 65, "x" * 60_000, EMOJI * 15_000], ids=lambda text: ascii(text[:1]))
@pytest.mark.parametrize("is_first", [True, False])
async def test_an_id_that_no_answer_has_room_for_ends_the_session(
    server: RunningServer, number: str, is_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_client(server.control) as client:
        if not is_first:
            await client.register("app", token=SECRET)
        fields = {"type": "register", "token": SECRET, "id": number}
        await client.say(json.dumps(fields, ensure_ascii=False).encode())  # Shorter than the server would write it.
        assert (await client.hear_farewell())["code"] == "id_invalid"
    assert not [record for record in caplog.records if record.exc_info]
