"""The URLs of ``redirect``, ``rewrite`` and ``cloudfront``."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.interfaces import (
    IBulkLookup,
    IFolders,
    ILeftovers,
    IPresigner,
    IStorageDriver,
    MethodUnsupported,
)
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.storage.middleware.cloudfront import CloudFront, CloudFrontSigner
from twisted_registry.storage.middleware.urls import Redirect, Rewrite

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf

PATH = "docker/registry/v2/blobs/sha256/ab/ab+c d/data"
QUOTED = "docker/registry/v2/blobs/sha256/ab/ab%2Bc%20d/data"


@implementer(IPresigner)
class Bucket(MemoryDriver):
    """A store with URLs."""

    closed = False

    def presign(self, path, method, expires, client=""):
        return succeed(f"http://bucket.internal:9000/images/root/{method}?{expires}&x=%2F#{client}")

    def close(self):
        self.closed = True
        return super().close()


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_000_000.7)
    return clock


@pytest.fixture
def bucket(clock):
    return Bucket(clock)


def url_of(driver, path=PATH, method="GET", client="192.0.2.1"):
    verifyObject(IStorageDriver, driver)
    presigner = IPresigner(driver)
    verifyObject(IPresigner, presigner)
    return result_of(presigner.presign(path, method, 60, client))


@pytest.fixture(params=["redirect", "rewrite", "cloudfront"])
def wrapped(request, bucket, clock):
    return {
        "redirect": lambda: Redirect(bucket, "https://mirror.example"),
        "rewrite": lambda: Rewrite(bucket, "https"),
        "cloudfront": lambda: CloudFront(bucket, clock, "x.example", SIGNER),
    }[request.param]()


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SIGNER = CloudFrontSigner("K2JCJMDEHXQW5F", KEY)


def test_other_calls_are_passed_to_the_driver(wrapped, bucket):
    assert wrapped.name == "inmemory"
    assert wrapped.min_chunk_bytes == 0
    result_of(wrapped.put("a/b", b"content"))
    assert result_of(bucket.get("a/b", 10)) == b"content"
    assert [entry.path for entry in result_of(wrapped.list("a"))] == ["b"]
    assert IBulkLookup(wrapped) is bucket
    assert IFolders(wrapped) is bucket
    assert ILeftovers(wrapped, None) is None
    assert IStorageDriver(wrapped) is wrapped
    result_of(wrapped.close())
    assert bucket.closed


def test_urls_are_for_get_and_head(wrapped):
    assert url_of(wrapped, method="HEAD")
    failure_of(wrapped.presign("a", "PUT", 60), MethodUnsupported)


def test_checked_driver_around_middleware(wrapped, clock):
    guarded = CheckedDriver(wrapped, clock)
    assert url_of(guarded, "a/b") == url_of(wrapped, "a/b")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://mirror.example", "https://mirror.example/"),
        ("https://mirror.example/", "https://mirror.example/"),
        ("http://mirror.example:81/images//", "http://mirror.example:81/images/"),
    ],
)
def test_redirect(bucket, base, expected):
    assert url_of(Redirect(bucket, base)) == f"{expected}{QUOTED}"


def test_redirect_needs_no_urls_of_the_driver(clock):
    driver = Redirect(MemoryDriver(clock), "https://mirror.example")
    assert url_of(driver, "a") == "https://mirror.example/a"


@pytest.mark.parametrize(
    "base",
    ["", "mirror.example", "https://", "ftp://mirror.example", "https://m/?x", "https://m/#x"],
)
def test_redirect_refuses_invalid_bases(bucket, base):
    with pytest.raises(ValueError, match=r"is not an http|has a query"):
        Redirect(bucket, base)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "http://bucket.internal:9000/images/root/GET"),
        ({"scheme": "https"}, "https://bucket.internal:9000/images/root/GET"),
        ({"host": "images.example:8443"}, "http://images.example:8443/images/root/GET"),
        ({"trim": "/images"}, "http://bucket.internal:9000/root/GET"),
        ({"trim": "/images/"}, "http://bucket.internal:9000/root/GET"),
        ({"trim": "/other"}, "http://bucket.internal:9000/images/root/GET"),
        (
            {"scheme": "https", "host": "images.example", "trim": "/images/root"},
            "https://images.example/GET",
        ),
    ],
)
def test_rewrite(bucket, options, expected):
    assert url_of(Rewrite(bucket, **options)) == f"{expected}?60&x=%2F#192.0.2.1"


def test_rewrite_needs_urls_of_the_driver(clock):
    driver = Rewrite(MemoryDriver(clock), "https")
    assert IPresigner(driver, None) is None
    failure_of(driver.presign("a", "GET", 60), MethodUnsupported)


def test_middleware_around_middleware(bucket):
    driver = Rewrite(Redirect(bucket, "http://mirror.example/x"), "https", trim="/x")
    assert url_of(driver, "a") == "https://mirror.example/a"


def check_signed_url(url, resource, expires):
    """Check a signed URL and its signature."""
    found, _, query = url.partition("?")
    assert found == resource
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    assert list(fields) == ["Expires", "Signature", "Key-Pair-Id"]
    assert fields["Key-Pair-Id"] == "K2JCJMDEHXQW5F"
    assert int(fields["Expires"]) == expires
    assert not set(query.partition("Signature=")[2].partition("&")[0]) & set("+=/%")
    signature = base64.b64decode(fields["Signature"].translate(str.maketrans("-_~", "+=/")))
    policy = json.dumps(
        {
            "Statement": [
                {
                    "Resource": resource,
                    "Condition": {"DateLessThan": {"AWS:EpochTime": expires}},
                }
            ]
        },
        separators=(",", ":"),
    )
    KEY.public_key().verify(signature, policy.encode(), padding.PKCS1v15(), hashes.SHA1())


@pytest.mark.parametrize(
    ("base", "root", "expected"),
    [
        ("d1.cloudfront.net", "", "https://d1.cloudfront.net/"),
        ("https://d1.cloudfront.net/", "/", "https://d1.cloudfront.net/"),
        ("http://images.example/x", "/registry root/", "http://images.example/x/registry%20root/"),
    ],
)
def test_cloudfront_signs_urls_with_base_and_root(bucket, clock, base, root, expected):
    driver = CloudFront(bucket, clock, base, SIGNER, root=root)
    check_signed_url(url_of(driver), f"{expected}{QUOTED}", 1_001_200)


def test_cloudfront_duration(bucket, clock):
    driver = CloudFront(bucket, clock, "d1.cloudfront.net", SIGNER, duration_s=60.0)
    check_signed_url(url_of(driver, "a"), "https://d1.cloudfront.net/a", 1_000_060)


class FakeClients(set):
    closed = False

    def close(self):
        self.closed = True
        return succeed(None)


def test_clients_inside_aws_are_sent_to_the_bucket(bucket, clock):
    inside = FakeClients({"192.0.2.1"})
    driver = CloudFront(bucket, clock, "d1.cloudfront.net", SIGNER, inside=inside)
    assert urlsplit(url_of(driver, client="192.0.2.1")).hostname == "bucket.internal"
    for client in ("192.0.2.2", ""):
        assert urlsplit(url_of(driver, client=client)).hostname == "d1.cloudfront.net"
    result_of(driver.close())
    assert inside.closed
    assert bucket.closed


def pem(key, form, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM, form, encryption or serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8]
)
def test_formats_of_private_keys(form):
    signer = CloudFrontSigner.load("K2JCJMDEHXQW5F", pem(KEY, form))
    check_signed_url(signer.sign("https://x/a", 5), "https://x/a", 5)
    assert "key" not in repr(signer).replace("key_pair", "")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not a private key"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\n", "not a private"),
        (
            pem(
                KEY,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            ),
            "without a password",
        ),
        (
            pem(ec.generate_private_key(ec.SECP256R1()), serialization.PrivateFormat.PKCS8),
            "not an RSA key",
        ),
    ],
    ids=["empty", "broken", "encrypted", "elliptic"],
)
def test_invalid_private_keys(content, text):
    with pytest.raises(ValueError, match=text):
        CloudFrontSigner.load("K", content)
