"""Certificates that we make ourselves."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from zope.interface.verify import verifyObject

from twisted_registry.tls.authority import advice, fingerprint, last_certificate
from twisted_registry.tls.context import (
    CertificateError,
    ICertificateSource,
    TLSOptions,
    make_context,
)
from twisted_registry.tls.sources import AutomaticCertificates, host_names

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


def own(material):
    return x509.load_pem_x509_certificate(material.certificate)


def test_one_is_made_and_found_again(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    verifyObject(ICertificateSource, automatic)
    made = automatic.read()
    make_context(made, TLSOptions())
    assert sorted(host_names(own(made))) == sorted(HOSTS)
    authority = (folder / "ca.crt").read_bytes()
    assert last_certificate(made.certificate) == authority
    own(made).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert automatic.read() == made
    assert AutomaticCertificates(folder, HOSTS, now).read() == made
    file_versions = automatic.file_versions()
    now.now += 59 * DAY
    assert automatic.file_versions() == file_versions


def test_only_the_certificate_of_the_authority_is_for_everybody(folder, now):
    AutomaticCertificates(folder, HOSTS, now).read()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes.pop("ca.crt") == 0o644
    assert set(modes.values()) == {0o600}
    assert len(modes) == 4


def test_it_is_renewed_in_time_and_the_authority_stays(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    old = automatic.read()
    file_versions = automatic.file_versions()
    now.now += 61 * DAY
    assert automatic.file_versions() != file_versions
    new = automatic.read()
    assert own(new).not_valid_after_utc > own(old).not_valid_after_utc
    assert last_certificate(new.certificate) == last_certificate(old.certificate)
    assert new.key != old.key


def test_what_could_not_be_renewed_is_tried_again_each_hour(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.read()
    now.now += 61 * DAY
    first = automatic.file_versions()
    assert automatic.file_versions() == first
    now.now += 3601
    assert automatic.file_versions() != first


def test_other_hosts_get_another_certificate_of_the_same_authority(folder, now):
    one = AutomaticCertificates(folder, ("a.example",), now)
    first = one.read()
    other = AutomaticCertificates(folder, ("b.example",), now).read()
    assert last_certificate(first.certificate) == last_certificate(other.certificate)
    assert host_names(own(other)) == ["b.example"]
    assert one.read() == first


def test_another_authority_makes_another_certificate(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    old = automatic.read()
    (folder / "ca.crt").unlink()
    (folder / "ca.key").unlink()
    new = automatic.read()
    assert last_certificate(new.certificate) != last_certificate(old.certificate)
    own(new).verify_directly_issued_by(
        x509.load_pem_x509_certificate(last_certificate(new.certificate))
    )


def test_a_broken_certificate_is_made_again(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.read()
    (path,) = [path for path in folder.glob("*.crt") if path.name != "ca.crt"]
    path.write_text("broken")
    make_context(automatic.read(), TLSOptions())


def test_a_broken_authority_is_not_replaced(folder, now):
    automatic = AutomaticCertificates(folder, HOSTS, now)
    automatic.read()
    for content in (b"broken", AutomaticCertificates(folder / "b", HOSTS, now).read().key):
        (folder / "ca.key").write_bytes(content)
        with pytest.raises(CertificateError, match=f"^auto: {folder}/ca.crt, {folder}/ca.key: "):
            automatic.read()


def test_a_folder_that_can_not_be_made(tmp_path, now):
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match=f"^auto: {tmp_path}/file/b: Not a directory"):
        AutomaticCertificates(tmp_path / "file" / "b", HOSTS, now).read()


def test_a_certificate_does_not_outlive_its_authority(folder, now):
    AutomaticCertificates(folder, HOSTS, now).read()
    now.now += 3600 * DAY
    late = AutomaticCertificates(folder, HOSTS, now).read()
    authority = x509.load_pem_x509_certificate(last_certificate(late.certificate))
    assert own(late).not_valid_after_utc == authority.not_valid_after_utc


def test_lines_for_clients(folder, now):
    certificate = last_certificate(AutomaticCertificates(folder, HOSTS, now).read().certificate)
    first, *others = advice("a.example", 5000, "/ca.crt", certificate)
    assert first.endswith(f"https://a.example:5000/ca.crt, SHA-256 {fingerprint(certificate)}")
    assert [line.split("mkdir -p ")[1].split()[0] for line in others] == [
        f"/etc/{client}/certs.d/a.example:5000" for client in ("docker", "containers", "containerd")
    ]
    assert "https://a.example/ca.crt" in next(advice("a.example", 443, "/ca.crt", certificate))
