"""What runs beside the local service."""

from .events import Connected, Lost, Refused, Retrying, TunnelEvent
from .health import HealthCheck
from .opening import TunnelKind, TunnelSettings, forward, open_tunnel, open_tunnels
from .proxies import ProxyAddress, proxy_from_environment
from .request_tap import OnExchange
from .tunnel import Tunnel

__all__ = [
    "Connected",
    "HealthCheck",
    "Lost",
    "OnExchange",
    "ProxyAddress",
    "Refused",
    "Retrying",
    "Tunnel",
    "TunnelEvent",
    "TunnelKind",
    "TunnelSettings",
    "forward",
    "open_tunnel",
    "open_tunnels",
    "proxy_from_environment",
]
