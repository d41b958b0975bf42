"""Certificates that answer challenges."""

from __future__ import annotations

import hashlib

from cryptography import x509

from twisted_registry.acme.cache import make_challenge_certificate
from twisted_registry.tls.certificates import host_names

NOW = 1_800_000_000.0


def test_challenge_certificate_conforms_to_rfc_8737():
    certificate, _ = make_challenge_certificate("a.example", "token.thumbprint", NOW)
    own = x509.load_pem_x509_certificate(certificate)
    assert host_names(own) == ["a.example"]
    own.verify_directly_issued_by(own)
    begin, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
    assert begin < NOW < end
    (extension,) = [each for each in own.extensions if each.critical]
    assert extension.oid.dotted_string == "1.3.6.1.5.5.7.1.31"
    digest = hashlib.sha256(b"token.thumbprint").digest()
    # An OCTET STRING in DER, as in the example of section 3.
    assert extension.value.value == bytes([4, 32]) + digest
