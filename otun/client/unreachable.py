"""Visitors whose local service cannot be reached: they are answered once it is known what they ask for.

The request log wants to know, and the answer to a HEAD request has no body.
"""

from ..errors import BadRequest
from ..http import pages
from ..http.head import RequestHeadReader
from ..mux import Answer, Tap
from ..switchboard import Switchboard
from ..yamux import YamuxStream


def is_head_request(reader: RequestHeadReader, data: bytes | bytearray | memoryview) -> bool | None:
    """Whether the request that *reader* reads, and *data* continues, is a HEAD; None until its head is whole."""
    try:
        head = reader.feed(bytes(data))
    except BadRequest:
        return False
    return None if head is None else head.method == "HEAD"


class UnreachableAnswer:
    """A stream's handler that takes the request's head in, and then leaves the stream to an `Answer`.

    The stream's handler is set at once.
    """

    __slots__ = ("_board", "_local", "_reader", "_reason", "_stream", "_tap")

    def __init__(self, stream: YamuxStream, board: Switchboard, local: str, reason: str, tap: Tap | None) -> None:
        self._stream = stream
        self._board = board
        self._local = local
        self._reason = reason
        self._tap = tap
        self._reader = RequestHeadReader()
        stream.handler = self

    def data_received(self, data: memoryview) -> None:
        """Show the request to the log; answer when its head is whole."""
        if self._tap is not None:
            self._tap.to_socket(data, self._board.now)
        self.take(data)

    def take(self, data: bytes | bytearray | memoryview) -> None:
        """The same for bytes that the log has seen already."""
        self._stream.consume(len(data))
        is_head = is_head_request(self._reader, data)
        if is_head is not None:
            self._answer(is_head=is_head)

    def stream_ended(self) -> None:
        """Answer what there is."""
        self._answer(is_head=False)

    def _answer(self, *, is_head: bool) -> None:
        now = self._board.now
        page = pages.local_service_unreachable(self._local, self._reason, is_head=is_head)
        if self._tap is not None:
            self._tap.from_socket(page, now)
        self._end_tap()
        Answer(self._stream, page, now)

    def stream_reset(self, code: int) -> None:
        """The visitor has gone."""
        self._end_tap()

    def evicted(self) -> None:
        """Nothing is kept here but the head."""
        self._end_tap()

    def connection_lost(self) -> None:
        """Nobody is left to be answered."""
        self._end_tap()

    def window_opened(self) -> None:
        """Nothing is to be sent yet."""
        self._stream.decline()

    def _end_tap(self) -> None:
        if self._tap is not None:
            self._tap.ended(self._board.now)
