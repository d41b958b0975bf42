from __future__ import annotations

import contextlib
import ssl

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyClass

from tests.support.certificates import Authority
from twisted_registry.tls.certificates import parse_client_certificate
from twisted_registry.tls.context import TLSOptions, make_context
from twisted_registry.tls.endpoint import (
    ClientCertificateTransport,
    TLSConnectionCreator,
    TLSEndpoint,
)
from twisted_registry.tls.interfaces import (
    CertificateBundle,
    ClientCertificate,
    IClientCertificateTransport,
)

AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("localhost")
NOISE = bytes(range(251)) * 4001  # more than seven pieces, and not whole ones


class Certificate:
    """The parts of a certificate that are read."""

    def __init__(self, *alternatives):
        self.subject = x509.Name([
            x509.NameAttribute(NameOID.COMMON_NAME, "a,O=Admins"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        ])  # fmt: skip
        names = x509.SubjectAlternativeName(alternatives)
        extensions = [x509.Extension(names.oid, False, names)] if alternatives else []
        self.extensions = x509.Extensions(extensions)


def test_client_certificate_is_parsed():
    verifyClass(IClientCertificateTransport, ClientCertificateTransport)
    assert parse_client_certificate(
        Certificate(
            x509.DNSName("a.example"),
            x509.RFC822Name("a@example.com"),
            x509.UniformResourceIdentifier("spiffe://a"),
        )
    ) == ClientCertificate(
        r"O=Example,CN=a\,O=Admins",
        ("a,O=Admins",),
        ("Example",),
        ("a.example",),
        ("a@example.com",),
        ("spiffe://a",),
    )


def test_client_certificate_without_alternative_names():
    assert parse_client_certificate(Certificate()).dns == ()


class Port:
    """An endpoint that stores the factory."""

    def listen(self, factory):
        self.factory = factory


class Pair:
    """Both ends of a TLS connection in memory."""

    def __init__(self, client):
        port = Port()
        context = make_context(CertificateBundle(ISSUED.certificate, ISSUED.key), TLSOptions())
        endpoint = TLSEndpoint(Clock(), port, TLSConnectionCreator(context))
        endpoint.listen(Factory.forProtocol(Protocol))
        self.transport = port.factory.buildProtocol(None)
        self.wire = StringTransport()
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._coming, self._going, server_hostname="localhost")
        self.transport.makeConnection(self.wire)

    def exchange(self):
        """Pass the waiting data of each side to the other."""
        if self._going.pending:
            self.transport.dataReceived(self._going.read())
        self._coming.write(self.wire.value())
        self.wire.clear()

    def shake_hands(self):
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.exchange()

    def received(self):
        """All that the client reads."""
        self.exchange()
        found = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.client.read(65536):
                found.append(data)
        return b"".join(found)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_large_data_is_sent_completely(version):
    pair = Pair(AUTHORITY.client(maximum_version=version))
    pair.shake_hands()
    pair.transport.write(NOISE)
    assert pair.received() == NOISE


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"OPTIONS /v2/ HTTP/1.0"])
def test_plain_http_is_answered_and_the_connection_closed(request_line):
    pair = Pair(AUTHORITY.client())
    pair.transport.dataReceived(request_line + b"\r\nHost: a\r\n\r\n")
    assert pair.wire.value() == (
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    )
    assert pair.wire.disconnecting
    pair.transport.connectionLost(Failure(ConnectionDone()))


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x00\x00GET /", b"get / ", b"SSH-2.0-a /", b"\0"])
def test_other_data_without_tls_gets_no_answer_in_plain_text(data):
    pair = Pair(AUTHORITY.client())
    pair.transport.dataReceived(data)
    assert b"HTTP" not in pair.wire.value()


def test_data_written_before_the_handshake_is_sent_after_it():
    pair = Pair(AUTHORITY.client())
    pair.transport.write(NOISE)
    assert pair.received() == b""
    pair.shake_hands()
    assert pair.received() == NOISE
