"""Orders of certificates."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from josepy.b64 import b64decode
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.acme.acme_server import BASE, Server
from tests.support.certificates import PEM, Authority
from twisted_registry.acme.cache import ACMECache
from twisted_registry.acme.client import ACMEError
from twisted_registry.acme.renewal import Orders

AUTHORITY = Authority()
HOSTS = ("a.example", "b.example")
AUTHORIZED = {"status": "valid", "identifier": {"type": "dns", "value": "b.example"}}


def pending(status="pending", challenge="pending", **more):
    return {
        "status": status,
        "identifier": {"type": "dns", "value": "a.example"},
        "challenges": [
            {"type": "http-01", "url": f"{BASE}/no", "status": "pending", "token": "x"},
            {"type": "tls-alpn-01", "url": f"{BASE}/challenge", "status": challenge,
             "token": "token", **more},
        ],
    }  # fmt: skip


class Ordering:
    """An order, and the server that it is placed at."""

    def __init__(self, folder):
        self.clock = Clock()
        self.clock.rightNow = 1_900_000_000.0
        self.cache = ACMECache(folder, HOSTS, self.clock.seconds)
        self.cache.load()
        self.server = Server()
        self.orders = Orders(self.clock, self.cache, BASE, "a@b.example", execute, self.server)
        self.order = {
            "status": "pending",
            "authorizations": [f"{BASE}/authz/a", f"{BASE}/authz/b"],
            "finalize": f"{BASE}/finalize",
        }
        answer = self.server.answer
        answer("/order", 201, self.order, Location=f"{BASE}/order/1")
        answer("/authz/b", 200, AUTHORIZED)
        answer("/challenge", 200, {})

    def begin(self):
        self.results = []
        self.waiting = Deferred.fromCoroutine(self.orders.order())
        self.waiting.addBoth(self.results.append)

    def fails(self):
        """The error message; nothing is stored."""
        (failure,) = self.results
        assert isinstance(failure, Failure)
        assert failure.check(ACMEError), failure
        assert self.cache.challenge_certificate("a.example") is None
        assert self.cache.renew_at() == 0.0
        return failure.getErrorMessage()

    def finalized(self):
        """The public key of the certificate request, whose hosts are checked."""
        (said,) = [said for said in self.server.said if said.url == f"{BASE}/finalize"]
        request = x509.load_der_x509_csr(b64decode(said.payload["csr"]))
        assert request.is_signature_valid
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == list(HOSTS)
        return request.public_key()


@pytest.fixture
def ordering(tmp_path):
    made = Ordering(tmp_path)
    yield made
    assert not made.clock.getDelayedCalls()


def certificate_for(key):
    """A certificate of the authority for a public key."""
    template = x509.load_pem_x509_certificate(AUTHORITY.issue(*HOSTS).certificate)
    builder = x509.CertificateBuilder(
        template.issuer, template.subject, key, 1, template.not_valid_before_utc,
        template.not_valid_after_utc, list(template.extensions),
    )  # fmt: skip
    return builder.sign(AUTHORITY.key, hashes.SHA256()).public_bytes(PEM)


def test_certificate_is_ordered(ordering):
    server, clock = ordering.server, ordering.clock
    for status in ("pending", "pending", "pending", "valid"):
        server.answer("/authz/a", 200, pending(status))
    server.answer("/order/1", 200, {**ordering.order, "status": "ready"})
    server.answer("/order/1", 200, {**ordering.order, "status": "processing"}, Retry_After="5")
    done = {**ordering.order, "status": "valid", "certificate": f"{BASE}/certificate"}
    server.answer("/order/1", 200, done)
    server.answer("/finalize", 200, {})
    ordering.begin()
    # The server is notified when the challenge certificate is stored.
    assert server.said[-2].url == f"{BASE}/challenge"
    assert server.said[-2].payload == {}
    shown = x509.load_pem_x509_certificate(
        ordering.cache.challenge_certificate("a.example").certificate
    )
    assert shown.extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
    ).critical
    clock.advance(2)
    assert ordering.cache.challenge_certificate("a.example") is not None
    clock.advance(2)
    assert ordering.cache.challenge_certificate("a.example") is None
    key = ordering.finalized()
    server.answer("/certificate", 200, certificate_for(key) + AUTHORITY.pem)
    clock.advance(4)
    assert ordering.results == []
    clock.advance(1)
    assert ordering.results == [None]
    assert x509.load_pem_x509_certificate(ordering.cache.load().certificate).public_key() == key
    assert [said.url for said in server.said if "/no" in said.url] == [f"{BASE}/nonce"]
    (order,) = [said.payload for said in server.said if said.url == f"{BASE}/order"]
    assert order == {"identifiers": [{"type": "dns", "value": host} for host in HOSTS]}


def test_failed_validation_has_a_reason(ordering):
    error = {"type": "urn:ietf:params:acme:error:connection", "detail": "refused"}
    ordering.server.answer("/authz/a", 200, pending())
    ordering.server.answer("/authz/a", 200, pending("invalid", "invalid", error=error))
    ordering.begin()
    assert ordering.fails() == "validation of a.example failed: connection: refused"


def test_challenge_in_progress_is_only_polled(ordering):
    ordering.server.answer("/authz/a", 200, pending(challenge="processing"))
    ordering.server.answer("/authz/a", 200, pending("expired"))
    ordering.begin()
    assert ordering.fails() == "validation of a.example failed: status expired"
    assert not [said for said in ordering.server.said if said.url == f"{BASE}/challenge"]


def test_missing_challenge_type_is_an_error(ordering):
    ordering.server.answer("/authz/a", 200, {**pending(), "challenges": []})
    ordering.begin()
    assert ordering.fails() == f"{BASE}/authz/a: no challenge tls-alpn-01 for a.example"


def test_failed_order_has_a_reason(ordering):
    ordering.server.answer("/authz/a", 200, pending("valid"))
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "forbidden"}
    ordering.server.answer("/order/1", 200, {**ordering.order, "status": "invalid", "error": error})
    ordering.begin()
    assert ordering.fails() == f"{BASE}/order/1: the order failed: caa: forbidden"


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        (b"<html>", "contains no certificate in PEM"),
        (AUTHORITY.issue(*HOSTS).certificate, "is for another key"),
    ],
)
def test_wrong_certificate_is_not_stored(ordering, chain, said):
    ordering.server.answer("/authz/a", 200, pending("valid"))
    done = {**ordering.order, "status": "valid", "certificate": f"{BASE}/certificate"}
    ordering.server.answer("/order/1", 200, done)
    ordering.server.answer("/certificate", 200, chain)
    ordering.begin()
    assert ordering.fails() == f"{BASE}/certificate: {said}"


def test_polling_ends(ordering):
    ordering.server.answer("/authz/a", 200, pending(), Retry_After="3600")
    ordering.begin()
    ordering.clock.pump([60] * 59)
    assert ordering.results == []
    ordering.clock.advance(60)
    assert ordering.fails() == f"{BASE}/authz/a: still pending after 60 polls"


def test_cancelled_order_deletes_its_challenge(ordering):
    ordering.server.answer("/authz/a", 200, pending())
    ordering.begin()
    assert ordering.cache.challenge_certificate("a.example") is not None
    ordering.waiting.cancel()
    assert len(ordering.results) == 1
    assert ordering.cache.challenge_certificate("a.example") is None
