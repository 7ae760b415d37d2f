"""The faults.  Each does harm to a world, and returns when that is over: from then on the time to recover counts."""

import signal
import time
from pathlib import Path

import trio

from .links import RelayLink
from .relay import Relay
from .world import World

# The link


async def take_link_down(world: World, *, seconds: float) -> None:
    await world.link.take_down()
    await trio.sleep(seconds)
    await world.link.bring_up()


async def forget_connection(world: World) -> None:
    """What was there passes no more, from now on until the end."""
    await world.link.forget(await world.client_port())


async def cut_power(world: World, *, which: str) -> None:
    """A machine ends in the middle, and starts again; nothing is ever heard of its connection."""
    await forget_connection(world)
    await kill(world, which=which)


async def storm_of_resets(world: World, *, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while True:
            await world.link.reset()
            await trio.sleep(0.2)
    await world.link.heal()


async def lose_packets(world: World, *, percent: int, seconds: float) -> None:
    await world.link.lose(percent)
    await trio.sleep(seconds)
    await world.link.heal()


def _relay_of(world: World) -> Relay:
    assert isinstance(world.link, RelayLink)
    return world.link.relay


async def delay_all(world: World, *, delay: float, seconds: float) -> None:
    relay = _relay_of(world)
    relay.delay = delay
    await trio.sleep(seconds)
    relay.delay = 0.0


async def drip(world: World, *, rate: float, seconds: float) -> None:
    relay = _relay_of(world)
    relay.rate = rate
    await trio.sleep(seconds)
    relay.rate = None


async def damage_bytes(world: World, *, seconds: float) -> None:
    relay = _relay_of(world)
    relay.damage = 200_000
    await trio.sleep(seconds)
    relay.damage = None
    assert relay.damaged, "nothing was damaged"


# The programs


async def kill(world: World, *, which: str) -> None:
    """Kill it; who supervises it starts it again at once."""
    await getattr(world, which).kill()


async def restart(world: World, *, which: str, times: int = 1) -> None:
    """Ask it to end, as `systemctl restart` does; when it has, who supervises it starts it again."""
    program = getattr(world, which)
    await program.restart()
    for _ in range(times - 1):
        await world.wait_until_served(since=time.monotonic())
        await program.restart()


async def replace_server(world: World, *, times: int) -> None:
    """Have one server after the other take its predecessor's place."""
    for _ in range(times):
        await world.replace_server()


async def reload_settings(world: World, *, times: int) -> None:
    """Have the server read its file again, now with a good setting in it, now with a bad one."""
    for number in range(times):
        await world.reload_server(f"max_streams = {10_000 - number}", "the settings were read again")
        await world.reload_server("max_streams = 'many'", "nothing was reloaded")


async def stop(world: World, *, which: str, seconds: float) -> None:
    """Stop it as a suspended machine is, and let it go on."""
    program = getattr(world, which)
    program.send_signal(signal.SIGSTOP)
    await trio.sleep(seconds)
    program.send_signal(signal.SIGCONT)


# What the programs need of their system


async def fill_disk(world: World, *, seconds: float) -> None:
    """Leave no room where the server writes, while a client comes back; then make some."""
    if isinstance(world.link, RelayLink):
        await _limit_files(world, "1")
    else:
        _fill(world.state / "ballast")
    await world.client.kill()
    await trio.sleep(seconds)
    if isinstance(world.link, RelayLink):
        await _limit_files(world, "unlimited")
    else:
        (world.state / "ballast").unlink()


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast:
        for size in (65_536, 512):
            while True:
                try:
                    ballast.write(bytes(size))
                except OSError:
                    break


async def _limit_files(world: World, size: str) -> None:
    """No file of the server's can grow beyond that."""
    await trio.run_process(["prlimit", "--pid", str(world.server.pid), f"--fsize={size}:unlimited"])


async def step_clock(world: World, *, steps: tuple[str, ...], seconds: float) -> None:
    """Set the clock of both programs to other times, one after the other."""
    for step in steps:
        world.set_clock(step)
        await trio.sleep(seconds)


async def flood(world: World, *, count: int, seconds: float) -> None:
    """Make more connections than the server has descriptors, and stay for a while."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            await nursery.start(_hold_connection, world.http_port)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()


async def _hold_connection(port: int, task_status: trio.TaskStatus[None]) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port):
        task_status.started()
        await trio.sleep_forever()
