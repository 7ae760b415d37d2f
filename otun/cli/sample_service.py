"""A small web service for the demo: its page shows the request that it got."""

import html
from typing import Final

import trio

from ..addresses import TcpAddress

_MAX_HEAD: Final = 16 * 1024  # more than browsers send; the service serves nobody else
_PATIENCE: Final = 10  # seconds for a request to arrive and for its answer to leave

_PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<title>It works</title>
<h1>It works</h1>
<p>This page came through an otun tunnel. The local service got this request:</p>
<pre>{request}</pre>
"""


async def serve_sample(*, task_status: trio.TaskStatus[TcpAddress] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer HTTP requests on a free port of 127.0.0.1 until cancelled; reports the address when ready."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(TcpAddress("127.0.0.1", listeners[0].socket.getsockname()[1]))
    await trio.serve_listeners(_answer, listeners)


async def _answer(connection: trio.SocketStream) -> None:
    with trio.move_on_after(_PATIENCE):
        try:
            head = await _receive_head(connection)
            if head:
                await connection.send_all(describe_request(head))
        except trio.BrokenResourceError:
            pass  # whoever asked has gone


async def _receive_head(connection: trio.SocketStream) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        data = await connection.receive_some()
        if not data or len(received) > _MAX_HEAD:
            return b""
        received += data
    return received.partition(b"\r\n\r\n")[0]


def describe_request(head: bytes) -> bytes:
    """Return a whole HTTP response whose page shows the request head *head*."""
    page = _PAGE.format(request=html.escape(head.decode("latin-1"))).encode()
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(page)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + page
