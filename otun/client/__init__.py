"""What runs beside the local service."""

from .tunnel import Tunnel, forward, open_tunnel

__all__ = ["Tunnel", "forward", "open_tunnel"]
