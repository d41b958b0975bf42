"""Certificates that the registry issues to itself."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from zope.interface.verify import verifyObject

from twisted_registry.tls.authority import fingerprint, last_certificate, trust_instructions
from twisted_registry.tls.certificates import host_names
from twisted_registry.tls.context import TLSOptions, make_context
from twisted_registry.tls.interfaces import CertificateError, ICertificateSource
from twisted_registry.tls.sources import AutomaticCertificates

DAY = 24 * 3600.0
HOSTS = ("registry.lan", "10.0.0.1", "*.example")


class Time:
    def __init__(self):
        self.now = datetime.now(UTC).timestamp()

    def __call__(self):
        return self.now


@pytest.fixture
def now():
    return Time()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a" / "tls"


def own(bundle):
    return x509.load_pem_x509_certificate(bundle.certificate)


def test_certificate_is_issued_once_and_then_loaded(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    verifyObject(ICertificateSource, automatic)
    made = automatic.load()
    make_context(made, TLSOptions())
    assert sorted(host_names(own(made))) == sorted(HOSTS)
    authority = (folder / "ca.crt").read_bytes()
    assert last_certificate(made.certificate) == authority
    own(made).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert automatic.load() == made
    assert AutomaticCertificates(folder, HOSTS, now).load() == made
    file_versions = automatic.file_versions()
    now.now += 59 * DAY
    assert automatic.file_versions() == file_versions


def test_only_the_certificate_of_the_authority_is_readable_by_all(folder, now):
    AutomaticCertificates(folder, HOSTS, now).load()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes.pop("ca.crt") == 0o644
    assert set(modes.values()) == {0o600}
    assert len(modes) == 4


def test_renewal_keeps_the_authority(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    old = automatic.load()
    file_versions = automatic.file_versions()
    now.now += 61 * DAY
    assert automatic.file_versions() != file_versions
    new = automatic.load()
    assert own(new).not_valid_after_utc > own(old).not_valid_after_utc
    assert last_certificate(new.certificate) == last_certificate(old.certificate)
    assert new.key != old.key


def test_overdue_renewal_is_retried_each_hour(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.load()
    now.now += 61 * DAY
    first = automatic.file_versions()
    assert automatic.file_versions() == first
    now.now += 3601
    assert automatic.file_versions() != first


def test_other_hosts_get_a_certificate_of_the_same_authority(folder, now):
    one = AutomaticCertificates(folder, ("a.example",), now)
    first = one.load()
    other = AutomaticCertificates(folder, ("b.example",), now).load()
    assert last_certificate(first.certificate) == last_certificate(other.certificate)
    assert host_names(own(other)) == ["b.example"]
    assert one.load() == first


def test_new_authority_issues_a_new_certificate(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    old = automatic.load()
    (folder / "ca.crt").unlink()
    (folder / "ca.key").unlink()
    new = automatic.load()
    assert last_certificate(new.certificate) != last_certificate(old.certificate)
    own(new).verify_directly_issued_by(
        x509.load_pem_x509_certificate(last_certificate(new.certificate))
    )


def test_malformed_certificate_is_issued_again(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.load()
    (path,) = [path for path in folder.glob("*.crt") if path.name != "ca.crt"]
    path.write_text("broken")
    make_context(automatic.load(), TLSOptions())


def test_malformed_authority_is_an_error(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.load()
    for content in (b"broken", AutomaticCertificates(folder / "b", HOSTS, now).load().key):
        (folder / "ca.key").write_bytes(content)
        with pytest.raises(CertificateError, match=f"^auto: {folder}/ca.crt, {folder}/ca.key: "):
            automatic.load()


def test_folder_that_cannot_be_created_is_an_error(tmp_path, now):
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match=f"^auto: {tmp_path}/file/b: Not a directory"):
        AutomaticCertificates(tmp_path / "file" / "b", HOSTS, now).load()


def test_certificate_does_not_outlive_its_authority(folder, now):
    AutomaticCertificates(folder, HOSTS, now).load()
    now.now += 3600 * DAY
    late = AutomaticCertificates(folder, HOSTS, now).load()
    authority = x509.load_pem_x509_certificate(last_certificate(late.certificate))
    assert own(late).not_valid_after_utc == authority.not_valid_after_utc


def test_trust_instructions_name_url_fingerprint_and_directories(folder, now):
    certificate = last_certificate(AutomaticCertificates(folder, HOSTS, now).load().certificate)
    first, *others = trust_instructions("a.example", 5000, "/ca.crt", certificate)
    assert first.endswith(f"https://a.example:5000/ca.crt, SHA-256 {fingerprint(certificate)}")
    assert [line.split("mkdir -p ")[1].split()[0] for line in others] == [
        f"/etc/{client}/certs.d/a.example:5000" for client in ("docker", "containers", "containerd")
    ]
    assert "https://a.example/ca.crt" in next(
        trust_instructions("a.example", 443, "/ca.crt", certificate)
    )
