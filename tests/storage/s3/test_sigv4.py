"""The signer, on the examples of the Amazon S3 API reference."""

from __future__ import annotations

import calendar
import hashlib

import pytest

from twisted_registry.storage.s3.credentials import Credentials
from twisted_registry.storage.s3.sigv4 import EMPTY_SHA256, Signer, encoded_path, encoded_query

NOW = calendar.timegm((2013, 5, 24, 0, 0, 0))
HOST = "examplebucket.s3.amazonaws.com"
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def signer(token=""):
    return Signer(Credentials(EXAMPLE.access_key, EXAMPLE.secret_key, token), "us-east-1")


@pytest.mark.parametrize(
    ("method", "path", "parameters", "headers", "payload", "names", "signature"),
    [
        (
            "GET",
            "/test.txt",
            [],
            {"range": "bytes=0-9"},
            b"",
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            [],
            {
                "date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
            },
            b"Welcome to Amazon S3.",
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            [("lifecycle", "")],
            {},
            b"",
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            [("prefix", "J"), ("max-keys", "2")],
            {},
            b"",
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_published_examples(method, path, parameters, headers, payload, names, signature):
    added = signer().headers(
        method,
        encoded_path(path),
        encoded_query(parameters),
        {"host": HOST, **headers},
        hashlib.sha256(payload).hexdigest(),
        NOW,
    )
    assert added["x-amz-date"] == "20130524T000000Z"
    assert added["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f" SignedHeaders={names}, Signature={signature}"
    )


def test_published_presigned_url():
    assert signer().query("GET", HOST, "/test.txt", [], 86400, NOW) == (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_paths_are_encoded_once():
    assert encoded_path("/a/../b//c d+e%2F~ü") == "/a/../b//c%20d%2Be%252F~%C3%BC"


def test_queries_are_sorted_by_their_encoding():
    assert encoded_query([("b", "/"), ("a", "2"), ("a", "1"), ("A", "")]) == "A=&a=1&a=2&b=%2F"


def test_session_token_is_signed():
    added = signer("session").headers("GET", "/", "", {"host": HOST}, EMPTY_SHA256, NOW)
    assert added["x-amz-security-token"] == "session"
    assert ";x-amz-security-token," in added["authorization"]
    assert "&X-Amz-Security-Token=session&" in signer("session").query("GET", HOST, "/", [], 1, NOW)


def test_signing_key_changes_with_the_day():
    kept, day = signer(), 24 * 3600
    for now in (NOW, NOW + day - 1, NOW + day, NOW):
        arguments = ("GET", "/", "", {"host": HOST}, EMPTY_SHA256, now)
        assert kept.headers(*arguments) == signer().headers(*arguments)


def test_repr_has_no_secrets():
    used = signer("session")
    used.headers("GET", "/", "", {"host": HOST}, EMPTY_SHA256, NOW)
    assert EXAMPLE.secret_key not in repr(used)
    assert "session" not in repr(used)
    assert " _key=" not in repr(used)
