"""A connection over TLS that can say whose certificate its peer has shown."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.protocols.tls import BufferingTLSTransport
from zope.interface import implementer

from twisted_registry.auth.clientcertificate import ClientCertificate, ICertified

if TYPE_CHECKING:
    from OpenSSL import SSL


@implementer(ICertified)
class CertifiedTransport(BufferingTLSTransport):
    """As Twisted's.

    :ivar verifies: whether OpenSSL has verified what was shown; otherwise nothing is said of it.
    """

    verifies = False

    @cached_property
    def certificate(self) -> ClientCertificate | None:
        """As promised by :class:`ICertified`."""
        connection: SSL.Connection | None = self._tlsConnection
        if not self.verifies or connection is None:
            return None
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
        _values(subject, NameOID.COMMON_NAME),
        _values(subject, NameOID.ORGANIZATION_NAME),
        tuple(found.get_values_for_type(x509.DNSName)),
        tuple(found.get_values_for_type(x509.RFC822Name)),
        tuple(found.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _values(subject: x509.Name, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(each.value) for each in subject.get_attributes_for_oid(kind))
