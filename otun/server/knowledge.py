"""What a server knows of those who come: kept in its database, if it has one, which commands change, too."""

from functools import partial

import trio

from ..errors import ConfigurationError
from ..switchboard import Switchboard
from .authentication import Authenticator, read_identity_key
from .bans import Bans, expel
from .clients import Clients
from .database import Database
from .first_token import ensure_token, read_first_token
from .reservations import Reservations
from .settings import ServerSettings
from .traffic import Traffic


class Knowledge:
    """Tokens, reservations, bans and usage.  Call `load` before anybody is let in.

    If only this machine can reach the ports for clients, the server *is_private*, and they need no token as long as
    there is none.
    """

    def __init__(
        self, settings: ServerSettings, database: Database | None, board: Switchboard, *, is_private: bool
    ) -> None:
        self.database: Database | None = database
        self._settings = settings
        self._board = board
        self._is_private = is_private
        self.authenticator = Authenticator(
            settings.tokens,
            database,
            key=read_identity_key(settings.state),
            is_open=settings.open,
            is_private=is_private,
        )
        self.reservations = Reservations(database, lifetime=settings.reservation)
        self.bans = Bans(database)
        self.traffic = Traffic(board, database, settings.tunnel_quota)

    async def load(self) -> None:
        """Read what there is; there is a token then, unless nobody needs one.

        Raises `DatabaseError`, and `ConfigurationError` where there is no place to keep a token.
        """
        await self.prepare(self._settings)
        await self.authenticator.load()
        await self.reservations.load()
        await self.bans.load()
        await self.traffic.load()

    async def prepare(self, settings: ServerSettings) -> None:
        """See that there is a token with *settings*, unless nobody needs one then.

        Raises `DatabaseError`, and `ConfigurationError` where there is no place to keep one.
        """
        if settings.open or self._is_private or settings.tokens:
            return
        if self.database is None or settings.state is None:
            raise ConfigurationError(
                "everybody could open tunnels on this server: it needs tokens, or a state folder (--state) to keep one "
                "in; --open lets everybody in"
            )
        await ensure_token(self.database, settings.state)

    def apply(self, settings: ServerSettings) -> None:
        """Put *settings* into force."""
        self._settings = settings
        self.authenticator.change(settings.tokens, is_open=settings.open)
        self.reservations.change_lifetime(settings.reservation)
        self.traffic.change_tunnel_quota(settings.tunnel_quota)

    @property
    def first_token(self) -> str | None:
        """The token that the server has made, as long as it is good and in the state folder."""
        state = self._settings.state
        token = read_first_token(state) if state is not None else None
        return token if token is not None and self.authenticator.knows(token) else None

    def keep_fresh(self, clients: Clients, tasks: trio.Nursery) -> None:
        """Keep up with the database and with *clients*, in *tasks* until they are cancelled."""
        tasks.start_soon(self.authenticator.keep_fresh, clients.end_revoked, self.traffic.limits_changed)
        tasks.start_soon(self.reservations.keep_fresh, clients.names_in_use)
        self.bans.tell(partial(expel, clients, self._board))
        tasks.start_soon(self.bans.keep_fresh)
        tasks.start_soon(self.traffic.keep_fresh, clients.registrations)
