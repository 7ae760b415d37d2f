"""The settings that are in force, and how others take their place while the server runs."""

import logging
from typing import Final

import attrs

from ..errors import ConfigurationError
from .encryption import Encryption
from .hub import Hub
from .knowledge import Knowledge
from .settings import ServerSettings

logger: logging.Logger = logging.getLogger(__name__)

FIXED: Final = ("control", "public", "https", "domain", "state", "acme")
"""The settings that stay for as long as the server runs."""


class Configuration:
    """Knows the *settings*, and tells the parts of the server when they change."""

    def __init__(self, settings: ServerSettings, encryption: Encryption, knowledge: Knowledge, hub: Hub) -> None:
        self.settings: ServerSettings = settings
        self._encryption = encryption
        self._knowledge = knowledge
        self._hub = hub

    async def change(self, wanted: ServerSettings) -> None:
        """Put what is *wanted* into force, except for what is `FIXED`, which the log names.

        Raises `ConfigurationError`, also once the server drains, and `DatabaseError`; nothing has changed then.
        """
        self._check_going_on()
        before = self.settings
        settings = attrs.evolve(
            wanted,
            control=before.control,
            public=before.public,
            https=before.https,
            domain=before.domain,
            state=before.state,
            acme=before.acme,
        )
        apply_certificates = await self._encryption.prepare(settings)
        await self._knowledge.prepare(settings)
        self._check_going_on()  # By now.
        # All that can fail has been done.
        apply_certificates()
        self._knowledge.apply(settings)
        self._hub.apply(settings)
        self.settings = settings
        kept = [name for name in FIXED if getattr(wanted, name) != getattr(before, name)]
        if kept:
            logger.warning("a change of %s needs a restart: the old one stays", ", ".join(kept))

    def _check_going_on(self) -> None:
        if self._hub.is_draining:
            raise ConfigurationError("the server is about to end")
