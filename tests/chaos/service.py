"""The local service: `python -m tests.chaos.service` prints where it listens, and whatever it got that was not sent.

By HTTP, `GET /download/SIZE/SEED` is answered with that body, `POST /upload/SIZE/SEED` is checked against it as it
comes, and `/socket` is a WebSocket that echoes.  On the other port all bytes are echoed.
"""

import hashlib
import json
from functools import partial

import trio

from ..interop.support import blocks
from ..interop.websocket_peers import WebSocket
from ..interop.websocket_peers import echo as echo_messages
from ..server.services import Asked, address_of, receive_head, response
from .bodies import Expected, WrongBytes


async def answer(connection: trio.SocketStream) -> None:
    """Answer one request, and close."""
    head, start = await receive_head(connection)
    if not head:
        return
    asked = Asked.of(head)
    match asked.target.split("/")[1:]:
        case ["download", size, seed]:
            await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(size))
            for block in blocks(int(size), int(seed)):
                await connection.send_all(block)
        case ["upload", size, seed]:
            await _take_upload(connection, Expected(int(size), int(seed)), start)
        case ["socket"]:
            websocket = await WebSocket.accept(connection, received=head + start)
            await echo_messages(websocket)
        case _:
            await connection.send_all(response(b"no such thing", status="404 Not Found"))


async def _take_upload(connection: trio.SocketStream, expected: Expected, piece: bytes) -> None:
    digest = hashlib.sha256()
    while True:
        expected.take(piece)
        digest.update(piece)
        if not expected.missing:
            break
        piece = await connection.receive_some()
        if not piece:
            return  # Cut short, which whoever sends it knows.
    await connection.send_all(response(digest.hexdigest().encode()))


async def echo(connection: trio.SocketStream) -> None:
    """Send back what comes."""
    async for piece in connection:
        await connection.send_all(piece)


async def _guarded(handler, connection: trio.SocketStream) -> None:
    """A connection that breaks ends alone; wrong bytes are told."""
    try:
        await handler(connection)
    except WrongBytes as error:
        print(json.dumps({"wrong": str(error)}), flush=True)
    except (trio.BrokenResourceError, AssertionError, EOFError):
        pass  # The visitor, or the client, has gone in the middle; the visitor says what it saw.


async def main() -> None:
    listeners = {}
    async with trio.open_nursery() as nursery:
        for name, handler in (("http", answer), ("tcp", echo)):
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            listeners[name] = address_of(listener.socket).port
            nursery.start_soon(trio.serve_listeners, partial(_guarded, handler), [listener])
        print(json.dumps(listeners), flush=True)


if __name__ == "__main__":
    trio.run(main)
