"""Which names certificates are ordered for; that they are, is shown with a real authority in tests/interop."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from otun import CertificateFiles, ServerSettings
from otun.server.automatic_certificates import SHARE_OF_ONE, AutomaticCertificates
from otun.server.encryption import Encryption
from otun.tls.acme.settings import AcmeSettings
from otun.tls.certificates import CertificateStore
from otun.tls.self_made import own_certificate

from .harness import LOOPBACK


@attrs.define
class FakeIssuer:
    """Notes what is wanted."""

    on_certificate: Callable[[str, Path], None]
    wanted: list[str] = attrs.field(factory=list)
    kept: set[str] = attrs.field(factory=set)

    def want(self, name: str) -> None:
        self.wanted.append(name)

    def has_certificate(self, name: str) -> bool:
        return name in self.kept

    def forget(self, name: str) -> None:
        if name in self.wanted:
            self.wanted.remove(name)


@attrs.define
class Setting:
    """What the tests look at."""

    certificates: AutomaticCertificates
    issuer: FakeIssuer
    store: CertificateStore


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Setting]:
    def make(*, domain: str | None = "example.test", dns_hook: str | None = None) -> Setting:
        issuers: list[FakeIssuer] = []

        def make_issuer(*arguments: object) -> FakeIssuer:
            issuers.append(FakeIssuer(arguments[3]))
            return issuers[-1]

        monkeypatch.setattr("otun.server.automatic_certificates.Issuer", make_issuer)
        acme = AcmeSettings(dns_hook=dns_hook)
        settings = ServerSettings(domain=domain, https=LOOPBACK, acme=acme, state=tmp_path)
        store = CertificateStore()
        return Setting(AutomaticCertificates(settings, acme, tmp_path, store), issuers[0], store)

    return make


def test_the_domain_and_the_hosts_of_open_tunnels_are_wanted(make: Callable[..., Setting]) -> None:
    setting = make()
    assert setting.issuer.wanted == ["example.test"]
    setting.certificates.tunnel_opened(["app.example.test", "shop.example.org"], "a client")
    assert setting.issuer.wanted == ["example.test", "app.example.test", "shop.example.org"]
    setting.certificates.tunnel_closed(["app.example.test", "shop.example.org"])
    assert setting.issuer.wanted == ["example.test"]


def test_a_host_of_two_tunnels_is_wanted_once_and_until_both_are_closed(make: Callable[..., Setting]) -> None:
    setting = make()
    for _ in range(2):
        setting.certificates.tunnel_opened(["app.example.test"], "a client")
    assert setting.issuer.wanted == ["example.test", "app.example.test"]
    setting.certificates.tunnel_closed(["app.example.test"])
    assert setting.issuer.wanted == ["example.test", "app.example.test"]
    setting.certificates.tunnel_closed(["app.example.test"])
    assert setting.issuer.wanted == ["example.test"]


def test_with_a_dns_hook_a_wildcard_takes_the_place_of_all_names_below_the_domain(
    make: Callable[..., Setting],
) -> None:
    setting = make(dns_hook="/bin/true")
    setting.certificates.tunnel_opened(["app.example.test", "a.app.example.test", "*.app.example.test"], "a client")
    assert setting.issuer.wanted == ["example.test", "*.example.test", "a.app.example.test", "*.app.example.test"]


def test_without_a_dns_hook_nothing_is_wanted_for_wildcards(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.certificates.tunnel_opened(["app.example.test", "*.app.example.test"], "a client")
    assert setting.issuer.wanted == ["example.test", "app.example.test"]
    assert not setting.certificates.is_eligible("*.app.example.test")


def test_without_a_domain_only_own_host_names_are_wanted(make: Callable[..., Setting]) -> None:
    setting = make(domain=None)
    setting.certificates.tunnel_opened(["app.localhost", "shop.example.org"], "a client")
    assert setting.issuer.wanted == ["shop.example.org"]


def test_what_files_cover_is_not_wanted(make: Callable[..., Setting], tmp_path: Path) -> None:
    setting = make()
    setting.store.add(own_certificate(tmp_path, "app.example.test"))
    setting.certificates.tunnel_opened(["app.example.test"], "a client")
    assert setting.issuer.wanted == ["example.test"]


def test_a_certificate_for_a_tunnel_that_is_opened_again_is_still_renewed(
    make: Callable[..., Setting], tmp_path: Path
) -> None:
    setting = make()
    setting.certificates.tunnel_opened(["app.example.test"], "a client")
    setting.issuer.on_certificate("app.example.test", own_certificate(tmp_path, "app.example.test").certificate)
    setting.certificates.tunnel_closed(["app.example.test"])
    assert setting.issuer.wanted == ["example.test"]
    setting.certificates.tunnel_opened(["app.example.test"], "a client")
    assert setting.issuer.wanted == ["example.test", "app.example.test"]


def test_a_new_certificate_is_used_and_told(make: Callable[..., Setting], tmp_path: Path) -> None:
    setting = make()
    told: list[str] = []
    setting.certificates.tell(told.append)
    setting.issuer.on_certificate("app.example.test", own_certificate(tmp_path, "app.example.test").certificate)
    assert setting.store.find("app.example.test") is not None
    assert told == ["app.example.test"]


async def test_other_settings_have_them_all_in_their_order_also_those_that_come_meanwhile(
    make: Callable[..., Setting], tmp_path: Path
) -> None:
    names = [f"{letter}.example.test" for letter in "abcdefgh"]
    folders = {name: tmp_path / name for name in names}
    setting = make()

    def obtain(name: str) -> None:
        folders[name].mkdir()
        setting.issuer.on_certificate(name, own_certificate(folders[name], name).certificate)

    settings = ServerSettings(domain="example.test", state=tmp_path)
    encryption = Encryption(settings, is_private=True)
    encryption.automatic, encryption.store = setting.certificates, setting.store
    for name in names[:-1]:
        obtain(name)
    apply = await encryption.prepare(settings)
    obtain(names[-1])
    apply()
    assert encryption.store.default is encryption.store.find(names[0])
    assert all(encryption.covers(name) for name in names)


def test_a_certificate_that_cannot_be_used_is_an_error_in_the_log(
    make: Callable[..., Setting], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setting = make()
    bad = CertificateFiles(tmp_path / "bad.pem")
    bad.certificate.write_text("nothing")
    setting.issuer.on_certificate("app.example.test", bad.certificate)
    assert "certificate for app.example.test: it cannot be used: " in caplog.text
    assert setting.store.find("app.example.test") is None


def test_one_client_cannot_use_up_what_all_have_together(
    make: Callable[..., Setting], caplog: pytest.LogCaptureFixture
) -> None:
    setting = make()
    setting.issuer.kept.update(f"kept{number}.example.test" for number in range(100))
    for number in range(100):
        setting.certificates.tunnel_opened([f"kept{number}.example.test"], "mallory")  # They cost nothing.
    wanted = len(setting.issuer.wanted)
    for number in range(100):
        for host in (f"new{number}.example.test", f"*.new{number}.example.test"):
            setting.certificates.tunnel_opened([host], "mallory")
            setting.certificates.tunnel_closed([host])
            setting.certificates.tunnel_opened([host], "mallory")  # The same name does not count twice.
    assert len(setting.issuer.wanted) - wanted == SHARE_OF_ONE
    assert f"its client has asked for {SHARE_OF_ONE} new names already" in caplog.text
    setting.certificates.tunnel_opened(["alice.example.test"], "alice")
    assert "alice.example.test" in setting.issuer.wanted
