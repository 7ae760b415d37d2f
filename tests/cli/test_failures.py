import logging
import signal

import pytest

from otun.cli.exit_codes import EPILOG, ExitCode, exit_code_for, exit_code_for_signal
from otun.cli.failures import report_failure
from otun.errors import (
    AddressError,
    ConfigurationError,
    InvalidName,
    InvalidRegistration,
    ListenError,
    NameTaken,
    NotAllowed,
    OtunError,
    RegistrationRefused,
    ServerUnreachable,
    TokenRefused,
)
from otun.mux.errors import SessionClosed, TunnelEnded

CODES = [
    (ConfigurationError("x"), 2),
    (AddressError("x"), 2),
    (InvalidName("x"), 2),
    (RegistrationRefused("x"), 3),
    (NotAllowed("x"), 3),
    (InvalidRegistration("x"), 3),
    (TokenRefused("x"), 6),
    (NameTaken("x"), 7),
    (TunnelEnded("x", TokenRefused("y", code="token_revoked")), 6),
    (TunnelEnded("x", RegistrationRefused("y", code="kicked")), 3),
    (TunnelEnded("x", RegistrationRefused("y", code="silent", is_retryable=True)), 4),
    (ServerUnreachable("x"), 4),
    (SessionClosed("x"), 4),
    (ListenError("x"), 1),
    (OtunError("x"), 1),
    (ValueError("x"), 1),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_each_error_has_its_exit_code_alone_and_in_groups(error: BaseException, code: int) -> None:
    assert exit_code_for(error) == code
    assert exit_code_for(BaseExceptionGroup("", [BaseExceptionGroup("", [error])])) == code


def test_different_errors_at_once_are_a_failure() -> None:
    assert exit_code_for(ExceptionGroup("", [ServerUnreachable("x"), RegistrationRefused("y")])) == 1
    assert exit_code_for(ExceptionGroup("", [ServerUnreachable("x"), SessionClosed("y")])) == 4


def test_sigterm_is_an_orderly_end_and_sigint_is_not() -> None:
    assert exit_code_for_signal(signal.SIGTERM) == 0
    assert exit_code_for_signal(signal.SIGINT) == 130


def test_every_exit_code_is_in_the_help() -> None:
    for code in ExitCode:
        assert f"\n  {code.value} " in EPILOG


def test_an_expected_error_is_one_line_though_it_comes_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [ServerUnreachable("cannot connect\nto \x1b[31mx")])])
    assert report_failure(group) == 4
    assert capsys.readouterr().err == "otun: cannot connect\\nto \\x1b[31mx\n"


def test_several_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(ExceptionGroup("", [OtunError(str(n % 3)) for n in range(2)] + [OtunError("1")]))
    assert capsys.readouterr().err == "otun: 0; 1\n"


def test_a_surprise_is_one_line_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_failure(ExceptionGroup("", [ValueError("boo")])) == 1
    assert capsys.readouterr().err == "otun: unexpected ValueError: boo; this is a mistake in otun; -v shows where\n"


def test_a_surprise_has_a_traceback_for_those_who_debug(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    report_failure(ValueError("boo"))
    report_failure(OtunError("never"))
    err = capsys.readouterr().err
    assert "Traceback" not in err.split("boo")[-1]
    assert "ValueError: boo\n" in err
    assert err.endswith("otun: unexpected ValueError: boo\notun: never\n")
