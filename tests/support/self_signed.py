"""Self-signed certificates for the length of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from tests.support.certificates import (
    PEM,
    alternative_names,
    certificate_builder,
    encode_private_key,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@implementer(IOpenSSLContextFactory)
@frozen
class _ContextFactory:
    """The context factory of a server, for ``listenSSL``."""

    _context: SSL.Context

    def getContext(self):
        return self._context


@frozen
class SelfSigned:
    """A certificate and its key."""

    certificate: Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self):
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self):
        return encode_private_key(self.key)

    def options(self):
        """Return a context factory for a server.

        Twisted's CertificateOptions uses functions of pyOpenSSL that are deprecated.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        return _ContextFactory(context)


def self_signed(host=None):
    """Return a new certificate.

    :param host: host name or address; None for a certificate without a name that clients check.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = certificate_builder("x", "x", key.public_key(), days=1)
    if host is not None:
        builder = builder.add_extension(alternative_names(host), critical=False)
    return SelfSigned(builder.sign(key, hashes.SHA256()), key)
