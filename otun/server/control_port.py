"""The control port: one client's life, from its first byte to its last."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress
from ..control.excerpt import excerpt
from ..control.heartbeat import REGISTRATION_LIMIT, SILENCE_LIMIT, registration_deadline, silence_deadline
from ..control.messages import Error, Heartbeat, HeartbeatAck, Message, Register, Registered
from ..errors import BadMessage
from ..mux import ControlChannel, Session, SessionClosed, StreamReset
from ..yamux import Allowance, SessionLimits, YamuxStream
from .admission import MAX_TUNNELS, Refused, admit_host, check_id, check_token, chosen_name, refuse, visitor_rules
from .automatic_certificates import AutomaticCertificates
from .given_names import GivenNames
from .registry import EVERY_PATH, Registration, Registry
from .settings import ServerSettings
from .tcp_port import TcpPorts
from .urls import PublicPorts, public_url

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
    def of(cls, sock: socket.socket) -> "ClientAddress":
        """Ask a connected socket.  Raises `OSError` when it is not connected any more."""
        return cls(TcpAddress(*sock.getpeername()[:2]), sock.getsockname()[0])

    def __str__(self) -> str:
        return str(self.peer)


class ControlPort:
    """Serves clients, each in a task of whoever calls `serve_client`."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: Registry,
        tcp_ports: TcpPorts,
        *,
        ports: PublicPorts,
        certificates: AutomaticCertificates | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._tcp_ports = tcp_ports
        self._ports = ports
        self._certificates = certificates
        self._given_names = GivenNames(settings.state)
        self.unregistered: int = 0

    async def serve_client(self, session: Session, client: ClientAddress, *, is_acceptable: bool = True) -> None:
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
            await self._serve_tunnels(session, channel, request, client)
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
        self.unregistered += 1
        try:
            with trio.fail_at(registration_deadline(trio.current_time())):
                yield
        finally:
            self.unregistered -= 1

    async def _serve_tunnels(
        self, session: Session, channel: ControlChannel, request: Register, client: ClientAddress
    ) -> None:
        """Open the client's tunnels, and keep it company until it leaves.

        Raises `Refused` when the first tunnel is refused, or when the client falls silent or breaks a rule.
        """
        with ExitStack() as tunnels:
            ids = {request.id}
            await channel.send(self._open_tunnel(session, request, client, tunnels))
            while True:
                # A client that does not take its answers is as good as silent.
                with trio.move_on_at(silence_deadline(trio.current_time())) as silence:
                    message = await _receive(channel)
                    await channel.send(self._answer(session, message, client, tunnels, ids))
                if silence.cancelled_caught:
                    raise refuse(f"no heartbeat for {SILENCE_LIMIT:.0f} seconds", "silent", retryable=True)

    def _answer(
        self, session: Session, message: Message, client: ClientAddress, tunnels: ExitStack, ids: set[str]
    ) -> Message:
        """Return the answer to what a registered client says; *ids* are those of its tunnels.  Raises `Refused`."""
        if isinstance(message, Heartbeat):
            return HeartbeatAck()
        if not isinstance(message, Register) or not message.id or message.id in ids:
            raise refuse("a registered client sends heartbeats, and further tunnels with new ids", "bad_message")
        try:
            if len(ids) >= MAX_TUNNELS:
                raise refuse(f"a client has at most {MAX_TUNNELS} tunnels here", "too_many_tunnels")
            answer = self._open_tunnel(session, message, client, tunnels)
        except Refused as refusal:
            logger.warning("client %s: a further tunnel was refused: %s", client, refusal)
            return attrs.evolve(refusal.answer, id=message.id)
        ids.add(message.id)
        return answer

    def _open_tunnel(
        self, session: Session, request: Register, client: ClientAddress, tunnels: ExitStack
    ) -> Registered:
        """Open a tunnel until *tunnels* is closed, and return the answer.  Raises `Refused`."""
        check_token(request, self._settings.tokens)
        check_id(request)
        match request.kind:
            case "http":
                registration, url = self._open_http(session, request, client, tunnels)
            case "tls":
                registration, url = self._open_tls(session, request, client, tunnels)
            case "tcp":
                registration, url = self._open_tcp(session, request, client, tunnels)
            case kind:
                raise refuse(f"this server has no tunnels of the kind {excerpt(kind)}", "kind_unknown")
        logger.info("client %s: opened tunnel %s at %s", client, registration.name, url)
        return Registered(
            url,
            registration.name,
            id=request.id,
            stream_header=request.stream_header,
            protections=registration.rules.names if registration.rules is not None else (),
        )

    def _open_http(
        self, session: Session, request: Register, client: ClientAddress, tunnels: ExitStack
    ) -> tuple[Registration, str]:
        registration = self._register(session, request, client, tunnels)
        host = _own_host(registration)
        url = public_url(
            self._settings,
            registration.name,
            host=host,
            client_host=client.peer.host,
            reached_host=client.reached_host,
            ports=self._ports,
        )
        return registration, url + ("" if registration.path == EVERY_PATH else registration.path.decode())

    def _register(self, session: Session, request: Register, client: ClientAddress, tunnels: ExitStack) -> Registration:
        who = request.token if self._settings.tokens else client.peer.host
        identity = f"{who}\n{request.kind}\n{request.local}\n{request.id}"
        free_name = partial(self._given_names.choose, identity, self._registry)
        registration = admit_host(request, session, self._settings, self._registry, free_name)
        self._registry.add(registration)
        tunnels.callback(self._registry.remove, registration)
        if self._certificates is not None and not registration.is_passthrough:
            hosts = self._registry.hosts_of(registration)
            self._certificates.tunnel_opened(hosts, who or "")
            tunnels.callback(self._certificates.tunnel_closed, hosts)
        return registration

    def _open_tls(
        self, session: Session, request: Register, client: ClientAddress, tunnels: ExitStack
    ) -> tuple[Registration, str]:
        if self._ports.https is None:
            raise refuse(
                "this server has no port for TLS tunnels; its operator can give it one with --https", "kind_unknown"
            )
        registration = self._register(session, request, client, tunnels)
        host = _own_host(registration) or self._registry.host_of(registration.name)
        return registration, f"tls://{TcpAddress(host, self._ports.https)}"

    def _open_tcp(
        self, session: Session, request: Register, client: ClientAddress, tunnels: ExitStack
    ) -> tuple[Registration, str]:
        name = chosen_name(request)
        registration = Registration(
            name or "tcp",
            session,
            tunnel_id=request.id,
            local=request.local,
            has_stream_header=request.stream_header,
            rules=visitor_rules(request),
        )
        tunnel = self._tcp_ports.open(registration, request.remote_port)
        tunnels.callback(tunnel.close)
        registration.name = name or f"tcp-{tunnel.port}"
        return registration, f"tcp://{TcpAddress(self._settings.domain or client.reached_host, tunnel.port)}"


def _own_host(registration: Registration) -> str | None:
    """Return the first whole host name that the tunnel has beside its name."""
    return next((host for host in registration.hosts if not host.startswith("*.")), None)


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
    """Return the client's next message.  Raises `Refused` when it says what nobody understands."""
    try:
        return await channel.receive()
    except BadMessage as error:
        raise refuse(str(error), "bad_message") from error
