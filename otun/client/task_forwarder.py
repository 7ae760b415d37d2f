"""Visitors to the local service by tasks: what `forwarder` does where there is no switchboard."""

from functools import partial
from typing import Final

import trio

from ..addresses import LocalAddress, UnixAddress
from ..errors import LocalServiceUnreachable
from ..http import pages
from ..http.head import RequestHeadReader
from ..mux import Session, SessionClosed, Stream, splice
from .connecting import explain_connect_error
from .forwarder import LOCAL_CONNECT_TIMEOUT
from .request_tap import OnExchange, RequestTap
from .unreachable import is_head_request

DISCARD_TIMEOUT: Final = 60.0
"""Seconds for which a request that cannot be delivered is read all the same, so that its sender reads the answer."""


async def forward_with_tasks(session: Session, local: LocalAddress, on_exchange: OnExchange | None) -> None:
    """Relay the streams that the server opens until the session ends.  Cancelled, all of them are cut short."""
    try:
        await session.serve(partial(_forward_stream, local, on_exchange))
    except SessionClosed:
        return


async def _forward_stream(local: LocalAddress, on_exchange: OnExchange | None, stream: Stream) -> None:
    tap = RequestTap(on_exchange) if on_exchange is not None else None
    try:
        connection = await _connect(local)
    except LocalServiceUnreachable as error:
        await _answer_unreachable(stream, local, str(error), tap)
    else:
        await splice(stream, connection, tap=tap)


async def _connect(local: LocalAddress) -> trio.SocketStream:
    try:
        with trio.fail_after(LOCAL_CONNECT_TIMEOUT):
            if isinstance(local, UnixAddress):
                return await trio.open_unix_socket(local.path)
            return await trio.open_tcp_stream(local.host, local.port)
    except trio.TooSlowError:
        raise LocalServiceUnreachable(f"no answer within {LOCAL_CONNECT_TIMEOUT:.0f} seconds") from None
    except OSError as error:
        raise LocalServiceUnreachable(explain_connect_error(error)) from error
    except UnicodeError as error:
        raise LocalServiceUnreachable("the host name cannot be resolved") from error


async def _answer_unreachable(stream: Stream, local: LocalAddress, reason: str, tap: RequestTap | None) -> None:
    """Answer the visitor that the local service cannot be reached, and read the request to its end."""
    with trio.move_on_after(DISCARD_TIMEOUT):
        try:
            is_head = await _receive_head(stream, tap)
            page = pages.local_service_unreachable(str(local), reason, is_head=is_head)
            if tap is not None:
                tap.from_socket(page, trio.current_time())
        finally:
            if tap is not None:
                tap.ended(trio.current_time())
        await stream.send_all(page)
        await stream.send_eof()
        while await stream.receive_some():
            pass


async def _receive_head(stream: Stream, tap: RequestTap | None) -> bool:
    """Receive the request until its head is whole; return whether it is a HEAD request."""
    reader = RequestHeadReader()
    async for data in stream:
        if tap is not None:
            tap.to_socket(memoryview(data), trio.current_time())
        is_head = is_head_request(reader, data)
        if is_head is not None:
            return is_head
    return False
