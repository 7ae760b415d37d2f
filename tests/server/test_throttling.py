"""Who waits, for how long, and whose turn it is; on a clock that jumps, without sockets."""

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from otun.access import UNLIMITED, Limits, Quota
from otun.http.pages import Page
from otun.mux import Patch
from otun.server.accounts import Account
from otun.server.holding_back import hand_on
from otun.server.registry import Registration
from otun.server.relayed import VisitorPatch
from otun.server.throttling import MAX_PIECE, MIN_PIECE, Throttle
from otun.switchboard import Switchboard, open_switchboard
from otun.switchboard.deadlines import TICK

NOON = 43_200.0
"""Unix time."""

pytestmark = pytest.mark.usefixtures("engine")


@attrs.define
class Clock:
    """Unix time, which goes on with Trio's."""

    offset: float = NOON

    def __call__(self) -> float:
        return self.offset + trio.current_time()


@attrs.define(eq=False)
class Mover:
    """Somebody who has *left* bytes to move, for as long as there are any."""

    throttle: Throttle
    left: float = math.inf
    moved: int = 0
    log: list[tuple[float, int]] = attrs.field(factory=list)
    is_aborted: bool = False
    was_cut: bool = False
    is_over: trio.Event = attrs.field(factory=trio.Event)

    def take_turn(self) -> bool:
        while self.left and (size := self.throttle.turn(self)):
            size = int(min(size, self.left))
            self.throttle.passed(size)
            self.moved += size
            self.left -= size
            self.log.append((trio.current_time(), size))
        if not self.left:
            self.is_over.set()
        return False

    def cut(self, page: Page) -> None:
        self.was_cut = True

    def abort(self) -> None:
        self.is_aborted = True


@attrs.define(eq=False)
class Owner:
    """One who has a stream."""

    stream: "FakeStream"
    moved: int = 0
    was_cut: Page | None = None

    def cut(self, page: Page) -> None:
        self.was_cut = page


@attrs.define(eq=False)
class Handler:
    """Takes note of what is said of a stream."""

    stream: "FakeStream"
    heard: list[object] = attrs.field(factory=list)
    successor: "Handler | None" = None

    def data_received(self, data: memoryview) -> None:
        self.heard.append(bytes(data))
        if self.successor is not None:
            hand_on(self.stream, self.successor)

    def stream_ended(self) -> None:
        self.heard.append("ended")

    def stream_reset(self, code: int) -> None:
        self.heard.append(code)

    def evicted(self) -> None:
        self.heard.append("evicted")

    def connection_lost(self) -> None:
        self.heard.append("lost")

    def window_opened(self) -> None:
        self.heard.append("window")

    @property
    def size(self) -> int:
        return sum(len(what) for what in self.heard if isinstance(what, bytes))

    @property
    def said(self) -> list[object]:
        return [what for what in self.heard if not isinstance(what, bytes)]


class FakeStream:
    """What `hold_back` knows of a stream."""

    def __init__(self) -> None:
        self.first = self.handler = Handler(self)
        self.is_reset = False
        self.has_peer_finished = self.is_over = False
        self.send_credit = 1000
        self.has_ended = False

    def reset(self) -> None:
        self.is_reset = True


@attrs.frozen
class Place:
    """An account on a board."""

    board: Switchboard
    clock: Clock
    account: Account

    def open(self, name: str) -> Throttle:
        throttle = self.account.tunnels[name] = Throttle(self.account)
        throttle.registrations.add(Registration(name, session=None))
        self.account.limit_tunnel(throttle, 0)
        return throttle

    def limit(self, text: str) -> None:
        self.account.limit(Limits.parse(text), 0)
        for throttle in self.account.tunnels.values():
            self.account.limit_tunnel(throttle, 0)


@asynccontextmanager
async def place(text: str = "bandwidth=1TB", quota: Quota = UNLIMITED) -> AsyncIterator[Place]:
    async with open_switchboard() as board:
        clock = Clock()
        one = Place(board, clock, Account(board, clock, quota))
        one.limit(text)
        yield one


def most_in_any(seconds: float, movers: list[Mover]) -> int:
    """The most bytes that all have moved in any span of so many seconds."""
    log = sorted(entry for mover in movers for entry in mover.log)
    return max(sum(size for at, size in log if begin <= at <= begin + seconds) for begin, _ in log)


# Bandwidth


@pytest.mark.parametrize("rate", [1_000, 50_000, 3_000_000])
@pytest.mark.parametrize("scope", ["", "tunnel."])
async def test_no_more_passes_than_a_seconds_worth_and_then_the_rate(autojump_clock, rate: int, scope: str) -> None:
    async with place(f"{scope}bandwidth={rate}") as here:
        movers = [Mover(here.open("http:app"))]
        movers += [Mover(movers[0].throttle) for _ in range(4)]
        for mover in movers:
            mover.take_turn()
        await trio.sleep(100)
        moved = sum(mover.moved for mover in movers)
        piece = max(MIN_PIECE, min(MAX_PIECE, rate // 10))
        assert 100 * rate <= moved <= 101 * rate + piece
        for seconds in (1, 10):
            assert most_in_any(seconds, movers) <= (seconds + 1) * rate + piece
        assert max(mover.moved for mover in movers) - min(mover.moved for mover in movers) <= rate + 2 * piece


async def test_who_needs_little_does_not_wait_until_much_has_been_moved(autojump_clock) -> None:
    async with place("bandwidth=100kB") as here:
        throttle = here.open("http:app")
        for _ in range(5):
            Mover(throttle).take_turn()
        small = Mover(throttle, left=500)
        small.take_turn()
        before = trio.current_time()
        await small.is_over.wait()
        assert trio.current_time() - before <= 1


async def test_a_tunnel_with_many_visitors_leaves_every_other_turn_to_its_neighbour(autojump_clock) -> None:
    async with place("bandwidth=100kB") as here:
        busy, other = here.open("http:busy"), here.open("http:other")
        crowd = [Mover(busy) for _ in range(20)]
        alone = Mover(other)
        for mover in [*crowd, alone]:
            mover.take_turn()
        await trio.sleep(100)
        assert alone.moved >= 0.4 * sum(mover.moved for mover in [*crowd, alone])


async def test_newcomers_do_not_overtake_those_who_wait(autojump_clock) -> None:
    async with place("bandwidth=10kB") as here:
        Mover(here.open("http:first"), left=11_000).take_turn()
        waiting = Mover(here.open("http:second"), left=3000)
        waiting.take_turn()
        await trio.sleep(TICK - 0.01)
        for number in range(100):  # Each comes just before the board looks who waits.
            Mover(here.open(f"http:{number}"), left=3000).take_turn()
            await trio.sleep(TICK)
        assert waiting.is_over.is_set()


async def test_a_tunnel_that_must_pause_for_itself_does_not_hinder_others(autojump_clock) -> None:
    async with place("bandwidth=10MB") as here:
        slow = here.open("http:slow")
        slow.meter.limit(Quota(bandwidth=1000), 0, here.clock())
        slow.take_effect()
        fast = Mover(here.open("http:fast"))
        for mover in (Mover(slow), Mover(slow), fast):
            mover.take_turn()
        await trio.sleep(10)
        assert fast.moved >= 90_000_000


async def test_who_has_left_does_not_hold_others_up(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        throttle = here.open("http:app")
        Mover(throttle, left=2000).take_turn()
        gone, stays = Mover(throttle), Mover(throttle, left=1)
        gone.take_turn()
        stays.take_turn()
        throttle.withdraw(gone)
        await stays.is_over.wait()
        assert not gone.moved
        throttle.withdraw(gone)


async def test_a_bug_in_one_who_waits_ends_that_one_only(autojump_clock, caplog: pytest.LogCaptureFixture) -> None:
    async with place("bandwidth=1kB") as here:
        throttle = here.open("http:app")
        Mover(throttle, left=3000).take_turn()
        broken, sound = Mover(throttle), Mover(throttle, left=1)
        broken.take_turn()
        broken.left = "much"
        sound.take_turn()
        await sound.is_over.wait()
        assert broken.is_aborted
    assert "failed and is closed" in caplog.text
    caplog.clear()


async def test_other_limits_hold_at_once_for_those_who_wait(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        mover = Mover(here.open("http:app"), left=50_000_000)
        mover.take_turn()
        await trio.sleep(1)
        assert mover.moved < 5000
        here.limit("bandwidth=1MB")
        await trio.sleep(10)
        assert 9_000_000 < mover.moved < 12_000_000
        here.limit("requests=1")
        await mover.is_over.wait()
        assert trio.current_time() < 12


async def test_the_stricter_of_the_servers_and_the_tokens_limits_counts(autojump_clock) -> None:
    async with place("tunnel.bandwidth=5kB", Quota(bandwidth=1000)) as here:
        throttle = here.open("http:app")
        assert throttle.meter.quota.bandwidth == 1000
        here.limit("tunnel.bandwidth=1kB,tunnel.requests=3")
        assert throttle.meter.quota == Quota(bandwidth=1000, requests=3)


async def test_a_connection_that_sends_has_as_many_turns_as_others(autojump_clock) -> None:
    class Stream(FakeStream):
        def send_allowance(self) -> int:
            return MAX_PIECE

        def send_data(self, data: bytes) -> None:
            pass

        def decline(self) -> None:
            pass

    class Port:
        def patch_ended(self, patch: Patch) -> None:
            pass

    async with place("bandwidth=4MB") as here:
        throttle = here.open("tcp:20000")
        (registration,) = throttle.registrations
        near, far = socket.socketpair()
        near.setblocking(False)
        patch = VisitorPatch(here.board, near, Port(), registration, origins=(), unread=bytes(40_000_000))
        patch.attach(Stream())
        here.board.add(near, patch)
        other = Mover(throttle)
        with far:
            other.take_turn()
            patch.pull()
            before = other.moved
            await trio.sleep(5)
            moved = patch.moved, other.moved - before
            assert min(moved) >= 0.45 * sum(moved), moved
            patch.abort()


# Requests and visitors


async def test_requests_are_counted_for_the_tunnel_and_for_the_whole(autojump_clock) -> None:
    async with place("requests=2,tunnel.requests=1") as here:
        one, other = here.open("http:one"), here.open("http:other")
        assert [one.refuse_request() for _ in range(10)] == [None] * 10
        page = one.refuse_request()
        assert (page.status, page.code, page.retry_after) == (429, "too_many_requests", 1)
        assert [other.admits_connection() for _ in range(11)] == [True] * 10 + [False]
        await trio.sleep(1)
        assert [here.open("http:third").admits_connection() for _ in range(3)] == [True, True, False]
        assert one.refuse_request() is not None, "the whole has had its two"


async def test_a_change_of_other_limits_gives_no_requests_back(autojump_clock) -> None:
    async with place("requests=1") as here:
        throttle = here.open("http:app")
        while throttle.admits_connection():
            pass
        here.limit("requests=1,visitors=5,daily=1GB")
        assert not throttle.admits_connection()
        here.limit("requests=2")
        assert throttle.admits_connection()


async def test_visitors_are_counted_for_the_tunnel_and_for_the_whole(autojump_clock) -> None:
    async with place("visitors=3,tunnel.visitors=2") as here:
        one, other = here.open("http:one"), here.open("http:other")
        (first,), (second,) = one.registrations, other.registrations
        first.streams = 1
        assert not one.is_full
        first.streams = 2
        assert one.is_full
        assert not other.is_full
        second.streams = 1
        assert other.is_full
        assert not other.admits_connection()
        here.limit("visitors=4")
        assert not one.is_full


# A day's bytes


@pytest.mark.parametrize("scope", ["", "tunnel."])
async def test_after_a_days_bytes_nothing_passes_until_the_next(autojump_clock, scope: str) -> None:
    async with place(f"{scope}daily=100kB") as here:
        throttle = here.open("http:app")
        (registration,) = throttle.registrations
        owner = Owner(FakeStream())
        registration.stream_opened(owner)
        mover = Mover(throttle)
        mover.take_turn()
        await trio.sleep(1)
        assert mover.moved == 100_000
        assert owner.was_cut is not None
        assert mover.was_cut
        page = throttle.refuse_request()
        assert (page.status, page.code) == (429, "daily_limit")
        assert page.retry_after == math.ceil(86_400 - here.clock())
        assert not throttle.admits_connection()
        await trio.sleep(86_400 - here.clock())
        assert throttle.refuse_request() is None
        assert throttle.turn(mover)


async def test_what_was_used_before_counts(autojump_clock) -> None:
    async with place() as here:
        throttle = here.open("http:app")
        here.account.limit(Limits.parse("daily=100kB"), 99_000)
        mover = Mover(throttle)
        mover.take_turn()
        assert mover.moved == 1000
        here.account.limit(Limits.parse("daily=99kB"), 100_000)
        assert throttle.is_used_up


async def test_a_stream_that_is_opened_at_the_end_of_the_day_is_cut_when_it_moves(autojump_clock) -> None:
    async with place("daily=1kB") as here:
        throttle = here.open("http:app")
        throttle.passed(1000)
        await trio.sleep(1)
        stream = FakeStream()
        owner = Owner(stream)
        (registration,) = throttle.registrations
        registration.stream_opened(owner)
        stream.handler.data_received(memoryview(b"late"))
        await trio.sleep(1)
        assert owner.was_cut is not None
        assert not stream.first.size
        registration.stream_over(owner)


# What is held back


async def test_what_comes_is_passed_on_in_order_and_in_its_time(autojump_clock) -> None:
    async with place("bandwidth=10kB") as here:
        stream = FakeStream()
        here.open("http:app").hold_back(stream)
        data = bytes(range(256)) * 400
        stream.handler.data_received(memoryview(data[:60_000]))
        stream.handler.data_received(memoryview(data[60_000:]))
        stream.handler.stream_ended()
        assert 10_000 <= stream.first.size <= 10_000 + MIN_PIECE
        await trio.sleep(5)
        assert 58_000 <= stream.first.size <= 62_000
        assert stream.first.said == []
        await trio.sleep(10)
        assert b"".join(what for what in stream.first.heard if isinstance(what, bytes)) == data
        assert stream.first.heard[-1] == "ended"


@pytest.mark.parametrize("ending", ["reset", "lost"])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_has_come_is_passed_on_whatever_happens_then(autojump_clock, ending: str, is_whole: bool) -> None:
    async with place("bandwidth=1kB") as here:
        stream = FakeStream()
        here.open("http:app").hold_back(stream)
        stream.handler.data_received(memoryview(bytes(10_000)))
        if is_whole:
            stream.handler.stream_ended()
        if ending == "reset":
            stream.handler.stream_reset(7)
        else:
            stream.handler.connection_lost()
        last = 7 if ending == "reset" else "lost"
        assert stream.first.said == []
        assert not stream.send_credit
        await trio.sleep(20)
        assert stream.first.said == (["ended", last] if is_whole else [last])
        assert stream.first.size == 10_000
        assert stream.is_reset == (ending == "reset" and not is_whole)


async def test_nothing_is_kept_of_what_nobody_wants(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        throttle = here.open("http:app")
        released, evicted = FakeStream(), FakeStream()
        for stream in (released, evicted):
            throttle.hold_back(stream)
            throttle.hold_back(stream)  # Once is enough.
            stream.handler.data_received(memoryview(bytes(10_000)))
        assert throttle.is_waiting(released.handler)
        throttle.release(released)
        evicted.handler.evicted()
        assert evicted.first.said == ["evicted"]
        assert not throttle.has_waiters
        sizes = released.first.size, evicted.first.size
        released.handler.data_received(memoryview(b"more"))
        await trio.sleep(60)
        assert (released.first.size, evicted.first.size) == sizes


async def test_a_handler_that_leaves_its_stream_to_another_one_leaves_what_is_kept_too(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        stream = FakeStream()
        here.open("http:app").hold_back(stream)
        successor = stream.first.successor = Handler(stream)
        stream.handler.data_received(memoryview(bytes(1000) + b"x" * 3000))
        stream.handler.stream_ended()
        await trio.sleep(10)
        assert stream.first.size <= MIN_PIECE
        assert stream.first.size + successor.size == 4000
        assert successor.heard[-2:] == [b"x" * len(successor.heard[-2]), "ended"]
        assert stream.first.said == []


async def test_a_successor_that_leaves_at_once_leaves_nothing_behind(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        throttle = here.open("http:app")
        stream = FakeStream()
        throttle.hold_back(stream)

        class Leaver(Handler):
            def data_received(self, data: memoryview) -> None:
                super().data_received(data)
                throttle.release(self.stream)

        class Upgrader(Handler):
            def data_received(self, data: memoryview) -> None:
                hand_on(self.stream, leaver)
                leaver.data_received(data)

        leaver = Leaver(stream)
        hand_on(stream, Upgrader(stream))
        stream.handler.data_received(memoryview(bytes(9000)))
        assert not throttle.has_waiters
        size = leaver.size
        await trio.sleep(20)
        assert leaver.size == size < 9000


async def test_turns_to_send_pass_through(autojump_clock) -> None:
    async with place("bandwidth=1kB") as here:
        stream = FakeStream()
        here.open("http:app").hold_back(stream)
        stream.handler.window_opened()
        assert stream.first.heard == ["window"]


async def test_streams_that_are_there_are_held_back_from_the_first_limit_on(autojump_clock) -> None:
    async with open_switchboard() as board:
        clock = Clock()
        here = Place(board, clock, Account(board, clock, UNLIMITED))
        throttle = here.open("http:app")
        (registration,) = throttle.registrations
        stream = FakeStream()
        registration.stream_opened(Owner(stream))
        assert registration.throttle is None
        assert stream.handler is stream.first
        here.limit("tunnel.bandwidth=1kB")
        assert registration.throttle is throttle
        stream.handler.data_received(memoryview(bytes(50_000)))
        await trio.sleep(3)
        assert 3_000 <= stream.first.size <= 5_000 + MIN_PIECE


# Leaving nothing behind


async def test_tunnels_that_are_gone_are_forgotten_when_they_have_no_effect(autojump_clock) -> None:
    async with place("requests=1") as here:
        throttle = here.open("http:app")
        (registration,) = throttle.registrations
        registration.streams, registration.moved = 1, 10
        assert throttle.admits_connection()
        account = here.account
        account.sweep({registration})
        account.sweep(set())
        assert throttle.registrations, "it still has a visitor"
        registration.streams, registration.moved = 0, 15
        assert throttle.count() == 15
        account.sweep(set())
        assert not account.tunnels
        assert throttle.count() == 0
        assert not account.is_at_rest, "a new one would have one request more"
        await trio.sleep(2)
        assert account.is_at_rest


def test_what_passes_is_counted_once() -> None:
    throttle = Throttle(account=None)
    one, other = Registration("app", session=None), Registration("app", session=None)
    throttle.registrations |= {one, other}
    owner = Owner(FakeStream(), moved=5)
    one.streams = 1
    one.stream_opened(owner)
    other.moved = 2
    assert throttle.count() == 7
    owner.moved = 9
    one.stream_over(owner)
    assert (throttle.count(), one.streams) == (4, 0)
    throttle.forget(one)
    assert throttle.count() == 0
