"""Our server with a client in Go, and our client with a server in Go: what visitors get, and what is refused."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from .conftest import Peer, Tunnel
from .support import LIMIT, LocalService, digest_of, download, upload

pytestmark = pytest.mark.interop

SIZES = pytest.mark.parametrize("size", [0, 1, 1 << 20, 100 << 20], ids=["0 B", "1 B", "1 MiB", "100 MiB"])
VISITORS = 200


@SIZES
async def test_a_download_arrives_whole(tunnel: Tunnel, size: int) -> None:
    answer = await download(tunnel.public, size)
    assert (answer.status, answer.size, answer.digest) == (200, size, digest_of(size))


@SIZES
async def test_an_upload_arrives_whole(tunnel: Tunnel, size: int) -> None:
    answer = await upload(tunnel.public, size)
    assert (answer.status, answer.digest) == (200, hashlib.sha256(digest_of(size).encode()).hexdigest())


async def test_200_visitors_at_once_each_get_their_own_answer(tunnel: Tunnel, local_service: LocalService) -> None:
    local_service.crowd = threading.Barrier(VISITORS)  # none is answered before all have asked

    async def visit(number: int) -> None:
        size = 1000 + 100 * number
        request = f"GET /{size}/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", tunnel.public) as visitor:
            await visitor.send_all(request.encode())
            answer = b"".join([chunk async for chunk in visitor])
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (len(body), hashlib.sha256(body).hexdigest()) == (size, digest_of(size, number))
        answered.append(number)

    answered: list[int] = []
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for number in range(VISITORS):
                nursery.start_soon(visit, number)
    assert sorted(answered) == list(range(VISITORS))


async def test_our_server_refuses_a_name_that_is_taken(ours: Peer, go: Peer, free_port: Callable[[], int]) -> None:
    control, local = free_port(), free_port()
    await ours.server(control, free_port())
    first = await go.client(control, local, subdomain="app")
    await first.wait_for_output("registered app http://")
    second = await go.client(control, local, subdomain="app")
    assert await second.wait_for_end() == 3
    assert second.output == ["refused error subdomain 'app' is already in use"]


async def test_a_name_is_free_again_when_the_go_client_has_gone(
    ours: Peer, go: Peer, free_port: Callable[[], int], local_service: LocalService
) -> None:
    control, public = free_port(), free_port()
    server = await ours.server(control, public)
    first = await go.client(control, free_port(), subdomain="app")
    await first.wait_for_output("registered app http://")
    first.process.kill()
    await server.wait_for_error(": ended: ")
    second = await go.client(control, local_service.port, subdomain="app")
    await second.wait_for_output("registered app http://")
    assert (await download(public, 1000)).digest == digest_of(1000)


async def test_our_client_exits_3_when_its_name_is_taken(ours: Peer, go: Peer, free_port: Callable[[], int]) -> None:
    control, local = free_port(), free_port()
    server = await go.server(control, free_port())
    await ours.client(control, local, subdomain="app")
    await server.wait_for_output("registered app")
    second = await ours.client(control, local, subdomain="app")
    assert await second.wait_for_end() == 3
    assert second.output == []
    assert "subdomain 'app' is already in use" in second.errors[-1]


async def test_our_server_acknowledges_heartbeats(ours: Peer, go: Peer, free_port: Callable[[], int]) -> None:
    control = free_port()
    await ours.server(control, free_port())
    client = await go.client(control, free_port(), heartbeat="100ms")
    await client.wait_for_output("control heartbeat_ack", count=3)
    assert {line for line in client.output if line.startswith("control")} == {"control heartbeat_ack"}


async def test_our_server_refuses_a_wrong_token(
    ours: Peer, go: Peer, free_port: Callable[[], int], tmp_path: Path
) -> None:
    control, local = free_port(), free_port()
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text("right\n")
    await ours.server(control, free_port(), tokens_file=str(tokens))
    wrong = await go.client(control, local, token="wrong")
    assert await wrong.wait_for_end() == 3
    assert wrong.output[0].startswith("refused error ")
    right = await go.client(control, local, token="right")
    await right.wait_for_output("registered ")
