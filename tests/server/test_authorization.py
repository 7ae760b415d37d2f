"""What a token is for, and the refusal of everything else."""

from typing import cast

import pytest

from otun.access import ANONYMOUS, Grants, Identity
from otun.mux import Session
from otun.server.admission import Refused
from otun.server.authorization import authorize_another, authorize_hosts, authorize_port, fit_name
from otun.server.registry import Registration

DOMAIN = "tunnel.example"


def who(may: str, **fields: object) -> Identity:
    return Identity(name="ci", grants=Grants.parse(may), **fields)


def tunnel(name: str, *hosts: str, kind: str = "http") -> Registration:
    return Registration(name, cast("Session", None), hosts=hosts, is_passthrough=kind == "tls")


def code_of(caught: pytest.ExceptionInfo[Refused]) -> tuple[str, bool]:
    return caught.value.answer.code, caught.value.answer.retryable


@pytest.mark.parametrize(
    ("may", "registration"),
    [
        ("http:app", tunnel("app")),
        ("http:app-*", tunnel("app-1", "app-1.tunnel.example", "*.app-1.tunnel.example", "a.b.app-1.tunnel.example")),
        ("tls:app", tunnel("app", kind="tls")),
        ("http:app,host:*.example.org", tunnel("app", "shop.example.org", "*.shop.example.org", "*.example.org")),
        ("tls:app,host:shop.example.org", tunnel("app", "shop.example.org", kind="tls")),
    ],
)
def test_what_is_granted_is_allowed(may: str, registration: Registration) -> None:
    authorize_hosts(who(may), registration, DOMAIN)


@pytest.mark.parametrize(
    ("may", "registration", "code", "what"),
    [
        ("http:app", tunnel("app1"), "name_not_allowed", "the name 'app1'"),
        ("tls:app", tunnel("app"), "name_not_allowed", "the name 'app'"),
        ("http:*", tunnel("app", kind="tls"), "name_not_allowed", "the name 'app'"),
        ("tcp:*,host:*", tunnel("app"), "name_not_allowed", "the name 'app'"),
        ("http:*", tunnel("app", "shop.example.org"), "hostname_not_allowed", "the hostname 'shop.example.org'"),
        ("http:*,host:a.b", tunnel("app", "a.b", "*.a.b"), "hostname_not_allowed", "the hostname '*.a.b'"),
        ("http:app", tunnel("app", "xapp.tunnel.example"), "hostname_not_allowed", "'xapp.tunnel.example'"),
        ("http:app", tunnel("app", "tunnel.example"), "hostname_not_allowed", "'tunnel.example'"),
        ("http:app", tunnel("app", "*.tunnel.example"), "hostname_not_allowed", "'*.tunnel.example'"),
    ],
)
def test_what_is_not_granted_is_refused_with_what_is(
    may: str, registration: Registration, code: str, what: str
) -> None:
    with pytest.raises(Refused) as caught:
        authorize_hosts(who(may), registration, DOMAIN)
    assert code_of(caught) == (code, False)
    assert what in str(caught.value)
    assert str(caught.value).endswith(f"; it may: {Grants.parse(may)}")


def test_everybody_may_everything_on_an_open_server() -> None:
    authorize_hosts(ANONYMOUS, tunnel("app", "shop.example.org"), DOMAIN)
    authorize_another(ANONYMOUS, 10**6)
    assert authorize_port(ANONYMOUS, None, [range(1, 9)]) == (range(1, 9),)


def test_a_long_list_of_grants_is_cut_off() -> None:
    with pytest.raises(Refused) as caught:
        authorize_hosts(who(",".join(f"http:name-{number}" for number in range(60))), tunnel("app"), DOMAIN)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("...")


def test_a_client_that_chose_no_name_gets_one_that_it_may_have() -> None:
    assert fit_name(who("http:app-*"), "http", "x7k2") == "app-x7k2"
    with pytest.raises(Refused, match="this token may not open http tunnels; it may: tls:app") as caught:
        fit_name(who("tls:app"), "http", "x7k2")
    assert code_of(caught) == ("name_not_allowed", False)


OFFERED = [range(20_000, 20_011), range(30_000, 30_001)]


@pytest.mark.parametrize(
    ("may", "wanted", "ports"),
    [
        ("tcp:20005-20020", None, (range(20_005, 20_011),)),
        ("tcp:20005-20020", 20_005, (range(20_005, 20_011),)),
        ("tcp:*", 30_000, tuple(OFFERED)),
        ("tcp:20000,tcp:30000", None, (range(20_000, 20_001), range(30_000, 30_001))),
    ],
)
def test_ports_are_those_that_both_have(may: str, wanted: int | None, ports: tuple[range, ...]) -> None:
    assert authorize_port(who(may), wanted, OFFERED) == ports


@pytest.mark.parametrize(
    ("may", "wanted"),
    [("tcp:20005", 20_004), ("tcp:20005", 30_000), ("http:*", 20_000), ("http:*", None), ("tcp:20011-29999", None)],
)
def test_other_ports_are_refused(may: str, wanted: int | None) -> None:
    with pytest.raises(Refused, match=f"; it may: {Grants.parse(may)}".replace("*", r"\*")) as caught:
        authorize_port(who(may), wanted, OFFERED)
    assert code_of(caught) == ("port_not_allowed", False)


def test_a_server_without_ports_says_so_itself() -> None:
    assert authorize_port(who("http:*"), None, []) == ()


def test_one_tunnel_more_than_there_may_be_is_refused_for_now() -> None:
    identity = who("http:*", max_tunnels=2)
    authorize_another(identity, 1)
    for count in (2, 3):
        with pytest.raises(Refused, match="this token may have 2 tunnels at a time") as caught:
            authorize_another(identity, count)
        assert code_of(caught) == ("too_many_tunnels", True)
    with pytest.raises(Refused, match="1 tunnel at"):
        authorize_another(who("http:*", max_tunnels=1), 1)
