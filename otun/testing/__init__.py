"""Helpers for testing programs that use otun."""

from .sessions import board_session_pair, session_pair
from .world import World, open_world

__all__ = ["World", "board_session_pair", "open_world", "session_pair"]
