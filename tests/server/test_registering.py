"""The control protocol on the wire: what a client says and what it hears."""

import json
import string

import pytest

from otun.server.admission import MAX_TUNNELS

from .harness import RunningServer
from .raw_client import RawClient, raw_client, registered_client
from .services import answering
from .visitors import fetch


@pytest.fixture
async def client(server: RunningServer) -> RawClient:
    async with raw_client(server.control) as client:
        yield client


async def test_a_registration_is_answered_with_url_and_name(server: RunningServer, client: RawClient) -> None:
    await client.say(b'{"type":"register","subdomain":"app"}\n')
    assert await client.hear() == {
        "type": "registered",
        "url": f"http://app.localhost:{server.public.port}",
        "subdomain": "app",
    }


@pytest.mark.parametrize(
    "message",
    [b'{"type":"register"}', b'{"type":"register","subdomain":""}', b'{"type":"register","subdomain":null}'],
)
async def test_a_random_name_has_8_letters_and_digits(server: RunningServer, client: RawClient, message: bytes) -> None:
    await client.say(message)
    answer = await client.hear()
    name = answer["subdomain"]
    assert isinstance(name, str)
    assert len(name) == 8
    assert set(name) <= set(string.ascii_lowercase + string.digits)
    assert answer["url"] == f"http://{name}.localhost:{server.public.port}"


async def test_two_random_names_differ(server: RunningServer, client: RawClient) -> None:
    async with raw_client(server.control) as other:
        assert (await client.register())["subdomain"] != (await other.register())["subdomain"]


async def test_a_heartbeat_is_acknowledged(client: RawClient) -> None:
    await client.register("app")
    for _ in range(3):
        await client.say(b'{"type":"heartbeat"}\n')
        assert await client.hear() == {"type": "heartbeat_ack"}


async def test_unknown_fields_are_ignored(client: RawClient) -> None:
    later = {"colour": "blue", "list": [1, {"deep": None}], "number": 1.5e3}
    assert (await client.register("app", **later))["type"] == "registered"
    await client.say({"type": "heartbeat", "sequence": 7})
    assert await client.hear() == {"type": "heartbeat_ack"}


async def test_messages_may_be_split_anywhere(client: RawClient) -> None:
    for byte in b'{"type":"register","subdomain":"app"}':
        await client.say(bytes([byte]))
        await client.session.ping()  # so that the byte arrives alone
    assert (await client.hear())["subdomain"] == "app"


@pytest.mark.parametrize("space", [b"", b"\n", b" ", b"\r\n", b"\t \n\n  \r"], ids=repr)
async def test_messages_may_be_joined_with_any_whitespace_between(client: RawClient, space: bytes) -> None:
    heartbeat = b'{"type":"heartbeat"}'
    await client.say(space.join([b"", b'{"type":"register","subdomain":"app"}', heartbeat, heartbeat, b""]))
    assert (await client.hear())["type"] == "registered"
    assert await client.hear() == {"type": "heartbeat_ack"}
    assert await client.hear() == {"type": "heartbeat_ack"}


async def test_a_message_may_stand_on_several_lines(client: RawClient) -> None:
    await client.say(json.dumps({"type": "register", "subdomain": "app"}, indent=4).encode())
    assert (await client.hear())["subdomain"] == "app"


async def test_a_message_may_have_almost_64_KiB(client: RawClient) -> None:
    message = b'{"type":"register","subdomain":"app","padding":"%s"}'
    await client.say(message % (b"x" * (65_536 - len(message) + 2)))
    assert (await client.hear())["subdomain"] == "app"


async def test_a_name_is_lower_cased(server: RunningServer, client: RawClient) -> None:
    answer = await client.register("MyApp-1")
    assert answer["subdomain"] == "myapp-1"
    assert answer["url"] == f"http://myapp-1.localhost:{server.public.port}"


@pytest.mark.parametrize("name", ["a", "7", "a-b", "0-0", "x" * 63, "xn--bcher-kva"])
async def test_a_dns_label_is_a_name(client: RawClient, name: str) -> None:
    assert (await client.register(name))["subdomain"] == name


@pytest.mark.parametrize(
    "name",
    ["-a", "a-", "-", "a.b", "a_b", "a b", " a", "a\n", "bücher", "\u212aelvin", "x" * 64, "*", "a/../b", "\0"],
    ids=ascii,
)
async def test_what_is_no_dns_label_is_refused_as_a_name(client: RawClient, name: str) -> None:
    answer = await client.register(name)
    assert answer["type"] == "error"
    assert answer["code"]
    assert not answer.get("retryable", False), "the same name will never do"
    assert "\n" not in str(answer["message"])
    await client.see_session_end()


async def test_a_name_that_is_taken_is_refused_in_the_very_words(server: RunningServer, client: RawClient) -> None:
    async with registered_client(server.control, "app"):
        answer = await client.register("APP")
        assert answer["message"] == "subdomain 'app' is already in use"
        assert answer["type"] == "error"
        assert answer["retryable"] is True
        assert answer["code"]
        await client.see_session_end()


async def test_the_refused_one_does_not_disturb_the_owner_of_the_name(server: RunningServer, nursery) -> None:
    async with registered_client(server.control, "app") as owner:
        nursery.start_soon(owner.serve, answering(b"owner"))
        async with raw_client(server.control) as second:
            await second.register("app")
        assert (await fetch(server.public, host="app.localhost")).body == b"owner"
        await owner.say({"type": "heartbeat"})
        assert await owner.hear() == {"type": "heartbeat_ack"}


async def test_one_registered_client_does_not_keep_others_out(server: RunningServer, client: RawClient) -> None:
    await client.register("app")
    async with registered_client(server.control, "other"), registered_client(server.control, "third"):
        pass


async def test_further_tunnels_are_refused_beyond_a_number_and_the_session_goes_on(client: RawClient) -> None:
    await client.register("app")
    for number in range(1, MAX_TUNNELS):
        answer = await client.register(f"app{number}", id=str(number))
        assert (answer["type"], answer["id"]) == ("registered", str(number))
    for _ in range(3):  # What was refused is not remembered.
        answer = await client.register("more", id="more")
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "too_many_tunnels", "more")
    await client.say({"type": "heartbeat"})
    assert await client.hear() == {"type": "heartbeat_ack"}
