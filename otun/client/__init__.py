"""What runs beside the local service."""

from .opening import TunnelSettings, forward, open_tunnel, open_tunnels
from .tunnel import Tunnel

__all__ = ["Tunnel", "TunnelSettings", "forward", "open_tunnel", "open_tunnels"]
