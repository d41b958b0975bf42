"""The folder with account key, certificate and challenges."""

from __future__ import annotations

import fcntl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from zope.interface.verify import verifyObject

from tests.support.certificates import Authority
from twisted_registry.acme.cache import PLACEHOLDER_NAME, ACMECache
from twisted_registry.tls.context import TLSOptions, make_context
from twisted_registry.tls.interfaces import (
    CertificateBundle,
    CertificateError,
    ICertificateSource,
)

AUTHORITY = Authority()
PEM = AUTHORITY.pem
DAY = 24 * 3600.0
NOW = x509.load_pem_x509_certificate(AUTHORITY.issue("a").certificate).not_valid_before_utc
HOSTS = ("a.example", "b.example")


@pytest.fixture
def cache(tmp_path):
    return ACMECache(tmp_path / "one" / "acme", HOSTS, NOW.timestamp)


def common_name(certificate):
    return x509.load_pem_x509_certificate(certificate).subject.rfc4514_string()


def test_placeholder_until_there_is_a_certificate(cache):
    verifyObject(ICertificateSource, cache)
    bundle = cache.load()
    make_context(bundle, TLSOptions())
    assert common_name(bundle.certificate) == f"CN={PLACEHOLDER_NAME}"
    assert cache.renew_at() == 0.0


def test_certificate_is_stored(cache):
    cache.load()
    file_versions = cache.file_versions()
    issued = AUTHORITY.issue(*HOSTS, days=89)
    cache.store_certificate(issued.certificate + PEM, issued.key)
    assert cache.file_versions() != file_versions
    assert cache.load() == CertificateBundle(issued.certificate + PEM, issued.key)
    make_context(cache.load(), TLSOptions())
    # The certificate is for 90 days.
    assert cache.renew_at() == pytest.approx(NOW.timestamp() + 60 * DAY, abs=3600)


def test_files_are_private(cache):
    cache.load()
    issued = AUTHORITY.issue(*HOSTS)
    cache.store_certificate(issued.certificate, issued.key)
    cache.store_challenge("a.example", issued.certificate, issued.key)
    with cache.order_lock():
        modes = {
            path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in cache.folder.iterdir()
        }
    names = ("acme_account+key", "a.example", "a.example+token", "lock")
    assert modes == dict.fromkeys(names, "0o600")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_folder_of_distribution_is_usable(cache):
    # As Go's autocert writes it: the key in SEC 1 form, then the chain.
    key = ec.generate_private_key(ec.SECP256R1())
    old = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert b"EC PRIVATE KEY" in old
    issued = AUTHORITY.issue("a.example", key=key)
    cache.folder.mkdir(parents=True)
    (cache.folder / "acme_account+key").write_bytes(old)
    (cache.folder / "a.example").write_bytes(old + issued.certificate + PEM)
    assert cache.account_key().private_numbers() == key.private_numbers()
    assert cache.load().certificate == issued.certificate + PEM
    assert cache.renew_at() == 0.0  # b.example is missing
    one_host = ACMECache(cache.folder, HOSTS[:1], NOW.timestamp)
    assert one_host.renew_at() > NOW.timestamp()


@pytest.mark.parametrize("content", [b"", b"broken", PEM])
def test_malformed_certificate_is_ordered_again(cache, content):
    issued = AUTHORITY.issue(*HOSTS)
    cache.load()
    (cache.folder / "a.example").write_bytes(content)
    assert cache.renew_at() == 0.0
    assert common_name(cache.load().certificate) == f"CN={PLACEHOLDER_NAME}"
    (cache.folder / "a.example").write_bytes(AUTHORITY.issue().key + issued.certificate)
    assert cache.renew_at() == 0.0


def test_malformed_account_key_is_an_error(cache):
    cache.load()
    path = cache.folder / "acme_account+key"
    for content in (b"broken", PEM):
        path.write_bytes(content)
        with pytest.raises(
            CertificateError, match=r"^letsencrypt\.cachefile: .*\+key: contains no priv"
        ):
            cache.load()
    (cache.folder / "a.example").mkdir()
    path.unlink()
    with pytest.raises(CertificateError, match=r"a\.example: Is a directory$"):
        cache.load()


def test_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        CertificateError, match=r"^letsencrypt\.cachefile: .*/file/a: Not a directory"
    ):
        ACMECache(tmp_path / "file" / "a", HOSTS, NOW.timestamp).load()


def test_authorities_of_clients_are_read_from_files(cache, tmp_path):
    path = tmp_path / "clients.pem"
    path.write_bytes(PEM)
    source = ACMECache(cache.folder, HOSTS, NOW.timestamp, (str(path),))
    assert source.load().authorities == ((str(path), PEM),)
    file_versions = source.file_versions()
    path.unlink()
    assert source.file_versions() != file_versions
    with pytest.raises(CertificateError, match=r"^clientcas: "):
        source.load()


def test_challenges_of_known_hosts_are_answered(cache):
    cache.load()
    issued = AUTHORITY.issue("b.example")
    assert cache.challenge_certificate("b.example") is None
    cache.store_challenge("b.example", issued.certificate, issued.key)
    assert cache.challenge_certificate("b.example") == CertificateBundle(
        issued.certificate, issued.key
    )
    for other in ("a.example", "c.example", "", "../b.example", "b.example\0"):
        assert cache.challenge_certificate(other) is None
    cache.delete_challenge("b.example")
    cache.delete_challenge("b.example")
    assert cache.challenge_certificate("b.example") is None
    (cache.folder / "b.example+token").mkdir()
    assert cache.challenge_certificate("b.example") is None


def test_order_lock_excludes_other_processes(cache):
    cache.load()
    with cache.order_lock() as first:
        assert first
        with cache.order_lock() as second:
            assert not second
    with (cache.folder / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
