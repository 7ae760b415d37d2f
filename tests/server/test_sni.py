"""Which certificate a visitor is shown, and which tunnel its requests reach."""

import ssl

import pytest

from ..tls.hello_wire import hello, sni
from ..tls.issuing import Authority, in_days
from .certificates import DOMAIN, connect_tls, names_shown
from .conversation import Conversation, tenant
from .edges import NAME, Edge, StartEdge
from .services import receive_all
from .visitors import connect


async def shown(edge: Edge, name: str | None) -> set[str]:
    """The names in the certificate that the server shows to who asks for *name*."""
    return await names_shown(edge.https, edge.context, name)


async def test_each_name_has_its_own_certificate(start_edge: StartEdge, authority: Authority) -> None:
    edge = await start_edge(
        certificates=(
            authority.certify("first.example", into="first"),
            authority.certify("second.example", "third.example", into="second"),
            authority.certify(f"*.{DOMAIN}", into="wildcard"),
            authority.certify(f"special.{DOMAIN}", into="special"),
        )
    )
    assert await shown(edge, "first.example") == {"first.example"}
    for name in ("second.example", "third.example"):
        assert await shown(edge, name) == {"second.example", "third.example"}
    assert await shown(edge, NAME) == {f"*.{DOMAIN}"}
    assert await shown(edge, f"special.{DOMAIN}") == {f"special.{DOMAIN}"}


@pytest.mark.parametrize(
    "name", [None, "unknown.example", DOMAIN, f"a.b.{DOMAIN}", f"x{DOMAIN}", "127.0.0.1", "localhost"]
)
async def test_whoever_asks_for_nothing_known_is_shown_the_first(
    start_edge: StartEdge, authority: Authority, name: str | None
) -> None:
    """A wildcard stands for one label, and not for none."""
    edge = await start_edge(
        certificates=(
            authority.certify("first.example", into="first"),
            authority.certify(f"*.{DOMAIN}", into="wildcard"),
        )
    )
    assert await shown(edge, name) == {"first.example"}


@pytest.mark.parametrize("name", [NAME.upper(), "aPP.Tunnel.Test", f"{NAME}.", f"APP.{DOMAIN}."])
async def test_a_name_counts_however_it_is_spelt(start_edge: StartEdge, authority: Authority, name: str) -> None:
    edge = await start_edge(
        certificates=(authority.certify("first.example", into="first"), authority.certify(NAME, into="app"))
    )
    assert await shown(edge, name) == {NAME}


async def test_of_two_certificates_for_a_name_the_one_that_lasts_longer_is_shown(
    start_edge: StartEdge, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = (
        authority.certify(NAME, "expired.example", into="expired", ends=in_days(-1)),
        authority.certify(NAME, "long.example", into="long", ends=in_days(60)),
        authority.certify(NAME, "short.example", into="short", ends=in_days(30)),
    )
    edge = await start_edge(certificates=certificates)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "expired" in warning.getMessage()
    assert str(certificates[0].certificate) in warning.getMessage()
    assert await shown(edge, NAME) == {NAME, "long.example"}


async def test_each_request_is_for_its_own_host_whatever_name_was_asked_for(edge: Edge) -> None:
    async with tenant(edge.control, "app"), tenant(edge.control, "other"), edge.visiting(NAME) as visitor:
        talk = Conversation(visitor)
        for name in ("other", "app", "other"):
            assert (await talk.ask("/", host=f"{name}.{DOMAIN}:{edge.https.port}")).text.startswith(f"{name} 1")
        assert (await talk.ask("/", host="unknown.example")).status == 404


@pytest.mark.parametrize("name", [None, f"none.{DOMAIN}"])
async def test_a_tunnel_is_reached_without_its_name_in_the_handshake(edge: Edge, name: str | None) -> None:
    context = edge.authority.client_context(is_checking=False)
    async with tenant(edge.control, "app"), await connect_tls(edge.https, context, name) as visitor:
        assert (await Conversation(visitor).ask("/", host=NAME)).text == "app 1 /"


@pytest.mark.parametrize("name", [b"*.tunnel.test", b"a..b", b"a b", b"a" * 256, b"app.tunnel.test\0.example", b"a/b"])
async def test_what_is_no_host_name_is_refused(edge: Edge, name: bytes) -> None:
    async with await connect(edge.https) as visitor:
        await visitor.send_all(hello(sni(name)))
        assert await receive_all(visitor) == bytes([21, 3, 1, 0, 2, 2, 112])
    assert "server name" in await edge.see_report()
    await edge.see_nobody()


# What TLS offers


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_ciphers_have_forward_secrecy_and_authenticate(edge: Edge, version: ssl.TLSVersion) -> None:
    context = edge.context
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with tenant(edge.control, "app"), await connect_tls(edge.https, context) as visitor:
        cipher = visitor.tls.cipher()
        assert cipher is not None
        assert cipher[0].startswith("TLS_" if version is ssl.TLSVersion.TLSv1_3 else "ECDHE-")
        assert any(mode in cipher[0] for mode in ("GCM", "POLY1305"))
        assert visitor.tls.compression() is None
        assert (await Conversation(visitor).ask("/", host=NAME)).status == 200


@pytest.mark.parametrize(
    "ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "DHE+AESGCM"]
)
async def test_weak_ciphers_are_no_common_ground(edge: Edge, ciphers: str) -> None:
    context = edge.context
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        await connect_tls(edge.https, context)
    assert await edge.see_report() == "no TLS connection: no common cipher"
    await edge.see_nobody()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_not_spoken(edge: Edge, version: ssl.TLSVersion) -> None:
    context = edge.context
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await connect_tls(edge.https, context)
    assert await edge.see_report() == "no TLS connection: no common version of TLS"
    await edge.see_nobody()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([], None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["h2"], None), (["acme-tls/1"], None)],
)
async def test_http_1_1_is_what_is_spoken(edge: Edge, offered: list[str], chosen: str | None) -> None:
    context = edge.context
    if offered:
        context.set_alpn_protocols(offered)
    async with tenant(edge.control, "app"), await connect_tls(edge.https, context) as visitor:
        assert visitor.tls.selected_alpn_protocol() == chosen
        assert (await Conversation(visitor).ask("/", host=NAME)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_can_be_resumed_by_its_ticket(edge: Edge, version: ssl.TLSVersion) -> None:
    context = edge.context
    context.minimum_version = context.maximum_version = version
    session = None
    async with tenant(edge.control, "app"):
        for is_further in (False, True, True):
            async with await connect_tls(edge.https, context, session=session) as visitor:
                assert visitor.tls.session_reused is is_further
                assert (await Conversation(visitor).ask("/", host=NAME)).status == 200
                session = visitor.tls.session
                assert session is not None
                assert session.has_ticket


async def test_a_ticket_for_one_name_is_worth_nothing_under_another(
    start_edge: StartEdge, authority: Authority
) -> None:
    """Else whoever has it would go on without having seen the other certificate."""
    edge = await start_edge(
        certificates=(authority.certify(NAME, into="app"), authority.certify(f"other.{DOMAIN}", into="other"))
    )
    context = edge.authority.client_context(is_checking=False)
    async with tenant(edge.control, "app"):
        async with await connect_tls(edge.https, context) as visitor:
            await Conversation(visitor).ask("/", host=NAME)
            session = visitor.tls.session
        async with await connect_tls(edge.https, context, f"other.{DOMAIN}", session=session) as visitor:
            assert not visitor.tls.session_reused
