"""The control protocol: what client and server tell each other about a tunnel.  No I/O here, and no clock."""

from .messages import Error, Health, Heartbeat, HeartbeatAck, Message, Register, Registered

__all__ = ["Error", "Health", "Heartbeat", "HeartbeatAck", "Message", "Register", "Registered"]
