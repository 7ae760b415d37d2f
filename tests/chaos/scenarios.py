"""What can happen, and what is promised when it does."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias

import attrs

from .faults import (
    cut_power,
    damage_bytes,
    delay_all,
    drip,
    fill_disk,
    flood,
    forget_connection,
    kill,
    lose_packets,
    reload_settings,
    replace_server,
    restart,
    step_clock,
    stop,
    storm_of_resets,
    take_link_down,
)
from .world import TRAFFIC, Setting, World

RECOVERY_LIMIT: Final = 3.0
"""Seconds from the end of a fault to the first good answer."""

DETECTION_LIMIT: Final = 15.0
"""Seconds in which either end finds that the other has gone without a word, or lets go of its names."""

REQUESTS: Final[Mapping[str, int]] = {"probe": 10, "busy": 2, "chain": 2, "download": 1, "upload": 1}
"""Visitors by HTTP who come to an end by themselves."""

Harm: TypeAlias = Callable[[World], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Scenario:
    """One fault.  *what* is how the table calls it; *limit* are the seconds in which service must have returned."""

    name: str
    what: str
    harm: Harm
    setting: Setting = attrs.field(factory=Setting)
    traffic: Mapping[str, int] = TRAFFIC
    limit: float = RECOVERY_LIMIT
    may_damage: bool = False
    """Whether visitors may get wrong bytes: those that TCP itself has been given."""
    is_uninterrupted: bool = False
    """Whether visitors must not notice anything."""
    is_held: bool = False
    """Whether those who come when the fault is over must be let wait (`--hold`), and then be served."""


DESCRIPTORS: Final = 64
"""What the server has in `descriptors-used-up`."""

ALL: Final = (
    Scenario(name="link-down-5", what="link down for 5 s", harm=partial(take_link_down, seconds=5)),
    Scenario(name="link-down-30", what="link down for 30 s", harm=partial(take_link_down, seconds=30)),
    Scenario(
        name="half-open-connection",
        what="the connection is forgotten on the way (half-open): from then on",
        harm=forget_connection,
        limit=DETECTION_LIMIT + RECOVERY_LIMIT,
    ),
    Scenario(
        name="half-open-client",
        what="the client's machine loses power (half-open), and starts again",
        harm=partial(cut_power, which="client"),
        setting=Setting(is_client_supervised=True),
        limit=DETECTION_LIMIT + RECOVERY_LIMIT,
    ),
    Scenario(
        name="half-open-server",
        what="the server's machine loses power (half-open), and starts again",
        harm=partial(cut_power, which="server"),
        setting=Setting(is_server_supervised=True),
        limit=DETECTION_LIMIT + RECOVERY_LIMIT,
    ),
    Scenario(
        name="rst-storm",
        what="RSTs to both ends for 10 s, three a second",
        harm=partial(storm_of_resets, seconds=10),
        setting=Setting(link="relay"),
    ),
    Scenario(
        name="rst-to-senders",
        what="RSTs for 10 s, to whoever sends (a firewall)",
        harm=partial(storm_of_resets, seconds=10),
        limit=DETECTION_LIMIT + RECOVERY_LIMIT,  # The other end finds out when it sends something itself.
    ),
    Scenario(
        name="loss-1",
        what="1 % of the packets lost",
        harm=partial(lose_packets, percent=1, seconds=10),
        is_uninterrupted=True,
    ),
    Scenario(
        name="loss-20",
        what="20 % of the packets lost",
        harm=partial(lose_packets, percent=20, seconds=15),
        limit=DETECTION_LIMIT,  # TCP waits for twice as long each time, or the session is given up.
    ),
    Scenario(
        name="delay-500",
        what="500 ms of delay, each way",
        harm=partial(delay_all, delay=0.5, seconds=15),
        setting=Setting(link="relay"),
        is_uninterrupted=True,
    ),
    Scenario(
        name="drip",
        what="20 KB a second, each way",
        harm=partial(drip, rate=20_000, seconds=15),
        setting=Setting(link="relay"),
    ),
    Scenario(
        name="kill-client",
        what="kill -9 of the client, which is started again",
        harm=partial(kill, which="client"),
        setting=Setting(is_client_supervised=True),
        is_held=True,
    ),
    Scenario(
        name="kill-server",
        what="kill -9 of the server, which is started again",
        harm=partial(kill, which="server"),
        setting=Setting(is_server_supervised=True),
    ),
    Scenario(
        name="restart-client",
        what="SIGTERM to the client, which is started again when it has drained",
        harm=partial(restart, which="client"),
        setting=Setting(is_client_supervised=True),
    ),
    Scenario(
        name="restart-server",
        what="SIGTERM to the server, which is started again when it has drained",
        harm=partial(restart, which="server"),
        setting=Setting(is_server_supervised=True),
        traffic=REQUESTS,
    ),
    Scenario(
        name="restart-server-sockets",
        what="the same three times, with its sockets from systemd (`LISTEN_FDS`)",
        harm=partial(restart, which="server", times=3),
        setting=Setting(link="relay", is_server_supervised=True, has_socket_units=True),
        traffic=REQUESTS,
        is_uninterrupted=True,
    ),
    Scenario(
        name="replace-server",
        what="three servers in each other's place under load (`--replace`)",
        harm=partial(replace_server, times=3),
        traffic=TRAFFIC | REQUESTS,
        is_uninterrupted=True,
    ),
    Scenario(
        name="reload-server",
        what="good and bad settings in turn under load (SIGHUP)",
        harm=partial(reload_settings, times=5),
        traffic=TRAFFIC | REQUESTS,
        is_uninterrupted=True,
    ),
    Scenario(
        name="stop-client-60",
        what="the client stopped for 60 s (SIGSTOP)",
        harm=partial(stop, which="client", seconds=60),
    ),
    Scenario(
        name="stop-server-60",
        what="the server stopped for 60 s (SIGSTOP)",
        harm=partial(stop, which="server", seconds=60),
    ),
    Scenario(
        name="disk-full",
        what="the server's disk full for 10 s, and the client started again meanwhile",
        harm=partial(fill_disk, seconds=10),
        setting=Setting(is_client_supervised=True, has_small_disk=True),
    ),
    Scenario(
        name="clock-stepped",
        what="the clock set forward by a day, back by two, and right again",
        harm=partial(step_clock, steps=("+1d", "-1d", "+0"), seconds=4),
        setting=Setting(has_own_clock=True),
        is_uninterrupted=True,
    ),
    Scenario(
        name="descriptors-used-up",
        what=f"200 connections to a server with {DESCRIPTORS} descriptors (EMFILE), for 10 s",
        harm=partial(flood, count=200, seconds=10),
        setting=Setting(link="relay", server_descriptors=DESCRIPTORS),
        traffic={"probe": 5, "chain": 2, "websocket": 2, "echo": 2},
    ),
    Scenario(
        name="damage",
        what="bits turned over on the way, without TLS",
        harm=partial(damage_bytes, seconds=10),
        setting=Setting(link="relay", is_encrypted=False),
        may_damage=True,
    ),
    Scenario(
        name="damage-tls",
        what="bits turned over on the way, with TLS",
        harm=partial(damage_bytes, seconds=10),
        setting=Setting(link="relay"),
    ),
)

BY_NAME: Final = {scenario.name: scenario for scenario in ALL}
