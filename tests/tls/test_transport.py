from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID
from zope.interface.verify import verifyClass

from twisted_registry.auth.clientcertificate import ClientCertificate, ICertified
from twisted_registry.tls.transport import CertifiedTransport, read


class Shown:
    """What is asked of a certificate."""

    def __init__(self, *alternatives):
        self.subject = x509.Name([
            x509.NameAttribute(NameOID.COMMON_NAME, "a,O=Admins"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        ])  # fmt: skip
        names = x509.SubjectAlternativeName(alternatives)
        extensions = [x509.Extension(names.oid, False, names)] if alternatives else []
        self.extensions = x509.Extensions(extensions)


def test_what_a_certificate_says():
    verifyClass(ICertified, CertifiedTransport)
    assert read(
        Shown(
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


def test_without_alternative_names():
    assert read(Shown()).dns == ()
