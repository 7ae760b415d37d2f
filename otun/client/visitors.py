"""Visitors' streams on their way from the session to the tunnel that they are for."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import attrs
import trio

from ..errors import BadProxyHeader
from ..mux import Session, SessionClosed, Stream
from ..proxy_protocol import TUNNEL_ID, ProxyHeader, ProxyHeaderReader
from ..yamux import StreamState, YamuxStream

logger: logging.Logger = logging.getLogger(__name__)

OnVisitor: TypeAlias = Callable[[YamuxStream, ProxyHeader | None], None]
"""Takes a visitor's stream and sets its handler; the header says who the visitor is, if the server does."""


@attrs.frozen(eq=False)
class _Waiting:
    """A visitor whom nobody has accepted yet."""

    stream: Stream
    header: ProxyHeader | None

    @property
    def has_gone(self) -> bool:
        return self.stream.state is StreamState.RESET


class Visitors:
    """The visitors of one tunnel: kept until they are accepted, or given to whoever wants them at once.

    They come by one session after the other.  How many are kept is bounded by the sessions: those that nobody has
    accepted are not acknowledged, and those of a session that has ended have gone.
    """

    def __init__(self) -> None:
        self._on_visitor: OnVisitor | None = None
        self._unaccepted: deque[_Waiting] = deque()
        self._acceptors = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()

    def arrived(self, session: Session, core: YamuxStream, header: ProxyHeader | None) -> None:
        """A visitor has come by *session*: see that its stream has a handler."""
        if self._on_visitor is not None:
            self._on_visitor(core, header)
            return
        if len(self._unaccepted) >= 2 * session.limits.accept_backlog:
            # At least half of them have gone: the session lets so many be there, and no more.
            self._unaccepted = deque(one for one in self._unaccepted if not one.has_gone)
        stream = Stream.opened_by_peer(session, core)
        stream.visitor = header.source if header is not None else None
        self._unaccepted.append(_Waiting(stream, header))
        self._acceptors.unpark()

    async def accept(self) -> Stream:
        """Wait for the next visitor.  Raises `SessionClosed` when no more will come.  Cancelled, nobody is lost."""
        if self._unaccepted:
            await trio.lowlevel.checkpoint()
        while True:
            while self._unaccepted:
                waiting = self._unaccepted.popleft()
                if not waiting.has_gone:
                    waiting.stream.acknowledge()
                    return waiting.stream
            if self._ended.is_set():
                raise SessionClosed("the tunnel has ended", is_clean=True)
            await self._acceptors.park()

    def deliver_to(self, on_visitor: OnVisitor) -> None:
        """Give visitors to *on_visitor*, first those that have come already.

        Raises `trio.BusyResourceError` when somebody else gets them.
        """
        if self._on_visitor is not None:
            raise trio.BusyResourceError("the tunnel's visitors are being forwarded already")
        self._on_visitor = on_visitor
        while self._unaccepted:
            waiting = self._unaccepted.popleft()
            if not waiting.has_gone:
                waiting.stream.hand_over(partial(_deliver, on_visitor, waiting.header))

    def stop_delivery(self) -> None:
        """Keep visitors again."""
        self._on_visitor = None

    def end(self) -> None:
        """Nobody comes any more."""
        self._ended.set()
        self._acceptors.unpark_all()

    async def wait_ended(self) -> None:
        """Wait until nobody comes any more."""
        await self._ended.wait()


def _deliver(on_visitor: OnVisitor, header: ProxyHeader | None, core: YamuxStream) -> None:
    on_visitor(core, header)


class Dispatcher:
    """Gives each stream of a session to the tunnel that it is for.

    A server that announces stream headers says so at the beginning of each stream; another one has one tunnel only,
    the first.
    """

    def __init__(self, session: Session, visitors: Mapping[str, Visitors], *, has_headers: bool) -> None:
        self._session = session
        self._visitors = visitors
        self._has_headers = has_headers

    def stream_opened(self, core: YamuxStream) -> None:
        """The server has opened a stream."""
        if self._has_headers:
            _HeaderHandler(self, core)
        else:
            # The others, if there are any, will not be granted.
            next(iter(self._visitors.values())).arrived(self._session, core, None)

    def header_received(self, core: YamuxStream, header: ProxyHeader) -> None:
        """It is known whom a stream is for."""
        tunnel_id = header.tlv(TUNNEL_ID) or b""
        visitors = self._visitors.get(tunnel_id.decode("utf-8", "replace"))
        if visitors is None:
            logger.warning("a visitor was refused: the server sent it to the tunnel %r, which is not ours", tunnel_id)
            core.reset()
        else:
            visitors.arrived(self._session, core, header)


class _HeaderHandler:
    """A stream's handler while its header is on its way."""

    __slots__ = ("_core", "_dispatcher", "_reader")

    def __init__(self, dispatcher: Dispatcher, core: YamuxStream) -> None:
        self._dispatcher = dispatcher
        self._core = core
        self._reader = ProxyHeaderReader(is_v1_allowed=False)
        core.handler = self

    def data_received(self, data: memoryview) -> None:
        """Read the header; what follows it belongs to the tunnel."""
        core = self._core
        try:
            header = self._reader.feed(data)
        except BadProxyHeader as error:
            logger.warning("a visitor was refused: its stream's header is bad: %s", error)
            core.reset()
            return
        if header is None:
            core.consume(len(data))
            return
        rest = len(self._reader.rest)
        core.consume(len(data) - rest)
        self._dispatcher.header_received(core, header)
        if rest and not core.is_over:
            core.handler.data_received(data[-rest:])

    def stream_ended(self) -> None:
        """A stream without a header is for nobody."""
        self._core.reset()

    def stream_reset(self, code: int) -> None:
        """The visitor has gone."""

    def evicted(self) -> None:
        """Nothing is kept here but the header."""

    def connection_lost(self) -> None:
        """Nobody is left."""

    def window_opened(self) -> None:
        """Nothing is to be sent yet."""
        self._core.decline()
