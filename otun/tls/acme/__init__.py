"""Automatic certificates (ACME, RFC 8555), by the package `acme`, which is imported once an `Issuer` is made."""

from .challenges import Challenges
from .issuer import Issuer
from .settings import AcmeSettings

__all__ = ["AcmeSettings", "Challenges", "Issuer"]
