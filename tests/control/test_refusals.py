"""The codes of refusals, and the exceptions that they stand for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import otun.server
from otun.control.messages import Error
from otun.control.refusals import REFUSALS, refusal_of
from otun.errors import InvalidRegistration, NameTaken, NotAllowed, RegistrationRefused, TokenRefused

FAREWELLS = {"silent", "taken_over", "kicked", "worn_out"}
"""Why a session ends: these say nothing of what was asked for."""


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_token", TokenRefused),
        ("expired_token", TokenRefused),
        ("token_revoked", TokenRefused),
        ("name_taken", NameTaken),
        ("port_taken", NameTaken),
        ("no_port_free", NameTaken),
        ("name_not_allowed", NotAllowed),
        ("hostname_not_allowed", NotAllowed),
        ("port_not_allowed", NotAllowed),
        ("kind_unknown", NotAllowed),
        ("too_many_tunnels", NotAllowed),
        ("tls_required", NotAllowed),
        ("banned", NotAllowed),
        ("name_invalid", InvalidRegistration),
        ("hostname_invalid", InvalidRegistration),
        ("path_invalid", InvalidRegistration),
        ("header_invalid", InvalidRegistration),
        ("protection_invalid", InvalidRegistration),
        ("id_invalid", InvalidRegistration),
        ("bad_message", InvalidRegistration),
        ("silent", RegistrationRefused),
        ("taken_over", RegistrationRefused),
        ("kicked", RegistrationRefused),
        ("worn_out", RegistrationRefused),
        ("from_the_future", RegistrationRefused),
        ("BAD_TOKEN", RegistrationRefused),
        ("", RegistrationRefused),
    ],
)
@pytest.mark.parametrize("is_retryable", [True, False])
def test_each_code_has_its_class(code: str, kind: type, is_retryable: bool) -> None:
    refusal = refusal_of(Error("no", code=code, retryable=is_retryable))
    assert type(refusal) is kind
    assert (str(refusal), refusal.code, refusal.is_retryable) == ("no", code, is_retryable)


def test_the_client_knows_each_code_that_the_server_uses() -> None:
    used = {code for path in Path(*otun.server.__path__).glob("*.py") for code in codes_in(path)}
    assert {"bad_token", "token_revoked", "silent"} <= used
    assert used - FAREWELLS <= REFUSALS.keys()


def codes_in(path: Path) -> Iterator[str]:
    """The codes that stand in a module: in calls of `refuse`, and where an `Error` is made."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(ast.Name("refuse"), [_, ast.Constant(code)]):
                yield code
            case ast.Call(ast.Name("Error"), keywords=[*_, ast.keyword("code", ast.Constant(code))]):
                yield code
