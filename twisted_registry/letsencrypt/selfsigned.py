"""Certificates that nobody vouches for: what proves that a host is ours, and what waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from twisted_registry.tls.authority import alternatives, key_pem, make_key, named

if TYPE_CHECKING:
    from collections.abc import Sequence

#: ``id-pe-acmeIdentifier`` (RFC 8737, section 3).
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
#: The head of 32 bytes in DER.
_OCTETS_32: Final = b"\x04\x20"
#: What clients see that come before there is a certificate.
WAITING: Final = "waiting for a certificate"
_LIFETIME: Final = timedelta(days=7)
#: The clocks of others may be late.
_EARLIER: Final = timedelta(hours=1)


def proof(host: str, authorization: str, now: float) -> tuple[bytes, bytes]:
    """The certificate that answers a challenge for a host, and its key; both PEM.

    :param authorization: the key authorization (RFC 8555, section 8.1).
    :param now: seconds since the epoch.
    """
    digest = _OCTETS_32 + sha256(authorization.encode()).digest()
    return _made(
        host,
        now,
        [
            (alternatives([host]), False),
            (x509.UnrecognizedExtension(_ACME_IDENTIFIER, digest), True),
        ],
    )


def waiting(now: float) -> tuple[bytes, bytes]:
    """The certificate until there is one, which is for no host, and its key; both PEM.

    :param now: seconds since the epoch.
    """
    return _made(WAITING, now, [])


def _made(
    name: str, now: float, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> tuple[bytes, bytes]:
    key = make_key()
    begin = datetime.fromtimestamp(now, UTC) - _EARLIER
    builder = (
        x509.CertificateBuilder(
            named(name), named(name), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(begin)
        .not_valid_after(begin + _LIFETIME)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM), key_pem(key)
