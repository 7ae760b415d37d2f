"""Connections in memory, which can stall and break as those between two machines do."""

from contextlib import suppress

import attrs
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream


@attrs.define(eq=False)
class _Pipe:
    """One direction of a connection, whose buffer has no bound."""

    network: "Network"
    sender: MemorySendStream = attrs.field(factory=MemorySendStream)
    receiver: MemoryReceiveStream = attrs.field(factory=MemoryReceiveStream)
    is_broken: bool = False

    def __attrs_post_init__(self) -> None:
        self.sender.send_all_hook = self._sent
        self.sender.close_hook = self.flush

    async def _sent(self) -> None:
        if self.is_broken:
            raise trio.BrokenResourceError("the connection is broken")
        if self.network.passes:
            trio.testing.memory_stream_pump(self.sender, self.receiver)

    def flush(self) -> None:
        """Hand over what was sent, and that it was all if the sender has closed."""
        if self.network.passes and not self.is_broken:
            with suppress(trio.BrokenResourceError):
                for _ in range(2):
                    trio.testing.memory_stream_pump(self.sender, self.receiver)

    def break_off(self) -> None:
        self.is_broken = True
        self.receiver.put_eof()


class Network:
    """What is between clients and their server."""

    def __init__(self) -> None:
        self._passing = trio.Event()
        self._passing.set()
        self._pipes: list[_Pipe] = []

    def connect(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """Return the two ends of a new connection."""
        there, back = _Pipe(self), _Pipe(self)
        self._pipes = [pipe for pipe in self._pipes if not pipe.is_broken]
        self._pipes += [there, back]
        return trio.StapledStream(there.sender, back.receiver), trio.StapledStream(back.sender, there.receiver)

    @property
    def passes(self) -> bool:
        """Whether anything passes."""
        return self._passing.is_set()

    async def wait_passing(self) -> None:
        """Wait until something can pass."""
        await self._passing.wait()

    def stall(self) -> None:
        """Have nothing pass any more, without anybody being told."""
        self._passing = trio.Event()

    def go_on(self) -> None:
        """Have everything pass again, first what was sent meanwhile."""
        self._passing.set()
        for pipe in self._pipes:
            pipe.flush()

    def break_all(self) -> None:
        """Break all connections, as by resets: both ends see it at once."""
        for pipe in self._pipes:
            pipe.break_off()
        self._pipes.clear()
