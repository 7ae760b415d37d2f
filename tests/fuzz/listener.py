"""What hears of one stream in `fuzz_connection.py`: it asserts that it is called in a sensible order."""

from typing import TYPE_CHECKING

from ledger import INITIAL_WINDOW

from otun.yamux import StreamState, YamuxStream

if TYPE_CHECKING:
    from conversation import Owner


class Listener:
    """A stream's handler.  What is to be done in a call is said by the script."""

    def __init__(self, owner: "Owner") -> None:
        self.stream: YamuxStream
        self.unread = 0
        self.is_taken = False
        self.is_over = False
        self.has_ended = False
        self._is_evicted = False
        self._widened_by = 0
        self._owner = owner

    def attach(self, stream: YamuxStream) -> None:
        self.stream = stream
        self._owner.listeners.append(self)

    def consume(self, size: int) -> None:
        size = min(size, self.unread)
        self.unread -= size
        self._owner.ledger.accounts[self.stream.id].consumed += size
        self.stream.consume(size)

    def note_window(self, stream: YamuxStream) -> None:
        """A window update is about to leave: it may grant what the window has grown by."""
        gained = max(0, stream.window - INITIAL_WINDOW - self._widened_by)
        self._widened_by += gained
        self._owner.ledger.accounts[stream.id].widened_by += gained

    # What the connection calls

    def data_received(self, data: memoryview) -> None:
        assert not self.is_over, "data behind a reset"
        assert not self.stream.is_over, "data behind a reset of ours"
        assert not self.has_ended, "data behind the end"
        assert not self.stream.is_read_closed, "data for nobody"
        self._owner.ledger.delivered(self.stream.id, data)
        self.unread += len(data)
        self._owner.note("data", self.stream.id, len(data))
        self._owner.react("data", self)

    def stream_ended(self) -> None:
        assert not self.is_over, "an end behind a reset"
        assert not self.has_ended, "a second end"
        self.has_ended = True
        self._owner.note("ended", self.stream.id)
        self._owner.react("ended", self)

    def stream_reset(self, code: int) -> None:
        assert not self.is_over, "a second reset"
        self.is_over = True
        if not self.has_ended:
            self.unread = 0
        self._owner.resets_with_code += bool(code) and not self.stream.is_local
        self._owner.note("reset", self.stream.id, code)
        self._owner.react("reset", self)

    def evicted(self) -> None:
        assert not self._is_evicted, "evicted twice"
        assert self.stream.is_over
        self._owner.check_eviction(self)
        self._is_evicted = self.is_over = self._owner.has_evicted = True
        self.unread = 0
        self._owner.note("evicted", self.stream.id)
        self._owner.react("evicted", self)

    def connection_lost(self) -> None:
        assert not self.is_over
        assert self.stream.state is StreamState.RESET
        self.is_over = True
        self._owner.note("lost", self.stream.id)

    def window_opened(self) -> None:
        assert self.stream.can_send
        self._owner.react("window_opened", self)
