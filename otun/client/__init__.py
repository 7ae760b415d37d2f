"""What runs beside the local service."""

from .opening import TunnelKind, TunnelSettings, forward, open_tunnel, open_tunnels
from .tunnel import Tunnel

__all__ = ["Tunnel", "TunnelKind", "TunnelSettings", "forward", "open_tunnel", "open_tunnels"]
