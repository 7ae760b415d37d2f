"""Typed control messages over one stream."""

import trio

from ..control.codec import MessageDecoder, encode
from ..control.messages import Message


class ControlChannel(trio.abc.Channel[Message]):
    """Sends and receives `otun.control` over any Trio stream, which belongs to it from then on.

    As for any Trio channel, `receive` raises `trio.EndOfChannel` at the peer's orderly end.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = MessageDecoder()

    def __repr__(self) -> str:
        return f"<ControlChannel on {self._stream!r}>"

    async def send(self, value: Message) -> None:
        """Send one message.  Raises what the stream's `send_all` raises; cancelled, the channel is of no more use."""
        await self._stream.send_all(encode(value))

    async def receive(self) -> Message:
        """Return the next message.  Cancelled, nothing is lost.

        Raises `otun.errors.BadMessage` when the peer sends something else, `trio.EndOfChannel` when it has sent its
        last message, and what the stream's `receive_some` raises.
        """
        await trio.lowlevel.checkpoint()
        while True:
            message = self._decoder.next_message()
            if message is not None:
                return message
            data = await self._stream.receive_some()
            if not data:
                self._decoder.receive_eof()
                raise trio.EndOfChannel
            self._decoder.feed(data)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
