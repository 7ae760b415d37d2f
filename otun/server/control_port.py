"""The control port: one client's life, from its first byte to its last."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import attrs
import trio

from ..background import open_background
from ..control.heartbeat import REGISTRATION_LIMIT, SILENCE_LIMIT, registration_deadline, silence_deadline
from ..control.messages import Error, Health, Heartbeat, HeartbeatAck, Message, Register
from ..errors import BadMessage
from ..mux import ControlChannel, Session, SessionClosed, StreamReset
from ..yamux import Allowance, SessionLimits, YamuxStream
from .admission import MAX_TUNNELS, Refused, check_id, refuse
from .bans import BANNED, Bans
from .clients import Client, ClientAddress, Clients
from .opening import ENDING, TunnelOpener

logger: logging.Logger = logging.getLogger(__name__)

MAX_UNREGISTERED: Final = 1024
"""Connections that have not registered yet.  Each may take ten seconds and a few tens of KiB."""

CLIENT_LIMITS: Final = SessionLimits(
    accept_backlog=1, resets=Allowance(64, per_second=1), keepalive_interval=10, ping_timeout=10
)
"""A client opens one stream, the control stream: strangers cannot fill more.

One that has vanished is noticed after 20 seconds; one that is there is not silent for much longer than 10.
"""

STREAMS_KEPT: Final = 4_000_000
"""Streams that a session must have left at each heartbeat, so that they last until the next one."""

FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that the last message to a client may take."""


class ControlPort:
    """Serves clients, each in a task of whoever calls `serve_client`."""

    def __init__(self, clients: Clients, opener: TunnelOpener, bans: Bans) -> None:
        self._clients = clients
        self._bans = bans
        self._opener = opener
        self.unregistered: int = 0

    async def serve_client(self, session: Session, address: ClientAddress, *, is_acceptable: bool = True) -> None:
        """Register the client and keep its tunnel until the session ends, or the client breaks a rule.

        A client that is not *is_acceptable* has no TLS, and is told that it needs it.
        Whatever the client does ends in a line of the log, never in an exception.
        """
        channel: ControlChannel | None = None
        try:
            with self._registering():
                channel = ControlChannel(await session.accept())
                session.deliver_to(_refuse_stream)
                request = await _receive_register(channel)
            if not is_acceptable:
                raise refuse(
                    "this server takes encrypted connections only: connect without --plaintext, "
                    "and on the server's own machine with --fingerprint or --ca",
                    "tls_required",
                )
            await self._opener.look_for_token(request)
            if self._bans.covers(address.peer.host):  # By now.
                raise Refused(BANNED)
            client = self._clients.new(session, address)
            client.identity = self._opener.authenticate(request)
            await self._serve_tunnels(client, channel, request)
        except Refused as refusal:
            assert channel is not None
            level = logging.INFO if refusal.answer is ENDING else logging.WARNING
            logger.log(level, "client %s: refused: %s", address, refusal)
            await _say_farewell(channel, refusal.answer)
        except trio.TooSlowError:
            logger.info("client %s: ended: it did not register within %.0f seconds", address, REGISTRATION_LIMIT)
        except trio.EndOfChannel:
            logger.info("client %s: ended: it closed its control stream", address)
        except (SessionClosed, StreamReset) as error:
            logger.info("client %s: ended: %s", address, error)

    @contextmanager
    def _registering(self) -> Iterator[None]:
        self.unregistered += 1
        try:
            with trio.fail_at(registration_deadline(trio.current_time())):
                yield
        finally:
            self.unregistered -= 1

    async def _serve_tunnels(self, client: Client, channel: ControlChannel, request: Register) -> None:
        """Open the client's tunnels, and keep it company until it leaves.

        Raises `Refused` when the first tunnel is refused, when the client falls silent or breaks a rule, and when
        somebody else ends it.
        """
        with self._clients.including(client), client.scope:
            async with open_background() as background:
                background.start_soon(_see_off, client)
                await self._keep_company(client, channel, request)
        client.check()

    async def _keep_company(self, client: Client, channel: ControlChannel, request: Register) -> NoReturn:
        await channel.send(self._opener.open(client, request))
        while True:
            # A client that does not take its answers is as good as silent.
            with trio.move_on_at(silence_deadline(trio.current_time())) as silence:
                message = await _receive(channel)
                await channel.send(self._answer(client, message))
            if silence.cancelled_caught:
                raise refuse(f"no heartbeat for {SILENCE_LIMIT:.0f} seconds", "silent", retryable=True)

    def _answer(self, client: Client, message: Message) -> Message:
        """Return the answer to what a registered client says.  Raises `Refused`."""
        if isinstance(message, Heartbeat):
            if client.session.streams_left < STREAMS_KEPT:
                raise refuse("this session has used up its stream ids", "worn_out", retryable=True)
            return HeartbeatAck()
        if isinstance(message, Health):
            return self._take_note(client, message)
        if not isinstance(message, Register) or not message.id or message.id in client.tunnels:
            raise refuse(
                "a registered client sends heartbeats, the health of its tunnels, and further ones with new ids",
                "bad_message",
            )
        try:
            if len(client.tunnels) >= MAX_TUNNELS:
                raise refuse(f"a client has at most {MAX_TUNNELS} tunnels here", "too_many_tunnels")
            return self._opener.open(client, message)
        except Refused as refusal:
            client.check()
            logger.warning("client %s: a further tunnel was refused: %s", client, refusal)
            return attrs.evolve(refusal.answer, id=message.id)

    def _take_note(self, client: Client, health: Health) -> HeartbeatAck:
        if client.session.is_going_away:
            return HeartbeatAck()  # Its tunnels are closed already.
        if health.id not in client.tunnels:
            raise refuse("a client knows the health of its own tunnels only", "bad_message")
        registration = client.tunnels[health.id].registration
        if registration.is_healthy is not health.healthy:
            registration.is_healthy = health.healthy
            how = "well again" if health.healthy else "not well"
            logger.info("client %s: the local service of tunnel %s is %s", client, registration.name, how)
        return HeartbeatAck()


async def _see_off(client: Client) -> None:
    """Have no more visitors come to a client that says that it leaves."""
    await client.session.wait_peer_left()
    if not client.session.is_closed:
        logger.info("client %s: leaves, when its visitors have finished", client)
        client.retire()


def _refuse_stream(stream: YamuxStream) -> None:
    """A client opens one stream, for control; visitors' streams are the server's to open."""
    stream.reset()


async def _receive_register(channel: ControlChannel) -> Register:
    """Return the registration.  Raises `Refused` when the first message is another one, or bad."""
    message = await _receive(channel)
    if not isinstance(message, Register):
        raise refuse("the first message must be a registration", "bad_message")
    return message


async def _say_farewell(channel: ControlChannel, answer: Error) -> None:
    with trio.move_on_after(FAREWELL_TIMEOUT), suppress(SessionClosed, StreamReset):
        await channel.send(answer)


async def _receive(channel: ControlChannel) -> Message:
    """Return the client's next message.  Raises `Refused` when it says what nobody understands, or can answer."""
    try:
        message = await channel.receive()
    except BadMessage as error:
        raise refuse(str(error), "bad_message") from error
    if isinstance(message, Register):
        check_id(message)  # The answer has it, too.
    return message
