"""Certificates that nobody vouches for: what proves that a host is ours, and what waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from twisted_registry.tls.authority import alternative_names, key_pem, generate_key, subject_name

if TYPE_CHECKING:
    from collections.abc import Sequence

#: ``id-pe-acmeIdentifier`` (RFC 8737, section 3).
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
#: The head of 32 bytes in DER.
_OCTETS_32: Final = b"\x04\x20"
#: What clients see that come before there is a certificate.
PLACEHOLDER_NAME: Final = "waiting for a certificate"
_SELF_SIGNED_LIFETIME: Final = timedelta(days=7)
#: The clocks of others may be late.
_BACKDATE: Final = timedelta(hours=1)


def make_challenge_certificate(host: str, authorization: str, now: float) -> tuple[bytes, bytes]:
    """The certificate that answers a challenge for a host, and its key; both PEM.

    :param authorization: the key authorization (RFC 8555, section 8.1).
    :param now: seconds since the epoch.
    """
    digest = _OCTETS_32 + sha256(authorization.encode()).digest()
    return _self_sign(
        host,
        now,
        [
            (alternative_names([host]), False),
            (x509.UnrecognizedExtension(_ACME_IDENTIFIER, digest), True),
        ],
    )


def make_placeholder(now: float) -> tuple[bytes, bytes]:
    """The certificate until there is one, which is for no host, and its key; both PEM.

    :param now: seconds since the epoch.
    """
    return _self_sign(PLACEHOLDER_NAME, now, [])


def _self_sign(
    name: str, now: float, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> tuple[bytes, bytes]:
    key = generate_key()
    begin = datetime.fromtimestamp(now, UTC) - _BACKDATE
    builder = (
        x509.CertificateBuilder(
            subject_name(name), subject_name(name), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(begin)
        .not_valid_after(begin + _SELF_SIGNED_LIFETIME)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM), key_pem(key)
