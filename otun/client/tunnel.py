"""A tunnel, as the program beside the local service sees it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..addresses import LocalAddress, TcpAddress, parse_local_address, parse_server_address
from ..control.messages import Register
from ..control.names import normalize_name
from ..mux import Session, SessionClosed, Stream, open_board_session, open_session
from ..switchboard import HAS_SWITCHBOARD, Switchboard, open_switchboard
from .connecting import connect, take_socket
from .forwarder import forward_on_board
from .registration import Registration, open_registration
from .request_tap import OnExchange
from .task_forwarder import forward_with_tasks

DEFAULT_CONTROL_PORT: Final = 4443


class Tunnel(trio.abc.Listener[Stream]):
    """A name on the server, and the visitors who come by it.  Made by `open_tunnel`.

    It is a `trio.abc.Listener` of visitors' streams: answer them in this program, or have them forwarded.
    """

    def __init__(self, session: Session, registration: Registration, board: Switchboard | None) -> None:
        self._session = session
        self._registration = registration
        self._board = board

    def __repr__(self) -> str:
        return f"<Tunnel {self.name} {self.url} {'closed' if self._session.is_closed else 'open'}>"

    @property
    def url(self) -> str:
        """Where visitors find the tunnel, as the server says."""
        return self._registration.url

    @property
    def name(self) -> str:
        """The tunnel's name on the server."""
        return self._registration.name

    async def accept(self) -> Stream:
        """Wait for the next visitor.  Raises `SessionClosed` when the tunnel has ended.  Cancelled, nobody is lost."""
        try:
            return await self._session.accept()
        except SessionClosed:
            error = await self._registration.end_error()
        raise error

    async def serve(self, handler: Callable[[Stream], Awaitable[object]]) -> None:
        """Call *handler* in a task for each visitor until the tunnel ends, as `otun.Session.serve` does.

        Returns when the tunnel was closed on this side, and all handlers are done; raises `SessionClosed` when the
        server ended it, however politely.  A visitor who breaks off ends its own handler only; with
        `trio.serve_listeners` it would end them all.
        """
        try:
            await self._session.serve(handler)
        except SessionClosed:
            error = await self._registration.end_error()
        else:
            if self._registration.is_left:
                return
            error = await self._registration.end_error()
        raise error

    async def aclose(self) -> None:
        """End the tunnel; what was sent to visitors before is delivered.  Cancelled, it ends at once."""
        self._registration.leave()
        await self._session.aclose()

    async def forward(self, host: str, port: int, *, on_exchange: OnExchange | None = None) -> None:
        """Relay all visitors to the service at *host* and *port* until the tunnel ends; then raise `SessionClosed`.

        When the service cannot be reached, the visitor gets an HTTP answer (502) that says so.  *on_exchange* is called
        for each HTTP request and its answer.  Cancelled, the visitors that are being relayed are cut short.
        """
        await self.forward_to(TcpAddress(host, port), on_exchange=on_exchange)

    async def forward_to(self, local: LocalAddress, *, on_exchange: OnExchange | None = None) -> None:
        """Relay as `forward` does, to a TCP address or a Unix socket."""
        if self._board is not None:
            await forward_on_board(self._session, self._board, local, on_exchange)
        else:
            await forward_with_tasks(self._session, local, on_exchange)
        raise await self._registration.end_error()


@asynccontextmanager
async def open_tunnel(
    server: str | TcpAddress, *, name: str | None = None, token: str | None = None
) -> AsyncIterator[Tunnel]:
    """Open a tunnel on *server*, `HOST` or `HOST:PORT` of its control port, until the body ends.

    Without a *name* the server chooses one.  *token* is what the server asks for.

    Raises `otun.errors.ServerUnreachable`, `RegistrationRefused`, `InvalidName` or `AddressError`; the body's
    exceptions come out as they are.  A tunnel that is lost does not interrupt the body: `accept` and `forward` raise
    `SessionClosed`.
    """
    if isinstance(server, str):
        server = parse_server_address(server, default_port=DEFAULT_CONTROL_PORT)
    request = Register(subdomain=None if name is None else normalize_name(name), token=token)
    async with (
        _open_connection(await connect(server)) as (session, board),
        open_registration(session, server, request) as registration,
    ):
        yield Tunnel(session, registration, board)


@asynccontextmanager
async def _open_connection(transport: trio.SocketStream) -> AsyncIterator[tuple[Session, Switchboard | None]]:
    """Run a session on a switchboard, where there is one."""
    if HAS_SWITCHBOARD:
        sock = take_socket(transport)
        async with open_switchboard() as board, open_board_session(board, sock, "client") as session:
            yield session, board
    else:
        async with open_session(transport, "client") as session:
            yield session, None


async def forward(
    server: str | TcpAddress,
    local: str | int | LocalAddress,
    *,
    name: str | None = None,
    token: str | None = None,
    on_exchange: OnExchange | None = None,
    task_status: trio.TaskStatus[Tunnel] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do a client's whole job: open a tunnel, and relay its visitors to *local* until it ends.

    *local* is a port, `HOST:PORT` or `unix:PATH`.  `nursery.start` gives the `Tunnel` once it is open.  Raises what
    `open_tunnel` and `Tunnel.forward` raise: it returns by an exception only.
    """
    if not isinstance(local, LocalAddress):
        local = parse_local_address(str(local))
    async with open_tunnel(server, name=name, token=token) as tunnel:
        task_status.started(tunnel)
        await tunnel.forward_to(local, on_exchange=on_exchange)
