"""What clients show of themselves: certificates, in words that access control understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from twisted_registry.auth.clientcertificate import ClientCertificate

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection


def peer_certificate(connection: Connection) -> ClientCertificate | None:
    """What the peer of a connection has shown; None before the end of the handshake, too."""
    shown = connection.get_peer_certificate(as_cryptography=True)
    return None if shown is None else read(shown)


def read(certificate: x509.Certificate) -> ClientCertificate:
    """What a certificate says of its holder."""
    subject = certificate.subject
    try:
        found: Any = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        found = x509.SubjectAlternativeName([])
    return ClientCertificate(
        subject.rfc4514_string(),
        _name_attributes(subject, NameOID.COMMON_NAME),
        _name_attributes(subject, NameOID.ORGANIZATION_NAME),
        tuple(found.get_values_for_type(x509.DNSName)),
        tuple(found.get_values_for_type(x509.RFC822Name)),
        tuple(found.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _name_attributes(subject: x509.Name, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(each.value) for each in subject.get_attributes_for_oid(kind))
