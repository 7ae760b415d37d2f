"""Whatever visitors do, in any order: no limit is passed by, nobody starves, and nothing is left when all have gone."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.access import UNLIMITED, Limits
from otun.server.accounts import Account
from otun.server.metering import BANDWIDTH_BURST
from otun.server.registry import Registration
from otun.server.throttling import MAX_PIECE, MIN_PIECE, PIECES_A_SECOND, Throttle
from otun.switchboard import open_switchboard
from otun.switchboard.deadlines import TICK

from .test_throttling import Clock, FakeStream, Handler, Mover, Owner

TUNNELS: Final = 3

tunnels = st.integers(0, TUNNELS - 1)
visitors = st.integers(0, 20)  # The one of this number, modulo how many there are.
sizes = st.sampled_from([1, 700, 20_000, 100_000])
rates = st.sampled_from([None, 1_000, 30_000, 700_000])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), tunnels, sizes),
        st.tuples(st.just("open"), tunnels),
        st.tuples(st.just("receive"), visitors, sizes),
        st.tuples(st.sampled_from(["end", "reset", "lose", "leave", "give_up"]), visitors),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 2.0, 30.0])),
    ),
    max_size=30,
)


@attrs.define(eq=False)
class Receiver(Handler):
    """A stream's handler, which takes note of when something came."""

    log: list[tuple[float, int]] = attrs.field(factory=list)
    sent: int = 0

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        self.log.append((trio.current_time(), len(data)))


@attrs.define(eq=False)
class Machine:
    """An account with some tunnels, and those who visit them."""

    account: Account
    throttles: list[Throttle]
    senders: list[Mover] = attrs.field(factory=list)
    owners: dict[Owner, Registration] = attrs.field(factory=dict)
    logs: dict[Throttle, list[list[tuple[float, int]]]] = attrs.field(factory=dict)

    def send(self, tunnel: int, size: int) -> None:
        mover = Mover(self.throttles[tunnel], left=size)
        mover.log.append((trio.current_time(), 0))
        self.senders.append(mover)
        self.logs[mover.throttle].append(mover.log)
        mover.take_turn()

    def give_up(self, number: int) -> None:
        if self.senders:
            mover = self.senders.pop(number % len(self.senders))
            mover.throttle.withdraw(mover)

    def open(self, tunnel: int) -> None:
        throttle = self.throttles[tunnel]
        (registration,) = throttle.registrations
        stream = FakeStream()
        stream.first = stream.handler = receiver = Receiver(stream)
        owner = Owner(stream)
        self.logs[throttle].append(receiver.log)
        self.owners[owner] = registration
        registration.streams += 1
        registration.stream_opened(owner)

    def _choose(self, number: int) -> tuple[Owner, Receiver] | None:
        owners = list(self.owners)
        owner = owners[number % len(owners)] if owners else None
        return None if owner is None else (owner, owner.stream.first)

    def receive(self, number: int, size: int) -> None:
        found = self._choose(number)
        if found is not None:
            owner, receiver = found
            if not owner.stream.has_ended:
                receiver.sent += size
                owner.moved += size
                owner.stream.handler.data_received(memoryview(bytes(size)))

    def end(self, number: int) -> None:
        found = self._choose(number)
        if found is not None and not found[0].stream.has_ended:
            found[0].stream.has_ended = True
            found[0].stream.handler.stream_ended()

    def reset(self, number: int) -> None:
        self._break(number, lambda stream: stream.handler.stream_reset(7))

    def lose(self, number: int) -> None:
        self._break(number, lambda stream: stream.handler.connection_lost())

    def _break(self, number: int, call) -> None:
        found = self._choose(number)
        if found is not None and not found[0].stream.is_over:
            owner, _ = found
            owner.stream.has_ended = owner.stream.is_over = True
            call(owner.stream)

    def leave(self, number: int) -> None:
        found = self._choose(number)
        if found is not None:
            self.owners.pop(found[0]).stream_over(found[0])

    @property
    def total(self) -> int:
        senders = sum(int(mover.left) for mover in self.senders)
        return senders + sum(owner.stream.first.sent - owner.stream.first.size for owner in self.owners)


def check_rate(logs: Iterable[list[tuple[float, int]]], rate: int, piece: int) -> None:
    """See that in no span of time more has passed than may: the burst, the rate, and what was moved at once."""
    most = rate * BANDWIDTH_BURST + piece
    above = 0.0  # How much more has passed than the rate allows, since the moment for which that is most.
    before = 0.0
    for at, size in sorted(entry for log in logs for entry in log):
        above = max(above - (at - before) * rate, 0.0) + size
        before = at
        assert above <= most + 1e-3, (at, above, most)


def check_gaps(mover: Mover, longest: float) -> None:
    """See that whoever had something to send never waited for longer."""
    times = [at for at, _ in mover.log]
    if mover.left:
        times.append(trio.current_time())
    assert all(after - before <= longest for before, after in pairwise(times)), times


async def see_everything_pass(machine: Machine, each: int | None, whole: int | None, piece: int) -> None:
    """See that nobody starves: each has a turn in each round, and all is done in the time that it takes."""
    slowest = min(rate for rate in (whole, each, 10**12) if rate is not None)
    turn = max(piece / (each or 10**12), TUNNELS * piece / (whole or 10**12)) + TICK
    await trio.sleep(machine.total / slowest + (len(machine.senders) + len(machine.owners) + 2) * turn)
    for mover in machine.senders:
        assert mover.is_over.is_set()
        check_gaps(mover, (len(machine.logs[mover.throttle]) + 1) * turn)
    for owner in machine.owners:
        receiver = owner.stream.first
        assert receiver.size == receiver.sent
        assert len(receiver.said) <= 2


@settings(max_examples=300, deadline=None)
@given(whole=rates, each=rates, steps=steps, is_cut_short=st.booleans())
def test_whatever_visitors_do(whole: int | None, each: int | None, steps: list[tuple], is_cut_short: bool) -> None:
    texts = [f"bandwidth={whole}"] * (whole is not None) + [f"tunnel.bandwidth={each}"] * (each is not None)
    limits = Limits.parse(",".join(texts or ["bandwidth=1TB"]))
    trio.run(run, limits, whole, each, steps, is_cut_short, clock=trio.testing.MockClock(autojump_threshold=0))


async def run(limits: Limits, whole: int | None, each: int | None, steps: list[tuple], is_cut_short: bool) -> None:
    slowest = min(rate for rate in (whole, each, 10**12) if rate is not None)
    piece = max(MIN_PIECE, min(MAX_PIECE, slowest // PIECES_A_SECOND))
    async with open_switchboard() as board:
        clock = Clock()
        account = Account(board, clock, UNLIMITED)
        account.limit(limits, 0)
        machine = Machine(account, [Throttle(account) for _ in range(TUNNELS)])
        for number, throttle in enumerate(machine.throttles):
            account.tunnels[f"http:{number}"] = throttle
            throttle.registrations.add(Registration(f"app-{number}", session=None))
            account.limit_tunnel(throttle, 0)
            machine.logs[throttle] = []
        for name, *arguments in steps:
            if name == "wait":
                await trio.sleep(*arguments)
            else:
                getattr(machine, name)(*arguments)

        if not is_cut_short:
            await see_everything_pass(machine, each, whole, piece)

        # No limit is passed by.
        for throttle in machine.throttles:
            if each is not None:
                check_rate(machine.logs[throttle], each, piece)
        if whole is not None:
            check_rate([log for logs in machine.logs.values() for log in logs], whole, piece)

        # Nothing is left.
        while machine.owners or machine.senders:
            machine.leave(0)
            machine.give_up(0)
        assert not any(throttle.has_waiters for throttle in machine.throttles)
        await trio.sleep(3 + 2 * TICK)
        assert not account._waiting
        assert not account.is_congested
        for throttle in machine.throttles:
            (registration,) = throttle.registrations
            assert (registration.streams, registration.owners, throttle.has_waiters) == (0, set(), False)
        account.sweep(set())
        await trio.sleep(3)
        account.sweep(set())
        assert account.is_at_rest
