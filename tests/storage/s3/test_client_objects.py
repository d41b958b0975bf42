"""Requests of the client for single objects, and how it reads the responses."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from tests.storage.s3.fake_agent import (
    DATE,
    ETAG,
    NOW,
    TYPE,
    Agent,
    Response,
    Sink,
    asked,
    endless,
    failure_of,
    make_client,
    no_result,
    refusal,
    result_of,
    xml,
)
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    InvalidResponse,
    NoSuchBucket,
    NotFound,
    PreconditionFailed,
    RangeUnsatisfiable,
    S3Error,
    Stalled,
    Unreachable,
    Unsupported,
)
from twisted_registry.storage.s3.interfaces import IObjectBody, ObjectInfo, ObjectOptions


def test_head_bucket(client, agent):
    assert client.bucket == "images"
    agent.answers = [xml("ListBucketResult"), refusal(404, "NoSuchBucket")]
    assert result_of(client.head_bucket("registry/")) is None
    assert asked(agent.last) == (
        "GET", "", {"list-type": "2", "encoding-type": "url", "prefix": "registry/",
        "max-keys": "1"}, {},
    )  # fmt: skip
    failure_of(client.head_bucket(), NoSuchBucket)


def test_head_object(client, agent):
    headers = {
        "content-length": "5",
        "etag": f'"{ETAG}"',
        "last-modified": DATE,
        "x-amz-meta-twisted-registry": "unfinished",
    }
    agent.answers = [Response(200, headers)]
    assert result_of(client.head_object("a b")) == ObjectInfo(
        "a b", 5, ETAG, NOW * 10**9, "unfinished"
    )
    assert asked(agent.last) == ("HEAD", "/a%20b", {}, {})


@pytest.mark.parametrize("modified", ["", "yesterday", "Fri, 24 Mai 2013 00:00:00 GMT"])
def test_head_object_without_a_valid_time(client, agent, modified):
    agent.answers = [Response(200, {"content-length": "5", "last-modified": modified})]
    assert result_of(client.head_object("a")) == ObjectInfo("a", 5, "")


def test_head_object_that_does_not_exist(client, agent):
    agent.answers = [Response(404)]
    failure_of(client.head_object("a"), NotFound)


def test_head_object_without_a_size_is_retried(client, agent, clock):
    agent.answers = [Response(200), Response(200, {"content-length": "5"})]
    asking = client.head_object("a")
    clock.advance(1)
    assert result_of(asking).size == 5


@pytest.mark.parametrize(
    ("offset", "length", "asks", "answers", "status"),
    [
        (0, None, None, "", 200),
        (0, 10, "bytes=0-9", "bytes 0-9/100", 206),
        (90, None, "bytes=90-", "bytes 90-99/100", 206),
        (90, 10, "bytes=90-99", "bytes 90-99/100", 206),
        (90, 50, "bytes=90-139", "bytes 90-99/100", 206),
        (0, 200, "bytes=0-199", "bytes 0-99/100", 206),
    ],
)
def test_get_object_and_ranges(client, agent, offset, length, asks, answers, status):
    body = bytes(range(100))[offset : None if length is None else offset + length]
    headers = {"etag": ETAG, "last-modified": DATE, "content-range": answers}
    agent.answers = [Response(status, headers, body)]
    found = result_of(client.get_object("a", offset, length))
    verifyObject(IObjectBody, found)
    assert asked(agent.last) == ("GET", "/a", {}, {"range": asks} if asks else {})
    assert found.info == ObjectInfo("a", 100, ETAG, NOW * 10**9)
    sink = Sink()
    assert result_of(found.deliver(sink)) is None
    assert sink.content == body


def test_get_object_with_another_etag(client, agent):
    agent.answers = [refusal(412, "PreconditionFailed")]
    failure_of(client.get_object("a", etag=ETAG), PreconditionFailed)
    assert asked(agent.last)[3] == {"if-match": f'"{ETAG}"'}


def test_get_object_after_the_end(client, agent):
    agent.answers = [refusal(416, "InvalidRange")]
    failure_of(client.get_object("a", 100), RangeUnsatisfiable)


@pytest.mark.parametrize(
    ("status", "told", "size"),
    [
        (200, "", 100),
        (206, "", 10),
        (206, "bytes 20-29/*", 10),
        (206, "bytes 21-30/100", 10),
        (206, "bytes 20-30/100", 11),
        (206, "bytes 20-28/100", 9),
        (206, "bytes 20-29/100", 9),
        (206, "bytes 20-29/25", 10),
    ],
)
def test_get_object_refuses_another_range(client, agent, status, told, size):
    answer = Response(status, {"content-range": told}, b"x" * size, whole=False)
    agent.answers = [answer]
    failure_of(client.get_object("a", 20, 10), InvalidResponse)
    assert answer.connection.dropped


def test_get_object_without_a_length_is_retried(client, agent, clock):
    answer = endless()
    agent.answers = [answer, Response(body=b"hello")]
    getting = client.get_object("a")
    assert answer.connection.dropped
    clock.advance(1)
    assert result_of(result_of(getting).collect(5)) == b"hello"


def test_closing_a_body_drops_the_connection(client, agent):
    answer = endless(length=10)
    agent.answers = [answer]
    result_of(client.get_object("a")).close()
    assert answer.connection.dropped


def test_lost_connection_fails_the_body(client, agent):
    answer = endless(length=10)
    agent.answers = [answer]
    collecting = result_of(client.get_object("a")).collect(10)
    answer.send(b"hello")
    answer.cut()
    failure_of(collecting, Unreachable)


def test_read_object(client, agent):
    agent.answers = [Response(200, {"etag": ETAG}, b"hello")]
    assert result_of(client.read_object("a", 5)) == (ObjectInfo("a", 5, ETAG), b"hello")


def test_read_object_retries_a_truncated_response(client, agent, clock):
    broken = endless(length=5)
    agent.answers = [broken, Response(body=b"hello")]
    reading = client.read_object("a", 5)
    broken.send(b"he")
    broken.cut()
    clock.advance(1)
    assert result_of(reading)[1] == b"hello"


def arriving(*contents, etag=ETAG, **headers):
    return [Response(200, {"etag": etag, **headers}, content) for content in contents]


def reads(client, clock, agent):
    """Read an object; return its content and the number of requests."""
    before = len(agent.requests)
    reading = client.read_object("a", 100)
    while not reading.called:
        clock.advance(0.1)
    return result_of(reading)[1], len(agent.requests) - before


def test_read_object_repeats_a_content_that_was_damaged_on_its_way(client, agent, clock):
    agent.answers = arriving(b"jello", b"hellp", b"hello")
    assert reads(client, clock, agent) == (b"hello", 3)


def test_read_object_fails_if_each_content_is_damaged(client, agent, clock):
    agent.answers = arriving(b"a", b"b", b"c", b"d", b"e")
    reading = client.read_object("a", 100)
    for _ in range(5):
        clock.advance(2)
    assert "MD5" in str(failure_of(reading, InvalidResponse).value)


def test_read_object_returns_what_arrives_twice(client, agent, clock):
    """Some stores have ETags of another kind: they are known after some objects."""
    other = "0" * 32
    agent.answers = arriving(*[b"hello"] * 18, etag=other)
    counts = [reads(client, clock, agent)[1] for _ in range(10)]
    assert counts == [2] * 8 + [1] * 2


def test_read_object_keeps_comparing_in_a_store_with_such_etags(client, agent, clock):
    agent.answers = arriving(b"hello")
    assert reads(client, clock, agent) == (b"hello", 1)
    for _ in range(10):
        agent.answers = arriving(b"jello", b"jello")
        assert reads(client, clock, agent) == (b"jello", 2)


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (f"{ETAG}-2", {}),
        ("", {}),
        (ETAG, {"x-amz-server-side-encryption": "aws:kms"}),
    ],
)
def test_read_object_compares_no_other_etags(client, agent, clock, etag, headers):
    agent.answers = arriving(b"jello", etag=etag, **headers)
    assert reads(client, clock, agent) == (b"jello", 1)


@pytest.mark.parametrize("length", [6, None])
def test_read_object_above_the_limit(client, agent, length):
    answer = endless(length=length)
    agent.answers = [answer]
    reading = client.read_object("a", 5)
    if length is None:
        answer.send(b"123456")
    error = failure_of(reading, S3Error).value
    assert error.code == ("EntityTooLarge" if length else "")
    assert answer.connection.dropped


def test_put_object(client, agent):
    agent.answers = [Response(200, {"etag": f'"{ETAG}"'})]
    assert result_of(client.put_object("a", [b"hel", b"lo"])) == ETAG
    assert asked(agent.last) == ("PUT", "/a", {}, TYPE)
    assert agent.last.sent == b"hello"


def test_put_object_with_digest_condition_and_metadata(client, agent):
    agent.answers = [Response(), refusal(412, "PreconditionFailed"), refusal(501, "NotImplemented")]
    result_of(client.put_object("a", b"x", sha256="abc", if_none_match=True, metadata="n"))
    assert asked(agent.last)[3] == {
        **TYPE,
        "if-none-match": "*",
        "x-amz-meta-twisted-registry": "n",
    }
    assert agent.last.headers["x-amz-content-sha256"] == "abc"
    failure_of(client.put_object("a", b"x", if_none_match=True), PreconditionFailed)
    failure_of(client.put_object("a", b"x", if_none_match=True), Unsupported)


@pytest.mark.parametrize(
    ("object_options", "expected"),
    [
        (ObjectOptions(), {}),
        (ObjectOptions(key_id="k"), {}),
        (ObjectOptions(encrypt=True), {"x-amz-server-side-encryption": "AES256"}),
        (
            ObjectOptions(encrypt=True, key_id="k"),
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "k",
            },
        ),
        (ObjectOptions(storage_class="STANDARD_IA"), {"x-amz-storage-class": "STANDARD_IA"}),
        (ObjectOptions(acl="private"), {"x-amz-acl": "private"}),
    ],
)
def test_object_options_are_sent_with_each_new_object(clock, object_options, expected):
    agent = Agent(
        Response(),
        xml("CopyObjectResult"),
        xml("InitiateMultipartUploadResult", "<UploadId>U</UploadId>"),
        Response(),
    )
    client = make_client(clock, agent, object_options)
    result_of(client.put_object("a", b"x"))
    result_of(client.copy_object("a", "b"))
    result_of(client.create_multipart_upload("a"))
    copying = {"x-amz-copy-source": "images/a"}
    assert [asked(request)[3] for request in agent.requests] == [
        {**TYPE, **expected},
        {**TYPE, **expected, **copying},
        {**TYPE, **expected},
    ]
    # A part has the options of its upload.
    result_of(client.upload_part("a", "U", 1, b"x"))
    assert asked(agent.last)[3] == {}


def test_delete_object(client, agent):
    agent.answers = [Response(204), refusal(404, "NoSuchKey"), refusal(403, "AccessDenied")]
    assert result_of(client.delete_object("a")) is None
    assert asked(agent.last) == ("DELETE", "/a", {}, {})
    assert result_of(client.delete_object("a")) is None
    failure_of(client.delete_object("a"), AccessDenied)


def test_copy_object(client, agent):
    agent.answers = [xml("CopyObjectResult", f"<ETag>&quot;{ETAG}&quot;</ETag>")]
    assert result_of(client.copy_object("ü b/c", "d")) == ETAG
    assert asked(agent.last) == (
        "PUT", "/d", {}, {**TYPE, "x-amz-copy-source": "images/%C3%BC%20b/c"},
    )  # fmt: skip


def test_copies_have_time_while_the_store_responds_to_others(client, agent, clock):
    """Ten minutes, or what they take at two MiB per second: some stores respond at the end only."""
    for seconds, copy in [
        (600, lambda: client.copy_object("a", "b", size=200 * 2**20)),
        (1000, lambda: client.upload_part_copy("b", "U", 1, "a", size=2000 * 2**20)),
    ]:
        copying = copy()
        for _ in range(seconds - 1):
            clock.advance(1)
            if agent.last.method == "DELETE" and not agent.last.answer.called:
                agent.last.answer.callback(Response(204))
        no_result(copying)
        clock.advance(1)
        failure_of(copying, Stalled)
        clock.advance(10)


def test_error_in_a_successful_copy_response(client, agent, clock):
    agent.answers = [
        xml("Error", "<Code>InternalError</Code>"),
        xml("CopyObjectResult", f"<ETag>{ETAG}</ETag>"),
    ]
    copying = client.copy_object("a", "b")
    no_result(copying)
    clock.advance(1)
    assert result_of(copying) == ETAG

    agent.answers = [xml("Error", "<Code>NoSuchKey</Code><Message>gone</Message>")]
    assert str(failure_of(client.copy_object("a", "b"), NotFound).value) == (
        "CopyObject images/b: gone (NoSuchKey, 200)"
    )


@pytest.mark.parametrize(
    ("body", "attempts"),
    [(b"", 5), (b"<CopyObjectResult>", 5), (b"<!DOCTYPE x><CopyObjectResult/>", 5),
     (b"<html><body/></html>", 1)],
)  # fmt: skip
def test_malformed_documents_are_invalid_responses(client, agent, clock, body, attempts):
    agent.answers = [Response(body=body) for _ in range(attempts)]
    copying = client.copy_object("a", "b")
    for _ in range(attempts):
        clock.advance(2)
    failure_of(copying, InvalidResponse)
    assert agent.answers == []


def test_presign(clock, client):
    url = result_of(client.presign("a", "GET", 60))
    assert url.startswith("http://objects:9000/images/a?")
    assert "X-Amz-Expires=60&" in url
    public = make_client(clock, Agent(), public=endpoint_address("images", "https://public"))
    assert result_of(public.presign("a", "HEAD", 60)).startswith("https://public/images/a?")


def test_closed_client_sends_nothing(client, agent):
    result_of(client.close())
    failure_of(client.head_object("a"), Unreachable)
    assert agent.requests == []
