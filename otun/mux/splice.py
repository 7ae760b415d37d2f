"""Two Trio streams joined by two tasks: what a `Patch` does, for streams of any kind."""

from typing import Final

import attrs
import trio

from ..switchboard import abort_socket
from .errors import SessionClosed
from .patch import Tap
from .stream import Stream

CHUNK_SIZE: Final = 64 * 1024
"""Bytes read at once."""


async def splice(
    stream: Stream,
    other: trio.abc.HalfCloseableStream,
    *,
    unread: bytes = b"",
    tap: Tap | None = None,
    is_reply_expected: bool = False,
) -> bool:
    """Copy both ways until both directions have ended, then close both streams, and return True.

    *unread* was read from *other* before.  When one stream fails, or on cancellation, both are cut short, so that
    either far side can tell.  A failure is not raised, as it has been passed on.

    With *is_reply_expected*, returns False when *stream*, or its session, ends before a single byte has come from it;
    *other* is then still open, and nothing has been sent to it.
    """
    splicing = _Splicing(stream, other, tap, is_reply_expected)
    try:
        await splicing.run(unread)
    finally:
        if tap is not None:
            tap.ended(trio.current_time())
        if splicing.is_whole:
            try:
                await stream.aclose()
            finally:
                await other.aclose()
        else:
            stream.reset()
            if not splicing.is_silent:
                await _cut_short(other)
    return not splicing.is_silent


@attrs.define(eq=False)
class _Splicing:
    stream: Stream
    other: trio.abc.HalfCloseableStream
    tap: Tap | None
    is_reply_expected: bool
    is_silent: bool = False
    is_whole: bool = False

    async def run(self, unread: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._copy_to_stream, unread, nursery.cancel_scope)
            nursery.start_soon(self._copy_from_stream, nursery.cancel_scope)
        self.is_whole = not nursery.cancel_scope.cancel_called

    async def _copy_to_stream(self, unread: bytes, failure: trio.CancelScope) -> None:
        try:
            data = unread or await self.other.receive_some(CHUNK_SIZE)
            while data:
                if self.tap is not None:
                    self.tap.from_socket(bytes(data), trio.current_time())
                await self.stream.send_all(data)
                data = await self.other.receive_some(CHUNK_SIZE)
            await self.stream.send_eof()
        except SessionClosed:
            if not self.is_reply_expected:  # Otherwise the other direction finds out, and knows what it means.
                failure.cancel()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            failure.cancel()

    async def _copy_from_stream(self, failure: trio.CancelScope) -> None:
        try:
            data = await self._receive_first()
            while data:
                if self.tap is not None:
                    self.tap.to_socket(memoryview(data), trio.current_time())
                await self.other.send_all(data)
                data = await self.stream.receive_some(CHUNK_SIZE)
            if self.is_silent:
                failure.cancel()
            else:
                await self.other.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            failure.cancel()

    async def _receive_first(self) -> bytes:
        try:
            data = await self.stream.receive_some(CHUNK_SIZE)
        except SessionClosed:
            if not self.is_reply_expected:
                raise
            data = b""
        self.is_silent = self.is_reply_expected and not data
        return data


async def _cut_short(other: trio.abc.Stream) -> None:
    """Close *other* so that its far side sees an error, where its kind allows that."""
    if isinstance(other, trio.SocketStream):
        abort_socket(other.socket)
    await trio.aclose_forcefully(other)
