"""The client behind proxies that others have written: tinyproxy for CONNECT, microsocks for SOCKS5."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import pytest

from .conftest import Peer, lack
from .support import Answer, LocalService, Program, Start, connect, digest_of, download

pytestmark = pytest.mark.interop

LARGE: Final = 5_000_000
CREDENTIALS: Final = "user:word"

TINYPROXY: Final = """\
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 20
LogLevel Connect
"""


@attrs.frozen
class Proxy:
    """A running proxy that asks for a password."""

    program: Program
    port: int


StartProxy = Callable[[], Awaitable[Proxy]]


@pytest.fixture
def start_proxy(scheme: str, start: Start, free_port: Callable[[], int], tmp_path: Path) -> StartProxy:
    """Start a proxy of the kind *scheme*."""

    async def start_it() -> Proxy:
        port = free_port()
        name, package = ("tinyproxy", "tinyproxy-bin") if scheme == "http" else ("microsocks", "microsocks")
        executable = shutil.which(name)
        if executable is None:
            lack(f"{name} is not installed ({package})")
        user, _, password = CREDENTIALS.partition(":")
        if scheme == "http":
            configuration = tmp_path / "tinyproxy.conf"
            configuration.write_text(TINYPROXY.format(port=port) + f"BasicAuth {user} {password}\n")
            program = await start(executable, "-d", "-c", configuration)
        else:
            program = await start(executable, "-i", "127.0.0.1", "-p", str(port), "-u", user, "-P", password)
        await (await connect(port)).aclose()
        return Proxy(program, port)

    return start_it


schemes = pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])


@schemes
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_tunnel_through_the_proxy(
    scheme: str,
    host: str,
    start_proxy: StartProxy,
    ours: Peer,
    free_port: Callable[[], int],
    local_service: LocalService,
) -> None:
    proxy = await start_proxy()
    control, public = free_port(), free_port()
    await ours.server(control, public)
    url = f"{scheme}://{CREDENTIALS}@127.0.0.1:{proxy.port}"
    client = await ours.client(control, local_service.port, server=f"{host}:{control}", proxy=url, plaintext="")
    await client.wait_for_output("http://")
    assert await download(public, LARGE) == Answer(200, LARGE, digest_of(LARGE))
    if scheme == "http":
        await proxy.program.wait_for_output(f"CONNECT {host}:{control} HTTP/1.1")
    else:
        asked = host if scheme == "socks5h" else "127.0.0.1"
        await proxy.program.wait_for_error(f"connected to {asked}:{control}")


async def refusal(client: Program, proxy: Proxy) -> str:
    """What the client says of a proxy that refuses."""
    assert await client.wait_for_end() == 4
    (line,) = client.errors
    _, found, words = line.partition(f": the proxy at 127.0.0.1:{proxy.port} refused: ")
    assert found
    return words


@schemes
async def test_a_wrong_password(scheme: str, start_proxy: StartProxy, ours: Peer, free_port: Callable[[], int]) -> None:
    proxy = await start_proxy()
    client = await ours.client(free_port(), 9, proxy=f"{scheme}://user:other@127.0.0.1:{proxy.port}")
    expected = "401 Unauthorized" if scheme == "http" else "Username and password authentication failure"
    assert await refusal(client, proxy) == expected


@schemes
async def test_a_server_that_the_proxy_cannot_reach(
    scheme: str, start_proxy: StartProxy, ours: Peer, free_port: Callable[[], int]
) -> None:
    proxy = await start_proxy()
    client = await ours.client(free_port(), 9, proxy=f"{scheme}://{CREDENTIALS}@127.0.0.1:{proxy.port}")
    expected = "500 Unable to connect" if scheme == "http" else "Connection refused by destination host"
    assert await refusal(client, proxy) == expected
