"""Checks of the certificate that a registry sends: validity, chain and names."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from twisted_registry.doctor.findings import Finding
from twisted_registry.tls.certificates import describe_certificate, host_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def check_certificate(key: str, content: bytes, now: float, host: str = "") -> list[Finding]:
    """Check the certificate of the server and those that follow it in its file.

    :param content: PEM, as ``http.tls.certificate`` names it.
    :param now: in seconds since the epoch.
    :param host: the name or address that clients use; empty if it is not known.
    """
    chain = x509.load_pem_x509_certificates(content)
    found = [*_check_validity(key, chain, now), *_check_order(key, chain)]
    found += _check_names(key, chain[0], host)
    # What is expired or in the wrong order is not verified either.
    return found or list(_check_trust(key, chain))


def check_authorities(key: str, content: bytes, now: float) -> list[Finding]:
    """Check the validity of authorities for client certificates."""
    return list(_check_validity(key, x509.load_pem_x509_certificates(content), now))


def _check_validity(key: str, chain: Sequence[x509.Certificate], now: float) -> Iterator[Finding]:
    for certificate in chain:
        text, is_valid = describe_certificate(certificate.public_bytes(Encoding.PEM), now)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not is_valid:
            is_current = begin.timestamp() <= now <= end.timestamp()
            yield Finding(
                key, text, "dates in the certificate", "renew it; the registry reads it again by"
                " itself", is_warning=is_current,
            )  # fmt: skip


def _check_order(key: str, chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    for number, (below, above) in enumerate(pairwise(chain), 2):
        try:
            below.verify_directly_issued_by(above)
        except (InvalidSignature, ValueError, TypeError):
            yield Finding(
                key,
                f"certificate {number} of the file did not issue the one before it",
                "issuer and signature",
                "order them: the server's first, then each one's issuer",
            )
            return


def _check_names(key: str, certificate: x509.Certificate, host: str) -> Iterator[Finding]:
    names = host_names(certificate)
    if not names:
        yield Finding(
            key,
            "the certificate has no host names",
            "no subject alternative name",
            "issue one with subject alternative names; docker ignores the common name",
        )
    elif host and not any(_matches(name, host) for name in names):
        yield Finding(
            key,
            f"the certificate is not for {host} of http.host",
            f"it is for {', '.join(names)}",
            "issue one for that name, or correct http.host",
        )


def _matches(name: str, host: str) -> bool:
    """Return whether a name of a certificate is that of a host (RFC 6125, section 6.4)."""
    try:
        return ip_address(name) == ip_address(host)
    except ValueError:
        pass
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:]
    return name == host


def _check_trust(key: str, chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    """Verify the chain with the authorities that this machine trusts."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    assert store is not None
    own, *others = map(crypto.X509.from_cryptography, chain)
    try:
        crypto.X509StoreContext(store, own, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        yield Finding(
            key,
            "this machine does not trust the certificate",
            f"OpenSSL: {error}",
            "append missing intermediate certificates; of a private authority each client needs the"
            " certificate",
            is_warning=True,
        )
