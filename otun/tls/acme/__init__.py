"""Automatic certificates (ACME, RFC 8555)."""
