"""What breaks the control protocol is told what is wrong with it, and that the session ends."""

import pytest

from .harness import RunningServer
from .raw_client import raw_client, registered_client

BAD_MESSAGES = {
    "no JSON": b"{nonsense}",
    "no object": b'["register"]',
    "a bare word": b"register\n",
    "no type": b"{}",
    "null as type": b'{"type":null}',
    "a number as type": b'{"type":7}',
    "an unknown type": b'{"type":"frobnicate"}',
    "a number as name": b'{"type":"register","subdomain":5}',
    "a list as token": b'{"type":"register","token":["a"]}',
    "a field twice": b'{"type":"register","subdomain":"a","subdomain":"b"}',
    "no UTF-8": b'{"type":"register","subdomain":"\xff"}',
    "half a surrogate pair": b'{"type":"register","subdomain":"\\ud800"}',
    "half a surrogate pair in an unknown field": b'{"type":"register","other":"\\udfff"}',
    "NaN": b'{"type":"register","other":NaN}',
    "Infinity": b'{"type":"register","other":-Infinity}',
    "a number of 5000 digits": b'{"type":"register","other":' + b"9" * 5000 + b"}",
    "deep nesting": b'{"type":"register","other":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "a comment": b'{"type":"register"/* hello */}',
    "a trailing comma": b'{"type":"register",}',
    "a bare control character": b'{"type":"register","subdomain":"a\nb"}',
    "over 64 KiB": b'{"type":"register","other":"' + b"x" * 65_536 + b'"}',
    "over 64 KiB and unfinished": b'{"type":"register","other":"' + b"x" * 65_536,
}

bad_messages = pytest.mark.parametrize("message", BAD_MESSAGES.values(), ids=BAD_MESSAGES)


def check_error(answer: dict[str, object]) -> None:
    assert answer["type"] == "error"
    assert answer["code"]
    assert not answer.get("retryable", False)
    text = answer["message"]
    assert isinstance(text, str)
    assert 10 < len(text) < 300, "it says what is wrong, and does not send the message back"
    assert text.isprintable()


@bad_messages
async def test_a_bad_first_message_gets_an_error_and_ends_the_session(server: RunningServer, message: bytes) -> None:
    async with raw_client(server.control) as client:
        await client.say(message)
        check_error(await client.hear_farewell())


@bad_messages
async def test_a_bad_message_ends_a_tunnel_with_an_error(server: RunningServer, message: bytes) -> None:
    async with registered_client(server.control, "app") as client:
        await client.say(message)
        check_error(await client.hear_farewell())
        async with registered_client(server.control, "app"):
            pass


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (b'{"type":"frobnicate"}', "frobnicate"),
        (b'{"type":"register","subdomain":5}', "subdomain"),
        (b'{"type":"register","token":true}', "token"),
        (b"{}", "type"),
        (b'{"type":"register","subdomain":"-"}', "'-'"),
        (b'{"type":"register","other":"' + b"x" * 65_536, "65536"),
        (b'{"type":"register","subdomain":"\xff"}', "UTF-8"),
        (b'{"type":"register","other":NaN}', "NaN"),
        (b"GET", "G"),
    ],
)
async def test_the_error_says_what_is_wrong(server: RunningServer, message: bytes, hint: str) -> None:
    async with raw_client(server.control) as client:
        await client.say(message)
        assert hint in str((await client.hear_farewell())["message"])


@pytest.mark.parametrize(
    "message",
    [
        {"type": "heartbeat"},
        {"type": "heartbeat_ack"},
        {"type": "registered", "url": "http://a", "subdomain": "a"},
        {"type": "error", "message": "no"},
    ],
    ids=lambda message: message["type"],
)
async def test_the_first_message_must_be_a_registration(server: RunningServer, message: object) -> None:
    async with raw_client(server.control) as client:
        await client.say(message)
        check_error(await client.hear_farewell())


async def test_a_client_registers_once(server: RunningServer) -> None:
    async with registered_client(server.control, "app") as client:
        await client.say({"type": "register", "subdomain": "other"})
        check_error(await client.hear_farewell())
        async with registered_client(server.control, "other"), registered_client(server.control, "app"):
            pass


async def test_good_messages_before_a_bad_one_are_answered(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        await client.say(b'{"type":"register","subdomain":"app"}{"type":"heartbeat"}nonsense')
        assert (await client.hear())["type"] == "registered"
        assert await client.hear() == {"type": "heartbeat_ack"}
        check_error(await client.hear_farewell())


async def test_a_bad_message_does_not_disturb_other_tunnels(server: RunningServer) -> None:
    async with registered_client(server.control, "other") as other:
        async with registered_client(server.control, "app") as client:
            await client.say(b"nonsense")
            await client.hear_farewell()
        await other.say({"type": "heartbeat"})
        assert await other.hear() == {"type": "heartbeat_ack"}


@pytest.mark.parametrize("cut", [b'{"type":"register"', b'{"type":"register","subdomain":"app"}{"type":"hea'])
async def test_a_stream_that_ends_within_a_message_ends_the_session(server: RunningServer, cut: bytes) -> None:
    async with raw_client(server.control) as client:
        await client.say(cut)
        await client.control.send_eof()
        await client.session.wait_closed()


async def test_a_token_is_not_sent_back_in_an_error(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        await client.say(b'{"type":"register","token":"SECRET","subdomain":7}')
        answer = await client.hear_farewell()
        assert "SECRET" not in str(answer)


async def test_bad_messages_leave_one_line_in_the_log(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "otun")
    async with raw_client(server.control) as client:
        await client.say(b"nonsense")
        await client.hear_farewell()
    lines = [record for record in caplog.records if record.name.startswith("otun.server")]
    assert len(lines) == 1
    assert "\n" not in lines[0].getMessage()
    assert not lines[0].exc_info
