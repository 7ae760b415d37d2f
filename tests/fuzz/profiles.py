"""The limits under which `fuzz_connection.py` has its conversations: some are so low that they are reached."""

from typing import Final

import attrs

from otun.yamux import Allowance, SessionLimits

KIB: Final = 1024
STRICT: Final = SessionLimits(
    max_streams=8,
    accept_backlog=4,
    resets=Allowance(10, per_second=1),
    empty_frames=Allowance(10, per_second=1),
    send_queue=64 * KIB,
    max_pongs=2,
    max_refusals=4,
    max_ends=8,
    close_timeout=5.0,
)
PROFILES: Final = {
    "default": SessionLimits(),
    "large": SessionLimits(receive_window=356 * KIB, max_receive_window=356 * KIB, max_held=2**40),
    "growing": SessionLimits(max_receive_window=768 * KIB, max_held=8 * 1024 * KIB),
    "tight": SessionLimits(max_receive_window=512 * KIB, max_held=256 * KIB),
    "crowded": SessionLimits(receive_window=300 * KIB, max_receive_window=2048 * KIB, max_held=1024 * KIB),
    "strict": STRICT,
    "strict and tight": attrs.evolve(STRICT, receive_window=260 * KIB, max_held=300 * KIB),
}
