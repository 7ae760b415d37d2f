"""An answer to a stream that goes nowhere: some bytes, the end, and no interest in what still comes."""

from ..yamux import YamuxStream


class Answer:
    """A stream's handler that sends *data* and finishes.

    What the peer sends is thrown away and not refused: a reset could destroy the answer before it was read.
    """

    __slots__ = ("_data", "_now", "_stream")

    def __init__(self, stream: YamuxStream, data: bytes, now: float) -> None:
        self._stream = stream
        self._data = data
        self._now = now
        stream.handler = self
        self.window_opened()

    def window_opened(self) -> None:
        """Send what can be sent."""
        while self._data and (allowance := self._stream.send_allowance()):
            self._stream.send_data(self._data[:allowance])
            self._data = self._data[allowance:]
        if not self._data:
            self._stream.finish(self._now)

    def data_received(self, data: memoryview) -> None:
        """Make room for more of it: a peer that cannot get rid of its request does not read the answer."""
        self._stream.consume(len(data))

    def stream_ended(self) -> None:
        """The peer is done, too."""

    def stream_reset(self, code: int) -> None:
        """The peer did not want to know."""

    def evicted(self) -> None:
        """Nothing is kept here."""

    def connection_lost(self) -> None:
        """Nobody is left to be answered."""
