"""`otun demo`: a server, a client and a local service in one process, and a request that goes through all three."""

import secrets
from functools import partial
from typing import Annotated, Final
from urllib.parse import urlsplit

import attrs
import trio
import typer

from ..addresses import TcpAddress
from ..client import Tunnel, forward
from ..errors import OtunError
from ..server import Server, ServerSettings, serve
from .client import describe_tunnel
from .escaping import escape_text
from .failures import flatten
from .options import CommonFlags, LogLevelOption, VerboseOption, VersionOption, set_up_logging
from .output import Output, open_stdout
from .sample_service import serve_sample
from .signals import run_until_signal

_ANY_PORT: Final = TcpAddress("127.0.0.1", 0)
_PATIENCE: Final = 10  # seconds for one request on one machine: far more than it takes
_MAX_REPLY: Final = 64 * 1024
_SHOWN_LINES: Final = 12

OnceOption = Annotated[bool, typer.Option("--once", help="End after one request; the exit code says how it went.")]


class DemoFailed(OtunError):
    """The demo did not do what it is there to show."""


@attrs.frozen
class Reply:
    """An HTTP response as it arrived."""

    data: bytes

    @property
    def lines(self) -> list[str]:
        """Its lines, head and body, safe to show."""
        return [escape_text(line, limit=120) for line in self.data.decode("utf-8", "replace").splitlines()]

    def is_right(self, path: str) -> bool:
        """Whether it is the sample service's answer to a request for *path*."""
        return self.data.startswith(b"HTTP/1.1 200 ") and f"GET {path} ".encode() in self.data


def demo(
    context: typer.Context,
    once: OnceOption = False,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Show a whole tunnel on this machine: server, client and a sample service; then keep it open until Ctrl-C."""
    set_up_logging(CommonFlags.given(context, None, log_level, verbose))
    run_until_signal(partial(run_demo, open_stdout(), is_once=once))


async def run_demo(output: Output, *, is_once: bool) -> None:
    """Open a tunnel, send a request through it and show the reply; stay until cancelled unless *is_once*.

    Raises `DemoFailed` for whatever goes wrong in otun or with the reply.
    """
    try:
        async with trio.open_nursery() as nursery:
            await _run_tunnel(nursery, output, is_once=is_once)
    except* OtunError as group:
        raise DemoFailed("; ".join(str(error) for error in flatten(group))) from group


async def _run_tunnel(nursery: trio.Nursery, output: Output, *, is_once: bool) -> None:
    local: TcpAddress = await nursery.start(serve_sample)
    server: Server = await nursery.start(serve, ServerSettings(control=_ANY_PORT, public=_ANY_PORT))
    tunnel: Tunnel = await nursery.start(partial(forward, server.control_addresses[0], local, name="demo"))
    public, host = server.public_addresses[0], urlsplit(tunnel.url).netloc
    output.write_line(describe_tunnel(tunnel.url, local, is_terminal=output.is_terminal))

    path = f"/hello-{secrets.token_hex(4)}"
    reply = await fetch(public, host=host, path=path)
    for line in [f"GET {path} from {public}, with Host: {escape_text(host)}", *reply.lines[:_SHOWN_LINES]]:
        output.write_line(f"  {line}")
    if not reply.is_right(path):
        raise DemoFailed("the reply is not the one that the sample service gives")
    if is_once:
        nursery.cancel_scope.cancel()
    else:
        output.write_line(f"Try: curl -H 'Host: {escape_text(host)}' http://{public}/    (Ctrl-C ends the demo)")


async def fetch(address: TcpAddress, *, host: str, path: str) -> Reply:
    """Return the response to a GET request that is sent to *address* with the header `Host: HOST`.

    The address and the host differ because `*.localhost` does not resolve everywhere.  Raises `DemoFailed` when there
    is no complete response in time.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: otun-demo\r\nConnection: close\r\n\r\n"
    received = bytearray()
    try:
        with trio.fail_after(_PATIENCE):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await stream.send_all(request.encode())
                async for data in stream:
                    received += data
                    if len(received) > _MAX_REPLY:
                        break
    except trio.TooSlowError as error:
        raise DemoFailed(f"no reply within {_PATIENCE} seconds") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise DemoFailed(f"the request failed: {error}") from error
    return Reply(bytes(received))
