"""Visitors whose local service cannot be reached: they are answered once it is known what they ask for.

The request log wants to know, and the answer to a HEAD request has no body.
"""

import attrs

from ..errors import BadRequest
from ..http import pages
from ..http.head import RequestHead, RequestHeadReader
from ..mux import Answer, Tap
from ..switchboard import Switchboard, TlsVerificationError
from ..yamux import YamuxStream
from .connecting import explain_connect_error


@attrs.frozen
class Problem:
    """Why the local service cannot be reached."""

    reason: str
    is_timeout: bool = False

    @classmethod
    def of(cls, error: OSError) -> "Problem":
        """Return what *error* means."""
        if isinstance(error, TlsVerificationError):
            return cls(f"its certificate is not trusted (see --local-ca): {error.strerror}")
        return cls(explain_connect_error(error), is_timeout=isinstance(error, TimeoutError))


class UnreachableAnswer:
    """A stream's handler that takes the request's head in, and then leaves the stream to an `Answer`.

    The stream's handler is set at once.
    """

    __slots__ = ("_board", "_local", "_problem", "_reader", "_stream", "_tap")

    def __init__(self, stream: YamuxStream, board: Switchboard, local: str, problem: Problem, tap: Tap | None) -> None:
        self._stream = stream
        self._board = board
        self._local = local
        self._problem = problem
        self._tap = tap
        self._reader = RequestHeadReader()
        if tap is not None:
            tap.failed(problem.reason)
        stream.handler = self

    def data_received(self, data: memoryview) -> None:
        """Show the request to the log; answer when its head is whole."""
        if self._tap is not None:
            self._tap.to_socket(data, self._board.now)
        self.take(data)

    def take(self, data: bytes | bytearray | memoryview) -> None:
        """The same for bytes that the log has seen already."""
        self._stream.consume(len(data))
        try:
            head = self._reader.feed(bytes(data))
        except BadRequest:  # Whoever sent it, it was no otun server.
            self._answer(None)
            return
        if head is not None:
            self._answer(head)

    def stream_ended(self) -> None:
        """Answer what there is."""
        self._answer(None)

    def _answer(self, request: RequestHead | None) -> None:
        now = self._board.now
        problem = self._problem
        page = pages.local_service_unreachable(self._local, problem.reason, is_timeout=problem.is_timeout).write(
            request
        )
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
