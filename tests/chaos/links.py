"""The way between client and server, and what can happen on it: the same for two machines and for a relay."""

from typing import Final, Protocol

import attrs
import trio

from .namespaces import Machines
from .relay import Relay

RESET_TIME: Final = 0.1
"""Seconds in which every packet is answered by an RST: each end has said something in that time, if it has visitors."""


class Link(Protocol):
    """What can happen on the way."""

    @property
    def kind(self) -> str:
        """What it is made of, in words."""

    async def take_down(self) -> None:
        """From now on nothing passes, and nobody is told."""

    async def bring_up(self) -> None:
        """Everything passes again."""

    async def lose(self, percent: int) -> None:
        """Lose so many of the packets, each way, until `heal`."""

    async def reset(self) -> None:
        """End the connections by RSTs, once."""

    async def forget(self, client_port: int) -> None:
        """Pass nothing on of the connection that the client has from this port, until `heal`; neither end is told."""

    async def heal(self) -> None:
        """End what was begun."""


@attrs.frozen
class MachineLink:
    """A link between two network namespaces."""

    machines: Machines
    kind: str = "network namespaces"

    async def take_down(self) -> None:
        await self.machines.take_down()

    async def bring_up(self) -> None:
        await self.machines.bring_up()

    async def lose(self, percent: int) -> None:
        await self.machines.lose(percent)

    async def reset(self) -> None:
        await self.machines.reset()
        await trio.sleep(RESET_TIME)
        await self.machines.heal()

    async def forget(self, client_port: int) -> None:
        await self.machines.forget(client_port)

    async def heal(self) -> None:
        await self.machines.heal()


@attrs.frozen
class RelayLink:
    """A relay; *why*, if it is one only because there could not be namespaces."""

    relay: Relay
    why: str = ""

    @property
    def kind(self) -> str:
        return f"relay, as {self.why}" if self.why else "relay"

    async def take_down(self) -> None:
        self.relay.stall()

    async def bring_up(self) -> None:
        self.relay.go_on()

    async def lose(self, percent: int) -> None:
        self.relay.loss = percent / 100

    async def reset(self) -> None:
        self.relay.cut(with_reset=True)
        await trio.sleep(RESET_TIME)

    async def forget(self, client_port: int) -> None:
        self.relay.forget()

    async def heal(self) -> None:
        self.relay.loss = 0.0
