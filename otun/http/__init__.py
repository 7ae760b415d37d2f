"""HTTP/1.1 as a relay needs it, without I/O: whose request it is, the relay's own replies, what passed by."""

from . import pages
from .exchange import Exchange, ExchangeObserver
from .head import RequestHead, RequestHeadReader
from .hosts import parse_authority

__all__ = [
    "Exchange",
    "ExchangeObserver",
    "RequestHead",
    "RequestHeadReader",
    "pages",
    "parse_authority",
]
