"""The control port: one client's life, from its first byte to its last."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress
from ..control.heartbeat import REGISTRATION_LIMIT, SILENCE_LIMIT, registration_deadline, silence_deadline
from ..control.messages import Error, Heartbeat, HeartbeatAck, Register, Registered
from ..errors import BadMessage
from ..mux import ControlChannel, Session, SessionClosed, StreamReset
from ..yamux import Allowance, SessionLimits, YamuxStream
from .admission import Refused, admit
from .registry import Registration, Registry
from .settings import ServerSettings
from .urls import public_url

logger: logging.Logger = logging.getLogger(__name__)

MAX_UNREGISTERED: Final = 1024
"""Connections that have not registered yet.  Each may take ten seconds and a few tens of KiB."""

CLIENT_LIMITS: Final = SessionLimits(accept_backlog=1, resets=Allowance(64, per_second=1))
"""A client opens one stream, the control stream: strangers cannot fill more."""

FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that the last message to a client may take."""


@attrs.frozen
class ClientAddress:
    """Where a client comes from, and which of our addresses it has reached."""

    peer: TcpAddress
    reached_host: str

    @classmethod
    def of(cls, sock: socket.socket | trio.socket.SocketType) -> "ClientAddress":
        """Ask a connected socket.  Raises `OSError` when it is not connected any more."""
        return cls(TcpAddress(*sock.getpeername()[:2]), sock.getsockname()[0])

    def __str__(self) -> str:
        return str(self.peer)


class ControlPort:
    """Serves clients, each in a task of whoever calls `serve_client`."""

    def __init__(self, settings: ServerSettings, registry: Registry, *, public_port: int) -> None:
        self._settings = settings
        self._registry = registry
        self._public_port = public_port
        self._unregistered = 0

    @property
    def is_full(self) -> bool:
        """Whether a new connection must be turned away."""
        return self._unregistered >= MAX_UNREGISTERED

    async def serve_client(self, session: Session, client: ClientAddress) -> None:
        """Register the client and keep its tunnel until the session ends, or the client breaks a rule.

        Whatever the client does ends in a line of the log, never in an exception.
        """
        channel: ControlChannel | None = None
        try:
            with self._registering():
                channel = ControlChannel(await session.accept())
                session.deliver_to(_refuse_stream)
                request = await _receive_register(channel)
            await self._serve_tunnel(session, channel, request, client)
        except Refused as refusal:
            assert channel is not None
            logger.warning("client %s: refused: %s", client, refusal)
            await _say_farewell(channel, refusal.answer)
        except trio.TooSlowError:
            logger.info("client %s: ended: it did not register within %.0f seconds", client, REGISTRATION_LIMIT)
        except trio.EndOfChannel:
            logger.info("client %s: ended: it closed its control stream", client)
        except (SessionClosed, StreamReset) as error:
            logger.info("client %s: ended: %s", client, error)

    @contextmanager
    def _registering(self) -> Iterator[None]:
        self._unregistered += 1
        try:
            with trio.fail_at(registration_deadline(trio.current_time())):
                yield
        finally:
            self._unregistered -= 1

    async def _serve_tunnel(
        self, session: Session, channel: ControlChannel, request: Register, client: ClientAddress
    ) -> None:
        name = admit(request, tokens=self._settings.tokens, taken=self._registry)
        url = public_url(
            self._settings,
            name,
            client_host=client.peer.host,
            reached_host=client.reached_host,
            public_port=self._public_port,
        )
        registration = Registration(name, session)
        self._registry.add(registration)
        try:
            await channel.send(Registered(url=url, subdomain=name))
            logger.info("client %s: opened tunnel %s at %s", client, name, url)
            await _answer_heartbeats(channel)
        finally:
            self._registry.remove(registration)


def _refuse_stream(stream: YamuxStream) -> None:
    """A client opens one stream, for control; visitors' streams are the server's to open."""
    stream.reset()


async def _receive_register(channel: ControlChannel) -> Register:
    """Return the registration.  Raises `Refused` when the first message is another one, or bad."""
    try:
        message = await channel.receive()
    except BadMessage as error:
        raise Refused(Error(str(error), code="bad_message")) from error
    if not isinstance(message, Register):
        raise Refused(Error("the first message must be a registration", code="bad_message"))
    return message


async def _say_farewell(channel: ControlChannel, answer: Error) -> None:
    with trio.move_on_after(FAREWELL_TIMEOUT), suppress(SessionClosed, StreamReset):
        await channel.send(answer)


async def _answer_heartbeats(channel: ControlChannel) -> None:
    """Keep the client company until it leaves.  Raises `Refused` when it falls silent or says something else."""
    while True:
        with trio.move_on_at(silence_deadline(trio.current_time())) as silence:
            try:
                message = await channel.receive()
            except BadMessage as error:
                raise Refused(Error(str(error), code="bad_message")) from error
            if not isinstance(message, Heartbeat):
                raise Refused(Error("a registered client sends heartbeats only", code="bad_message"))
            await channel.send(HeartbeatAck())
        if silence.cancelled_caught:
            raise Refused(Error(f"no heartbeat for {SILENCE_LIMIT:.0f} seconds", code="silent", retryable=True))
