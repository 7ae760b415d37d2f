"""A patch's bytes as HTTP exchanges, for a request log."""

import logging
from collections.abc import Callable
from typing import TypeAlias

from ..http.exchange import Exchange, ExchangeObserver

logger: logging.Logger = logging.getLogger(__name__)

OnExchange: TypeAlias = Callable[[Exchange], None]


class RequestTap:
    """Tells *on_exchange* of each request and its answer.  A failure of its is logged and goes no further."""

    __slots__ = ("_observer", "_on_exchange")

    def __init__(self, on_exchange: OnExchange) -> None:
        self._on_exchange = on_exchange
        self._observer = ExchangeObserver(self._report)

    def _report(self, exchange: Exchange) -> None:
        try:
            self._on_exchange(exchange)
        except Exception:
            logger.exception("the request log failed")

    def to_socket(self, data: memoryview, now: float) -> None:
        """What a visitor sends is the request."""
        self._observer.request_bytes(data, now)

    def from_socket(self, data: bytes, now: float) -> None:
        """What the local service sends is the response."""
        self._observer.response_bytes(data, now)

    def failed(self, problem: str) -> None:
        """The local service has failed."""
        self._observer.failed(problem)

    def ended(self, now: float) -> None:
        """The connection has ended."""
        self._observer.ended(now)
