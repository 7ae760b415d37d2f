"""Streams are Trio streams, and say so also when they are misused."""

import pytest
import trio
import trio.testing

from otun.mux import Stream

from .support import (
    INITIAL_WINDOW,
    fixed_window,
    let_run,
    pattern,
    receive_all,
    receive_exactly,
    send_and_end,
    stream_count,
)

StreamPair = tuple[Stream, Stream]


@pytest.mark.conformance(92)
async def test_streams_pass_trios_own_check(open_pair) -> None:
    """The clogged pair has used up both windows, which are of 256 KiB so that no credit is under way."""
    async with open_pair(limits=fixed_window(INITIAL_WINDOW)) as (client, server):

        async def make() -> StreamPair:
            return await client.open_stream(), await server.accept()

        async def make_clogged() -> StreamPair:
            pair = await make()
            for stream in pair:
                await stream.send_all(bytes(INITIAL_WINDOW))
            await client.ping()
            await server.ping()
            return pair

        await trio.testing.check_half_closeable_stream(make, make_clogged)
        assert not client.is_closed
        assert not server.is_closed


@pytest.mark.conformance(92)
async def test_streams_pass_trios_check_over_a_transport_that_holds_next_to_nothing(open_tight_pair) -> None:
    async with open_tight_pair() as (client, server):

        async def make() -> StreamPair:
            return await client.open_stream(), await server.accept()

        await trio.testing.check_half_closeable_stream(make, None)


async def _open(client, server) -> StreamPair:
    return await client.open_stream(), await server.accept()


async def test_a_second_reader_gets_busy_resource_error_and_the_first_reads_on(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        received: list[bytes] = []

        async def read() -> None:
            received.append(await theirs.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await let_run()
            with pytest.raises(trio.BusyResourceError):
                await theirs.receive_some()
            await ours.send_all(b"for the first")
        assert received == [b"for the first"]


async def test_a_second_sender_gets_busy_resource_error_and_the_first_sends_on(open_pair) -> None:
    async with open_pair() as sessions, trio.open_nursery() as nursery:
        ours, theirs = await _open(*sessions)
        body = pattern(4_000_000)
        nursery.start_soon(ours.send_all, body)
        await let_run()
        for call in (lambda: ours.send_all(b"x"), ours.wait_send_all_might_not_block, ours.send_eof):
            with pytest.raises(trio.BusyResourceError):
                await call()
        assert await receive_exactly(theirs, len(body)) == body


async def test_one_task_may_send_while_another_receives(open_pair) -> None:
    async with open_pair() as sessions, trio.open_nursery() as nursery:
        ours, theirs = await _open(*sessions)
        body = pattern(3_000_000)
        nursery.start_soon(send_and_end, ours, body)
        nursery.start_soon(send_and_end, theirs, body)
        assert await receive_all(ours) == await receive_all(theirs) == body


async def test_the_repr_shows_the_streams_number_and_state(open_pair) -> None:
    async with open_pair() as (client, server):
        for _ in range(4):
            stream, other = await _open(client, server)
        assert repr(stream) == "<Stream 7 OPEN>"
        await stream.send_eof()
        assert repr(stream) == "<Stream 7 LOCAL_CLOSED>"
        assert await other.receive_some() == b""
        assert repr(other) == "<Stream 7 REMOTE_CLOSED>"
        await other.send_eof()
        assert repr(other) == "<Stream 7 CLOSED>"
        reset, _ = await _open(client, server)
        reset.reset()
        assert repr(reset) == "<Stream 9 RESET>"


@pytest.mark.parametrize("max_bytes", [0, -1])
async def test_max_bytes_must_be_positive(open_pair, max_bytes: int) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await ours.send_all(b"data")
        with pytest.raises(ValueError, match="max_bytes"):
            await theirs.receive_some(max_bytes)
        assert await theirs.receive_some() == b"data"


async def test_max_bytes_limits_what_is_returned_and_the_rest_stays(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await send_and_end(ours, b"0123456789")
        await sessions[0].ping()
        assert [await theirs.receive_some(size) for size in (1, 3, 6, 5)] == [b"0", b"123", b"456789", b""]


async def test_received_data_is_bytes_of_the_receivers_own(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await ours.send_all(b"abc")
        assert type(await theirs.receive_some()) is bytes


@pytest.mark.parametrize("kind", [bytearray, lambda body: memoryview(bytearray(body))], ids=["bytearray", "view"])
async def test_a_buffer_that_is_changed_right_after_send_all_was_sent_as_it_was(open_tight_pair, kind) -> None:
    body = pattern(200_000)
    async with open_tight_pair() as sessions:
        ours, theirs = await _open(*sessions)
        buffer = kind(body)
        await ours.send_all(buffer)
        buffer[:] = bytes(len(body))
        assert await receive_exactly(theirs, len(body)) == body


async def test_a_bytearray_can_be_resized_right_after_send_all(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        buffer = bytearray(b"a message")
        await ours.send_all(buffer)
        buffer.clear()
        assert await receive_exactly(theirs, 9) == b"a message"


async def test_a_view_of_larger_items_is_sent_as_its_bytes(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await ours.send_all(memoryview(b"\1\2\3\4\5\6\7\0").cast("I"))
        assert await receive_exactly(theirs, 8) == b"\1\2\3\4\5\6\7\0"


async def test_what_is_no_buffer_is_refused_and_nothing_is_sent(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        with pytest.raises(TypeError):
            await ours.send_all("text")
        await ours.send_all(b"bytes")
        assert await theirs.receive_some() == b"bytes"


@pytest.mark.parametrize("way", ["aclose", "reset"])
async def test_a_stream_that_was_ended_here_raises_closed_resource_error(open_pair, way: str) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await theirs.send_all(b"unread")
        await sessions[1].ping()
        if way == "aclose":
            await ours.aclose()
        else:
            ours.reset()
        for call in (
            ours.receive_some,
            ours.send_eof,
            ours.wait_send_all_might_not_block,
            lambda: ours.send_all(b"x"),
            lambda: ours.send_all(b""),
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        await ours.aclose()
        ours.reset()


async def test_sending_after_send_eof_raises_closed_resource_error_and_receiving_works(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await ours.send_eof()
        for call in (lambda: ours.send_all(b"x"), ours.wait_send_all_might_not_block):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        await theirs.send_all(b"answer")
        assert await ours.receive_some() == b"answer"


async def test_sending_nothing_is_not_an_end(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        await ours.send_all(b"")
        await ours.send_all(b"something")
        assert await theirs.receive_some() == b"something"


@pytest.mark.conformance(64, 65)
async def test_a_stream_is_out_of_the_tables_once_both_sides_have_finished(open_pair) -> None:
    async with open_pair() as (client, server):
        ours, theirs = await _open(client, server)
        await ours.send_eof()
        await theirs.send_eof()
        assert await receive_all(ours) == await receive_all(theirs) == b""
        assert stream_count(client) == stream_count(server) == 0
        assert await ours.receive_some() == b""
        await ours.aclose()


async def test_streams_work_in_trios_stapled_and_iterating_idioms(open_pair) -> None:
    async with open_pair() as sessions:
        ours, theirs = await _open(*sessions)
        async with ours:
            await ours.send_all(b"in the body")
        assert b"".join([piece async for piece in theirs]) == b"in the body"
