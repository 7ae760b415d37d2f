"""A client's registration with the server: made, added to, kept alive, and ended with a reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..control.heartbeat import HEARTBEAT_INTERVAL
from ..control.messages import PROTECTIONS, Error, Health, Heartbeat, HeartbeatAck, Register, Registered
from ..control.refusals import refusal_of
from ..errors import BadMessage, RegistrationRefused, ServerUnreachable, TunnelUnprotected
from ..mux import ControlChannel, Session, SessionClosed, StreamReset, TunnelEnded
from ..switchboard import TlsAlert

REGISTRATION_TIMEOUT: Final = 10.0
"""Seconds in which the server must answer a registration."""


@attrs.define(eq=False)
class _Request:
    """A further tunnel that has been asked for."""

    has_answer: trio.Event = attrs.field(factory=trio.Event)
    answer: Registered | Error | None = None


class Registration:
    """What the server has granted.  Made by `open_registration`."""

    def __init__(self, channel: ControlChannel, session: Session, server: TcpAddress, granted: Registered) -> None:
        self.first: Registered = granted
        self.server: TcpAddress = server
        self._channel = channel
        self._session = session
        self._requests: dict[str, _Request] = {}  # Those without an answer, by id.
        self._is_left = False
        self._farewell: str | None = None
        self._refusal: RegistrationRefused | None = None  # The farewell, if it has a code.
        self._has_ended = trio.Event()
        self._healths: dict[str, Health] = {}  # What the server is to be told, by the tunnels' ids.
        self._has_news = trio.Event()

    async def add(self, request: Register) -> Registered:
        """Ask for a further tunnel, with an id of its own.

        Raises `RegistrationRefused`, `TunnelUnprotected`, `ServerUnreachable` when there is no answer in time, and
        `SessionClosed`.
        """
        if not self.first.stream_header:
            raise RegistrationRefused(f"the server at {self.server} takes one tunnel for each client, no more")
        pending = self._requests[request.id] = _Request()
        try:
            await self._channel.send(request)
            with trio.move_on_after(REGISTRATION_TIMEOUT):
                await pending.has_answer.wait()
        except StreamReset:
            raise await self.end_error() from None
        finally:
            del self._requests[request.id]
        match pending.answer:
            case Registered() as granted:
                _check_protections(request, granted)
                return granted
            case Error() as refused:
                raise refusal_of(refused)
        if self._session.is_closed:
            raise await self.end_error()
        raise _no_answer(self.server)

    async def end_error(self) -> SessionClosed:
        """Return why the tunnels have ended, in the server's words if it said any: with a code, as a `TunnelEnded`.

        The session must have ended.
        """
        await self.wait_ended()
        if self._farewell is not None:
            text = f"the server at {self.server} ended the tunnel: {self._farewell}"
            return SessionClosed(text) if self._refusal is None else TunnelEnded(text, self._refusal)
        error = self._session.end_error()
        if self._is_left:
            return error
        reason = "it closed the connection" if error.is_clean else error
        lost = SessionClosed(f"lost the server at {self.server}: {reason}", is_clean=error.is_clean, code=error.code)
        lost.__cause__ = error
        return lost

    async def wait_ended(self) -> None:
        """Wait until the server will say no more."""
        await self._has_ended.wait()

    def leave(self) -> None:
        """Take note that we end the tunnels, if they have not ended already: then the server is not lost."""
        self._is_left = self._is_left or not self._session.is_closed

    def report_health(self, tunnel_id: str, is_healthy: bool) -> None:
        """Have the server told soon how the local service of a tunnel is."""
        self._healths[tunnel_id] = Health(is_healthy, id=tunnel_id)
        self._has_news.set()

    async def send_heartbeats(self) -> None:
        """Tell the server now and then that we are there, and what is new, until the session ends."""
        try:
            while True:
                with trio.move_on_after(HEARTBEAT_INTERVAL):
                    await self._has_news.wait()
                self._has_news = trio.Event()
                news, self._healths = self._healths, {}
                for message in news.values() or (Heartbeat(),):
                    await self._channel.send(message)
        except (SessionClosed, StreamReset) as error:
            self._session.fail(f"the control stream was lost: {error}")

    async def receive_answers(self) -> None:
        """Read what the server says until it says that the tunnels have ended, or says no more."""
        try:
            while True:
                answer = await self._channel.receive()
                if isinstance(answer, HeartbeatAck):
                    continue
                if isinstance(answer, Registered | Error) and answer.id in self._requests:
                    request = self._requests[answer.id]
                    request.answer = answer
                    request.has_answer.set()
                    continue
                break
            if isinstance(answer, Error):
                self._farewell = answer.message
                self._refusal = refusal_of(answer) if answer.code else None
            else:
                self._farewell = "it sent an unexpected message"
        except (StreamReset, BadMessage) as error:
            self._farewell = str(error)
        except trio.EndOfChannel:
            self._farewell = "it closed the control stream"
        except SessionClosed:
            pass  # The session knows why.
        finally:
            self._has_ended.set()
            for request in self._requests.values():
                request.has_answer.set()
        self._session.fail(f"the server ended the tunnel: {self._farewell}")


@asynccontextmanager
async def open_registration(session: Session, server: TcpAddress, request: Register) -> AsyncIterator[Registration]:
    """Register with the server at the other end of *session*, and stay registered until the body ends.

    Raises `ServerUnreachable` when the other end does not answer as a server does, `RegistrationRefused`, and
    `TunnelUnprotected`.  When the server ends the registration later, the session fails.
    """
    channel, granted = await _register(session, server, request)
    _check_protections(request, granted)
    registration = Registration(channel, session, server, granted)
    async with open_background() as background:
        background.start_soon(registration.send_heartbeats)
        background.start_soon(registration.receive_answers)
        try:
            yield registration
        finally:
            registration.leave()


async def _register(session: Session, server: TcpAddress, request: Register) -> tuple[ControlChannel, Registered]:
    try:
        with trio.fail_after(REGISTRATION_TIMEOUT):
            channel = ControlChannel(await session.open_stream())
            await channel.send(request)
            answer = await channel.receive()
    except trio.TooSlowError:
        raise _no_answer(server) from None
    except SessionClosed as error:
        if isinstance(error.__cause__, TlsAlert):  # TLS 1.3: only now it shows that it wants another certificate of us.
            problem = f"ended the connection: {error.__cause__.strerror} (see --client-cert)"
        else:
            problem = f"did not answer as an otun server does: {error}"
    except (StreamReset, BadMessage) as error:
        problem = f"did not answer as an otun server does: {error}"
    except trio.EndOfChannel:
        problem = "closed the control stream without an answer"
    else:
        match answer:
            case Registered():
                return channel, answer
            case Error() as refused:
                raise refusal_of(refused)
            case _:
                problem = "answered the registration with something else"
    raise ServerUnreachable(f"the server at {server} {problem}")


def _check_protections(request: Register, granted: Registered) -> None:
    """Raise `TunnelUnprotected` unless the server has confirmed every rule about visitors that was asked for."""
    asked = [name for name in PROTECTIONS if attrs.asdict(request)[name]]
    missing = [name.replace("_", "-") for name in asked if name not in granted.protections]
    if missing:
        raise TunnelUnprotected(
            f"the server has opened the tunnel without {', '.join(missing)}: it does not know of that. The tunnel was "
            "closed before anybody could visit"
        )


def _no_answer(server: TcpAddress) -> ServerUnreachable:
    return ServerUnreachable(f"the server at {server} did not answer within {REGISTRATION_TIMEOUT:.0f} seconds")
