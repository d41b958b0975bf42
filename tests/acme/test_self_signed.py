"""Certificates that answer challenges."""

from __future__ import annotations

import hashlib

from cryptography import x509

from twisted_registry.acme.cache import make_challenge_certificate
from twisted_registry.tls.sources import host_names

NOW = 1_800_000_000.0


def test_a_proof_is_as_rfc_8737_says():
    certificate, _ = make_challenge_certificate("a.example", "token.thumbprint", NOW)
    made = x509.load_pem_x509_certificate(certificate)
    assert host_names(made) == ["a.example"]
    made.verify_directly_issued_by(made)
    begin, end = made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()
    assert begin < NOW < end
    (extension,) = [each for each in made.extensions if each.critical]
    assert extension.oid.dotted_string == "1.3.6.1.5.5.7.1.31"
    digest = hashlib.sha256(b"token.thumbprint").digest()
    # An OCTET STRING in DER, as the example in section 3 has it.
    assert extension.value.value == bytes([4, 32]) + digest
