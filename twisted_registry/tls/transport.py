"""A connection over TLS that knows whose certificate its peer has shown, and sends much at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.auth.clientcertificate import ClientCertificate, ICertified

#: Bytes that are encrypted before what came of them is handed on: eight records of TLS, which stay
#: in a processor's cache from one step to the next.
AT_ONCE = 128 * 1024
#: Enough for them with what each record adds, though a client may ask for records of 512 bytes.
_ENCRYPTED = AT_ONCE + 32 * 1024


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

    def _write(self, octets: bytes) -> None:
        """Encrypt, and hand on.

        Twisted takes each record by itself through all the steps, which costs as much again as to
        encrypt it. Until the handshake is over, its way is right: it can wait.
        """
        if not self._handshakeDone or self._appSendBuffer or self._lostTLSConnection:
            super()._write(octets)
            return
        connection, lower, rest = self._tlsConnection, self.transport, memoryview(octets)
        assert lower is not None
        while rest:
            try:
                connection.sendall(rest[:AT_ONCE])
            except SSL.Error:
                # Also if it would wait, as it can not any more: how much was sent is not known, so
                # that nothing may follow.
                self._tlsShutdownFinished(Failure())
                return
            rest = rest[AT_ONCE:]
            lower.write(connection.bio_read(_ENCRYPTED))


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
