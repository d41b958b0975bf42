"""Certificates that we make ourselves."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from zope.interface.verify import verifyObject

from twisted_registry.tls.advice import advice, authority_of, fingerprint
from twisted_registry.tls.automatic import Automatic
from twisted_registry.tls.context import Terms, make_context
from twisted_registry.tls.material import ISource, MaterialError
from twisted_registry.tls.subject import names

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
    automatic = Automatic(folder, HOSTS, now)
    verifyObject(ISource, automatic)
    made = automatic.read()
    make_context(made, Terms())
    assert sorted(names(own(made))) == sorted(HOSTS)
    authority = (folder / "ca.crt").read_bytes()
    assert authority_of(made.certificate) == authority
    own(made).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert automatic.read() == made
    assert Automatic(folder, HOSTS, now).read() == made
    marks = automatic.marks()
    now.now += 59 * DAY
    assert automatic.marks() == marks


def test_only_the_certificate_of_the_authority_is_for_everybody(folder, now):
    Automatic(folder, HOSTS, now).read()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes.pop("ca.crt") == 0o644
    assert set(modes.values()) == {0o600}
    assert len(modes) == 4


def test_it_is_renewed_in_time_and_the_authority_stays(folder, now):
    automatic = Automatic(folder, HOSTS, now)
    old = automatic.read()
    marks = automatic.marks()
    now.now += 61 * DAY
    assert automatic.marks() != marks
    new = automatic.read()
    assert own(new).not_valid_after_utc > own(old).not_valid_after_utc
    assert authority_of(new.certificate) == authority_of(old.certificate)
    assert new.key != old.key


def test_what_could_not_be_renewed_is_tried_again_each_hour(folder, now):
    automatic = Automatic(folder, HOSTS, now)
    automatic.read()
    now.now += 61 * DAY
    first = automatic.marks()
    assert automatic.marks() == first
    now.now += 3601
    assert automatic.marks() != first


def test_other_hosts_get_another_certificate_of_the_same_authority(folder, now):
    one = Automatic(folder, ("a.example",), now)
    first = one.read()
    other = Automatic(folder, ("b.example",), now).read()
    assert authority_of(first.certificate) == authority_of(other.certificate)
    assert names(own(other)) == ["b.example"]
    assert one.read() == first


def test_another_authority_makes_another_certificate(folder, now):
    automatic = Automatic(folder, HOSTS, now)
    old = automatic.read()
    (folder / "ca.crt").unlink()
    (folder / "ca.key").unlink()
    new = automatic.read()
    assert authority_of(new.certificate) != authority_of(old.certificate)
    own(new).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority_of(new.certificate))
    )


def test_a_broken_certificate_is_made_again(folder, now):
    automatic = Automatic(folder, HOSTS, now)
    automatic.read()
    (path,) = [path for path in folder.glob("*.crt") if path.name != "ca.crt"]
    path.write_text("broken")
    make_context(automatic.read(), Terms())


def test_a_broken_authority_is_not_replaced(folder, now):
    automatic = Automatic(folder, HOSTS, now)
    automatic.read()
    for content in (b"broken", Automatic(folder / "b", HOSTS, now).read().key):
        (folder / "ca.key").write_bytes(content)
        with pytest.raises(MaterialError, match=f"^auto: {folder}/ca.crt, {folder}/ca.key: "):
            automatic.read()


def test_a_folder_that_can_not_be_made(tmp_path, now):
    (tmp_path / "file").touch()
    with pytest.raises(MaterialError, match=f"^auto: {tmp_path}/file/b: Not a directory"):
        Automatic(tmp_path / "file" / "b", HOSTS, now).read()


def test_a_certificate_does_not_outlive_its_authority(folder, now):
    Automatic(folder, HOSTS, now).read()
    now.now += 3600 * DAY
    late = Automatic(folder, HOSTS, now).read()
    authority = x509.load_pem_x509_certificate(authority_of(late.certificate))
    assert own(late).not_valid_after_utc == authority.not_valid_after_utc


def test_lines_for_clients(folder, now):
    certificate = authority_of(Automatic(folder, HOSTS, now).read().certificate)
    first, *others = advice("a.example", 5000, "/ca.crt", certificate)
    assert first.endswith(f"https://a.example:5000/ca.crt, SHA-256 {fingerprint(certificate)}")
    assert [line.split("mkdir -p ")[1].split()[0] for line in others] == [
        f"/etc/{client}/certs.d/a.example:5000" for client in ("docker", "containers", "containerd")
    ]
    assert "https://a.example/ca.crt" in next(advice("a.example", 443, "/ca.crt", certificate))
