"""A visitor as a task: what `http_port` does in plain calls, where there is no switchboard."""

import trio

from ..errors import BadRequest
from ..http import pages
from ..http.head import RequestHead, RequestHeadReader
from ..mux import SessionClosed, splice
from .http_port import HEAD_READ_SIZE, HEAD_TIMEOUT
from .registry import Registry


async def serve_visitor(registry: Registry, visitor: trio.SocketStream) -> None:
    """Read the head of the visitor's first request, and join the visitor to the tunnel that it names."""
    try:
        with trio.fail_after(HEAD_TIMEOUT):
            received = await _receive_head(visitor)
    except BadRequest as error:
        await _answer(visitor, pages.bad_request(error))
    except trio.TooSlowError:
        await _answer(visitor, pages.bad_request(BadRequest("the request's head took too long", status=408)))
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(visitor)
    else:
        if received is None:
            await visitor.aclose()
        else:
            await _route(registry, visitor, *received)


async def _receive_head(visitor: trio.SocketStream) -> tuple[RequestHead, bytes] | None:
    """Return the head and all that was read for it; None when the visitor leaves first."""
    reader, received = RequestHeadReader(), bytearray()
    while data := await visitor.receive_some(HEAD_READ_SIZE):
        received += data
        head = reader.feed(bytes(data))
        if head is not None:
            return head, bytes(received)
    return None


async def _route(registry: Registry, visitor: trio.SocketStream, head: RequestHead, received: bytes) -> None:
    is_head = head.method == "HEAD"
    registration = registry.find(head.host)
    if registration is None:
        await _answer(visitor, pages.nobody_there(head.host, has_tunnels=len(registry) > 0, is_head=is_head))
        return
    try:
        with trio.fail_after(HEAD_TIMEOUT):
            stream = await registration.session.open_stream()
    except SessionClosed:
        await _answer(visitor, pages.tunnel_lost(is_head=is_head))
    except trio.TooSlowError:
        await _answer(visitor, pages.busy(is_head=is_head))
    else:
        if not await splice(stream, visitor, unread=received, is_reply_expected=True):
            await _answer(visitor, pages.empty_reply(is_head=is_head))


async def _answer(visitor: trio.SocketStream, page: bytes) -> None:
    """Send *page*, and read what still comes: closing over unread bytes could destroy it on its way."""
    with trio.move_on_after(HEAD_TIMEOUT):
        try:
            await visitor.send_all(page)
            await visitor.send_eof()
            while await visitor.receive_some(HEAD_READ_SIZE):
                pass
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(visitor)
