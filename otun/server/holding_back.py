"""What has come for visitors and waits for its turn to be passed on."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..http.pages import Page
from ..yamux import StreamHandler, YamuxStream

if TYPE_CHECKING:
    from .throttling import Throttle


class HeldBack:
    """Stands between a stream and its handler, which gets what comes when it is its turn."""

    __slots__ = ("_handler", "_has_ended", "_held", "_is_over", "_is_whole", "_rest", "_stream", "_throttle")

    def __init__(self, stream: YamuxStream, throttle: "Throttle") -> None:
        self._stream = stream
        self._handler: StreamHandler = stream.handler
        self._throttle = throttle
        self._held = bytearray()  # Bounded by the stream's window: it is not consumed.
        stream.keeps_unread = True
        self._is_whole = stream.has_peer_finished or stream.is_over
        self._has_ended = False  # And the handler has not been told.
        self._rest: Callable[[], None] | None = None  # What is to be said after everything.
        self._is_over = False

    def __repr__(self) -> str:
        return f"<HeldBack {self._handler!r} holds={len(self._held)}>"

    def data_received(self, data: memoryview) -> None:
        """Pass on what may be, and keep the rest."""
        while data and not self._held and not self._is_over and (size := self._throttle.turn(self)):
            self._pass_on(data[:size])
            data = data[size:]
        if not self._is_over:
            self._held += data

    def take_turn(self) -> bool:
        """Pass on one piece of what was kept."""
        size = self._throttle.turn(self)
        piece = bytes(self._held[:size])
        del self._held[:size]
        if piece:
            self._pass_on(memoryview(piece))
        if not self._held and not self._is_over:
            self._end()
        return bool(self._held)

    def _pass_on(self, data: memoryview) -> None:
        self._throttle.passed(len(data))
        self._handler.data_received(data)

    def hand_on(self, handler: StreamHandler) -> None:
        """Let *handler* have what comes next."""
        self._handler = handler

    def _end(self) -> None:
        if self._has_ended:
            self._has_ended = False
            self._handler.stream_ended()
        if self._rest is not None and not self._is_over:
            self._rest()

    def stream_ended(self) -> None:
        """Say so behind what is kept."""
        self._is_whole = self._has_ended = True
        if not self._held:
            self._end()

    def stream_reset(self, code: int) -> None:
        """Say so behind what is kept: that may be a whole answer."""
        self._finish(partial(self._pass_reset, code))

    def connection_lost(self) -> None:
        """Likewise."""
        self._finish(lambda: self._handler.connection_lost())

    def _finish(self, rest: Callable[[], None]) -> None:
        if self._held:
            self._rest = rest
            self._stream.send_credit = 0  # The handler does not know yet that nothing can be sent any more.
        else:
            self.release()
            rest()

    def _pass_reset(self, code: int) -> None:
        if not self._is_whole:
            self._stream.reset()  # As handlers know it: nothing is unread any more.
        self._handler.stream_reset(code)

    def evicted(self) -> None:
        """Drop what is kept."""
        self.release()
        self._handler.evicted()

    def window_opened(self) -> None:
        """The handler may send again."""
        self._handler.window_opened()

    def cut(self, page: Page) -> None:
        """End the handler: nobody waits for an answer here."""
        self.abort()

    def abort(self) -> None:
        """End the handler."""
        self._stream.reset()
        self._handler.stream_reset(0)

    def release(self) -> None:
        """Keep nothing any more."""
        self._is_over = True
        self._held.clear()
        self._throttle.withdraw(self)


def hand_on(stream: YamuxStream, handler: StreamHandler) -> None:
    """Let *handler* have what comes next on *stream*; if that has to wait for its turn, it still does."""
    if isinstance(stream.handler, HeldBack):
        stream.handler.hand_on(handler)
    else:
        stream.handler = handler
