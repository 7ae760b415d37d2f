"""Users and passwords for tests: hashed with as little work as argon2id allows."""

import base64

from argon2 import PasswordHasher

_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def cheap_login(user: str, password: str) -> str:
    """`USER:HASH`, as a client sends it."""
    return f"{user}:{_HASHER.hash(password)}"


def authorization(user: str, password: str, scheme: str = "Basic") -> str:
    """The field that a browser sends."""
    return f"Authorization: {scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
