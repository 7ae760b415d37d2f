"""What runs beside the local service."""

from .health import HealthCheck
from .opening import TunnelKind, TunnelSettings, forward, open_tunnel, open_tunnels
from .proxies import ProxyAddress, proxy_from_environment
from .tunnel import Tunnel

__all__ = [
    "HealthCheck",
    "ProxyAddress",
    "Tunnel",
    "TunnelKind",
    "TunnelSettings",
    "forward",
    "open_tunnel",
    "open_tunnels",
    "proxy_from_environment",
]
