from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qsl, urlsplit

import pytest
from s3doubles import (
    NOW,
    Agent,
    Response,
    Sink,
    endless,
    failure_of,
    make_client,
    no_result,
    refusal,
    result_of,
    xml,
)
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_registry.storage.s3.address import custom
from twisted_registry.storage.s3.documents import parse
from twisted_registry.storage.s3.errors import (
    Corrupt,
    Denied,
    InvalidPart,
    NoSuchBucket,
    NoSuchUpload,
    NotFound,
    PreconditionFailed,
    RangeUnsatisfiable,
    S3Error,
    Unreachable,
    Unsupported,
)
from twisted_registry.storage.s3.interfaces import IObjectBody, IS3Client
from twisted_registry.storage.s3.objects import (
    DeleteFault,
    MultipartUpload,
    ObjectInfo,
    Part,
)
from twisted_registry.storage.s3.storing import Storing

ETAG = "5d41402abc4b2a76b9719d911017c592"
DATE = "Fri, 24 May 2013 00:00:00 GMT"
TYPE = {"content-type": "application/octet-stream"}


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW)
    yield clock
    assert clock.getDelayedCalls() == []


@pytest.fixture
def agent():
    return Agent()


@pytest.fixture
def client(clock, agent):
    client = make_client(clock, agent)
    verifyObject(IS3Client, client)
    return client


def asked(request):
    """The method, path and query of a request, and the headers that say something of it."""
    parts = urlsplit(request.url)
    assert parts.netloc == "objects:9000"
    usual = {"host", "user-agent", "authorization", "x-amz-date", "x-amz-content-sha256"}
    headers = {name: value for name, value in request.headers.items() if name not in usual}
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    assert {*signed.split(";")} == {*request.headers} - {"user-agent", "authorization"}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return request.method, parts.path.removeprefix("/images"), query, headers


# Objects.


def test_the_bucket(client, agent):
    assert client.bucket == "images"
    agent.answers = [xml("ListBucketResult"), refusal(404, "NoSuchBucket")]
    assert result_of(client.head_bucket("registry/")) is None
    assert asked(agent.last) == (
        "GET", "", {"list-type": "2", "encoding-type": "url", "prefix": "registry/",
        "max-keys": "1"}, {},
    )  # fmt: skip
    failure_of(client.head_bucket(), NoSuchBucket)


def test_head(client, agent):
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
def test_head_without_a_time(client, agent, modified):
    agent.answers = [Response(200, {"content-length": "5", "last-modified": modified})]
    assert result_of(client.head_object("a")) == ObjectInfo("a", 5, "")


def test_head_of_nothing(client, agent):
    agent.answers = [Response(404)]
    failure_of(client.head_object("a"), NotFound)


def test_head_without_a_size(client, agent, clock):
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
def test_get(client, agent, offset, length, asks, answers, status):
    body = bytes(range(100))[offset : None if length is None else offset + length]
    headers = {"etag": ETAG, "last-modified": DATE, "content-range": answers}
    agent.answers = [Response(status, headers, body)]
    found = result_of(client.get_object("a", offset, length))
    verifyObject(IObjectBody, found)
    assert asked(agent.last) == ("GET", "/a", {}, {"range": asks} if asks else {})
    assert found.info == ObjectInfo("a", 100, ETAG, NOW * 10**9)
    assert found.length == len(body)
    sink = Sink()
    assert result_of(found.deliver(sink)) is None
    assert sink.content == body


def test_get_what_it_was(client, agent):
    agent.answers = [refusal(412, "PreconditionFailed")]
    failure_of(client.get_object("a", etag=ETAG), PreconditionFailed)
    assert asked(agent.last)[3] == {"if-match": f'"{ETAG}"'}


def test_get_behind_the_end(client, agent):
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
def test_another_stretch_than_that_is_not_taken(client, agent, status, told, size):
    answer = Response(status, {"content-range": told}, b"x" * size, whole=False)
    agent.answers = [answer]
    failure_of(client.get_object("a", 20, 10), Corrupt)
    assert answer.connection.dropped


def test_a_body_of_unknown_length_is_not_taken(client, agent, clock):
    answer = endless()
    agent.answers = [answer, Response(body=b"hello")]
    getting = client.get_object("a")
    assert answer.connection.dropped
    clock.advance(1)
    assert result_of(result_of(getting).collect()) == b"hello"


def test_a_body_that_nobody_wants(client, agent):
    answer = endless(length=10)
    agent.answers = [answer]
    result_of(client.get_object("a")).close()
    assert answer.connection.dropped


def test_a_body_that_breaks_off(client, agent):
    answer = endless(length=10)
    agent.answers = [answer]
    collecting = result_of(client.get_object("a")).collect()
    answer.send(b"hello")
    answer.cut()
    failure_of(collecting, Unreachable)


def test_read(client, agent):
    agent.answers = [Response(200, {"etag": ETAG}, b"hello")]
    assert result_of(client.read_object("a", 5)) == (ObjectInfo("a", 5, ETAG), b"hello")


def test_reading_begins_anew_where_an_answer_broke_off(client, agent, clock):
    broken = endless(length=5)
    agent.answers = [broken, Response(body=b"hello")]
    reading = client.read_object("a", 5)
    broken.send(b"he")
    broken.cut()
    clock.advance(1)
    assert result_of(reading)[1] == b"hello"


@pytest.mark.parametrize("length", [6, None])
def test_reading_too_much(client, agent, length):
    answer = endless(length=length)
    agent.answers = [answer]
    reading = client.read_object("a", 5)
    if length is None:
        answer.send(b"123456")
    error = failure_of(reading, S3Error).value
    assert error.code == ("EntityTooLarge" if length else "")
    assert answer.connection.dropped


def test_put(client, agent):
    agent.answers = [Response(200, {"etag": f'"{ETAG}"'})]
    assert result_of(client.put_object("a", [b"hel", b"lo"])) == ETAG
    assert asked(agent.last) == ("PUT", "/a", {}, TYPE)
    assert agent.last.sent == b"hello"


def test_put_more(client, agent):
    agent.answers = [Response(), refusal(412, "PreconditionFailed"), refusal(501, "NotImplemented")]
    result_of(client.put_object("a", b"x", sha256="abc", absent=True, note="n"))
    assert asked(agent.last)[3] == {
        **TYPE,
        "if-none-match": "*",
        "x-amz-meta-twisted-registry": "n",
    }
    assert agent.last.headers["x-amz-content-sha256"] == "abc"
    failure_of(client.put_object("a", b"x", absent=True), PreconditionFailed)
    failure_of(client.put_object("a", b"x", absent=True), Unsupported)


@pytest.mark.parametrize(
    ("storing", "expected"),
    [
        (Storing(), {}),
        (Storing(key_id="k"), {}),
        (Storing(encrypt=True), {"x-amz-server-side-encryption": "AES256"}),
        (
            Storing(encrypt=True, key_id="k"),
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "k",
            },
        ),
        (Storing(storage_class="STANDARD_IA"), {"x-amz-storage-class": "STANDARD_IA"}),
        (Storing(acl="private"), {"x-amz-acl": "private"}),
    ],
)
def test_how_objects_are_kept(clock, storing, expected):
    agent = Agent(
        Response(),
        xml("CopyObjectResult"),
        xml("InitiateMultipartUploadResult", "<UploadId>U</UploadId>"),
        Response(),
    )
    client = make_client(clock, agent, storing)
    result_of(client.put_object("a", b"x"))
    result_of(client.copy_object("a", "b"))
    result_of(client.create_multipart_upload("a"))
    copying = {"x-amz-copy-source": "images/a"}
    assert [asked(request)[3] for request in agent.requests] == [
        {**TYPE, **expected},
        {**TYPE, **expected, **copying},
        {**TYPE, **expected},
    ]
    # A part is kept as its upload is.
    result_of(client.upload_part("a", "U", 1, b"x"))
    assert asked(agent.last)[3] == {}


def test_delete(client, agent):
    agent.answers = [Response(204), refusal(404, "NoSuchKey"), refusal(403, "AccessDenied")]
    assert result_of(client.delete_object("a")) is None
    assert asked(agent.last) == ("DELETE", "/a", {}, {})
    assert result_of(client.delete_object("a")) is None
    failure_of(client.delete_object("a"), Denied)


def keys_of(request):
    return [item.text("Key") for item in parse(request.sent).all("Object")]


def deleted(*faults):
    return xml(
        "DeleteResult",
        "".join(
            f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"
            for key, code in faults
        ),
    )


def test_delete_many(client, agent):
    keys = [f"k{number}" for number in range(2001)]
    agent.answers = [deleted(), deleted(("k1000", "AccessDenied")), deleted()]
    assert result_of(client.delete_objects(keys)) == [DeleteFault("k1000", "AccessDenied", "no")]
    assert [keys_of(request) for request in agent.requests] == [
        keys[:1000], keys[1000:2000], keys[2000:],
    ]  # fmt: skip
    digest = base64.b64encode(hashlib.md5(agent.last.sent).digest()).decode()
    assert asked(agent.last) == (
        "POST", "", {"delete": ""}, {"content-md5": digest, "content-type": "application/xml"},
    )  # fmt: skip


def test_delete_nothing(client, agent):
    assert result_of(client.delete_objects([])) == []
    assert agent.requests == []


def test_what_was_not_there_is_no_fault(client, agent):
    agent.answers = [deleted(("a", "NoSuchKey"))]
    assert result_of(client.delete_objects(["a"])) == []


def test_what_the_store_was_too_busy_for_is_deleted_later(client, agent, clock):
    agent.answers = [
        deleted(("a", "SlowDown"), ("b", "AccessDenied"), ("c", "InternalError")),
        deleted(("c", "SlowDown")),
        deleted(),
    ]
    deleting = client.delete_objects(["a", "b", "c", "d"])
    no_result(deleting)
    clock.advance(1)
    no_result(deleting)
    clock.advance(2)
    assert result_of(deleting) == [DeleteFault("b", "AccessDenied", "no")]
    assert [keys_of(request) for request in agent.requests] == [
        ["a", "b", "c", "d"], ["a", "c"], ["c"],
    ]  # fmt: skip


def test_what_the_store_stays_too_busy_for(client, agent, clock):
    agent.answers = [deleted(("a", "SlowDown")) for _ in range(4)]
    deleting = client.delete_objects(["a"])
    for wait in (1, 2, 4):
        clock.advance(wait)
    assert result_of(deleting) == [DeleteFault("a", "SlowDown", "no")]


def test_all_batches_are_tried(client, agent):
    agent.answers = [
        refusal(403, "AccessDenied"), deleted(), refusal(501, "NotImplemented"),
    ]  # fmt: skip
    failure_of(client.delete_objects([f"k{number}" for number in range(3000)]), Denied)
    assert len(agent.requests) == 3


def test_copy(client, agent):
    agent.answers = [xml("CopyObjectResult", f"<ETag>&quot;{ETAG}&quot;</ETag>")]
    assert result_of(client.copy_object("ü b/c", "d", etag="e")) == ETAG
    assert asked(agent.last) == (
        "PUT", "/d", {}, {**TYPE, "x-amz-copy-source": "images/%C3%BC%20b/c",
        "x-amz-copy-source-if-match": '"e"'},
    )  # fmt: skip


def test_a_copy_that_fails_after_it_was_answered(client, agent, clock):
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
def test_answers_that_are_not_what_was_asked_for(client, agent, clock, body, attempts):
    agent.answers = [Response(body=body) for _ in range(attempts)]
    copying = client.copy_object("a", "b")
    for _ in range(attempts):
        clock.advance(2)
    failure_of(copying, Corrupt)
    assert agent.answers == []


# Listings.

CONTENTS = (
    "<Contents><Key>{}</Key><LastModified>2013-05-24T00:00:00.500Z</LastModified>"
    f"<ETag>&quot;{ETAG}&quot;</ETag><Size>7</Size></Contents>"
)


def test_list(client, agent):
    agent.answers = [
        xml(
            "ListBucketResult",
            "<EncodingType>url</EncodingType><Prefix>x%2F</Prefix><IsTruncated>true</IsTruncated>"
            "<NextContinuationToken>to/ken+</NextContinuationToken>"
            + CONTENTS.format("x%2Fa+b")
            + "<CommonPrefixes><Prefix>x%2Fc%2F</Prefix></CommonPrefixes>",
        )
    ]
    listing = result_of(client.list_objects("x/", delimiter="/", after="x/a", limit=2))
    assert listing.objects == (ObjectInfo("x/a b", 7, ETAG, NOW * 10**9 + 500_000_000),)
    assert listing.prefixes == ("x/c/",)
    assert listing.token == "to/ken+"
    assert asked(agent.last) == (
        "GET", "", {"list-type": "2", "encoding-type": "url", "prefix": "x/", "delimiter": "/",
        "start-after": "x/a", "max-keys": "2"}, {},
    )  # fmt: skip


def test_list_on(client, agent):
    agent.answers = [
        xml(
            "ListBucketResult",
            "<IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken>",
        )
    ]
    listing = result_of(client.list_objects("", after="a", token="to/ken+"))
    assert (listing.objects, listing.prefixes, listing.token) == ((), (), "")
    assert asked(agent.last)[2] == {
        "list-type": "2",
        "encoding-type": "url",
        "continuation-token": "to/ken+",
        "max-keys": "1000",
    }


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2013-05-24T00:00:00Z", NOW * 10**9),
        ("2013-05-24T00:00:00.000Z", NOW * 10**9),
        ("2013-05-24T00:00:00.123456789Z", NOW * 10**9 + 123456789),
        ("2013-05-24T00:00:00.1234567891Z", NOW * 10**9 + 123456789),
        ("yesterday", None),
        ("2013-05-24T00:00:00.xZ", None),
        ("", None),
    ],
)
def test_times_in_listings(client, agent, time, expected):
    item = f"<Contents><Key>a</Key><Size>1</Size><LastModified>{time}</LastModified></Contents>"
    agent.answers = [xml("ListBucketResult", item)]
    (found,) = result_of(client.list_objects("")).objects
    assert found == ObjectInfo("a", 1, "", expected)


def test_a_listing_without_sizes(client, agent, clock):
    agent.answers = [xml("ListBucketResult", "<Contents><Key>a</Key></Contents>")]
    agent.answers.append(xml("ListBucketResult"))
    listing = client.list_objects("")
    clock.advance(1)
    assert result_of(listing).objects == ()


# Uploads.


def test_create(client, agent, clock):
    agent.answers = [
        xml("InitiateMultipartUploadResult", "<UploadId>U/1</UploadId>"),
        xml("InitiateMultipartUploadResult"),
        xml("InitiateMultipartUploadResult", "<UploadId>U2</UploadId>"),
    ]
    assert result_of(client.create_multipart_upload("a")) == "U/1"
    assert asked(agent.last) == ("POST", "/a", {"uploads": ""}, TYPE)
    creating = client.create_multipart_upload("a")
    clock.advance(1)
    assert result_of(creating) == "U2"


def test_upload_part(client, agent):
    agent.answers = [Response(200, {"etag": f'"{ETAG}"'})]
    part = result_of(client.upload_part("a", "U/1", 7, [b"hel", b"lo"], sha256="abc"))
    assert part == Part(7, ETAG, 5)
    assert asked(agent.last) == ("PUT", "/a", {"partNumber": "7", "uploadId": "U/1"}, {})
    assert agent.last.sent == b"hello"
    assert agent.last.headers["x-amz-content-sha256"] == "abc"


@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey", ""])
def test_uploads_that_are_over(client, agent, code):
    agent.answers = [refusal(404, code) for _ in range(4)]
    failure_of(client.upload_part("a", "U", 1, b"x"), NoSuchUpload)
    failure_of(client.list_parts("a", "U"), NoSuchUpload)
    error = failure_of(client.complete_multipart_upload("a", "U", []), NoSuchUpload).value
    assert error.code == code
    assert result_of(client.abort_multipart_upload("a", "U")) is None
    assert asked(agent.last) == ("DELETE", "/a", {"uploadId": "U"}, {})


def test_upload_part_copy(client, agent):
    agent.answers = [xml("CopyPartResult", f"<ETag>{ETAG}</ETag>") for _ in range(2)]
    assert result_of(client.upload_part_copy("a", "U", 2, "b c")) == ETAG
    source = {"x-amz-copy-source": "images/b%20c"}
    assert asked(agent.last) == ("PUT", "/a", {"partNumber": "2", "uploadId": "U"}, source)
    assert result_of(client.upload_part_copy("a", "U", 2, "b c", (5, 10), etag="e")) == ETAG
    assert asked(agent.last)[3] == {
        **source,
        "x-amz-copy-source-range": "bytes=5-14",
        "x-amz-copy-source-if-match": '"e"',
    }


def test_a_part_whose_source_is_missing(client, agent):
    agent.answers = [refusal(404, "NoSuchKey"), refusal(404, "NoSuchUpload")]
    missing = failure_of(client.upload_part_copy("a", "U", 2, "b"), NotFound).value
    assert not isinstance(missing, NoSuchUpload)
    failure_of(client.upload_part_copy("a", "U", 2, "b"), NoSuchUpload)


PARTS = [Part(1, "e1", 5), Part(2, "e2", 3)]


def completed(etag="made-2"):
    return xml("CompleteMultipartUploadResult", f"<ETag>{etag}</ETag>")


def test_complete(client, agent):
    agent.answers = [completed()]
    assert result_of(client.complete_multipart_upload("a", "U", PARTS)) == "made-2"
    assert asked(agent.last) == (
        "POST", "/a", {"uploadId": "U"}, {"content-type": "application/xml"},
    )  # fmt: skip
    sent = [
        (part.text("PartNumber"), part.text("ETag")) for part in parse(agent.last.sent).all("Part")
    ]
    assert sent == [("1", '"e1"'), ("2", '"e2"')]


@pytest.mark.parametrize("code", ["InvalidPart", "InvalidPartOrder", "EntityTooSmall"])
@pytest.mark.parametrize("status", [200, 400])
def test_parts_that_do_not_fit(client, agent, code, status):
    agent.answers = [refusal(status, code)]
    failure_of(client.complete_multipart_upload("a", "U", PARTS), InvalidPart)


def test_completing_fails_after_it_was_answered(client, agent, clock):
    agent.answers = [refusal(200, "InternalError"), completed()]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    clock.advance(1)
    assert result_of(completing) == "made-2"


def test_completing_may_have_succeeded_without_an_answer(client, agent, clock):
    agent.answers = [
        ConnectError(),
        refusal(404, "NoSuchUpload"),
        Response(200, {"content-length": "8", "etag": '"made-2"'}),
    ]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    clock.advance(1)
    assert result_of(completing) == "made-2"
    assert asked(agent.last)[0] == "HEAD"


@pytest.mark.parametrize(
    "found",
    [
        Response(404),
        Response(200, {"content-length": "8", "etag": '"made-3"'}),
        Response(200, {"content-length": "9", "etag": '"made-2"'}),
    ],
    ids=["nothing", "other parts", "another size"],
)
def test_or_the_upload_may_be_over_for_another_reason(client, agent, clock, found):
    agent.answers = [ConnectError(), refusal(404, "NoSuchUpload"), found]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    clock.advance(1)
    failure_of(completing, NoSuchUpload)


def test_what_was_over_before_is_not_looked_for(client, agent):
    agent.answers = [refusal(404, "NoSuchUpload")]
    failure_of(client.complete_multipart_upload("a", "U", PARTS), NoSuchUpload)
    assert len(agent.requests) == 1


def test_completing_twice_on_ceph(client, agent):
    agent.answers = [completed(""), Response(200, {"content-length": "8", "etag": '"made-2"'})]
    assert result_of(client.complete_multipart_upload("a", "U", PARTS)) == "made-2"


def busy(count):
    return [refusal(500, "InternalError", "completion is in progress") for _ in range(count)]


def test_an_upload_that_is_over_on_ceph(client, agent, clock):
    agent.answers = [*busy(5), refusal(404, "NoSuchKey"), Response(404)]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    for _ in range(4):
        clock.advance(2)
    failure_of(completing, NoSuchUpload)
    assert [request.method for request in agent.requests] == ["POST"] * 5 + ["GET", "HEAD"]


def test_an_upload_that_is_not_over_in_spite_of_errors(client, agent, clock):
    agent.answers = [*busy(5), parts_page(1, "")]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    for _ in range(4):
        clock.advance(2)
    assert failure_of(completing, S3Error).value.code == "InternalError"


def test_list_uploads(client, agent):
    agent.answers = [
        xml(
            "ListMultipartUploadsResult",
            "<IsTruncated>true</IsTruncated><NextKeyMarker>x/b</NextKeyMarker>"
            "<NextUploadIdMarker>U2</NextUploadIdMarker>"
            "<Upload><Key>x/a%</Key><UploadId>U1</UploadId>"
            "<Initiated>2013-05-24T00:00:00.000Z</Initiated></Upload>"
            "<Upload><Key>x/b</Key><UploadId>U2</UploadId></Upload>",
        ),
        xml("ListMultipartUploadsResult", "<NextKeyMarker>x</NextKeyMarker>"),
    ]
    listing = result_of(client.list_multipart_uploads("x/", limit=2))
    assert listing.uploads == (
        MultipartUpload("x/a%", "U1", NOW * 10**9),
        MultipartUpload("x/b", "U2"),
    )
    assert listing.marker == ("x/b", "U2")
    assert asked(agent.last) == (
        "GET", "", {"uploads": "", "prefix": "x/", "max-uploads": "2"}, {},
    )  # fmt: skip
    last = result_of(client.list_multipart_uploads("x/", marker=listing.marker))
    assert (last.uploads, last.marker) == ((), None)
    assert asked(agent.last)[2] == {
        "uploads": "",
        "prefix": "x/",
        "key-marker": "x/b",
        "upload-id-marker": "U2",
        "max-uploads": "1000",
    }


def parts_page(number, marker):
    more = f"<IsTruncated>true</IsTruncated><NextPartNumberMarker>{marker}</NextPartNumberMarker>"
    return xml(
        "ListPartsResult",
        f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;e{number}&quot;</ETag>"
        f"<Size>{number}0</Size></Part>{more if marker else ''}",
    )


def test_list_parts(client, agent):
    agent.answers = [parts_page(1, "1"), parts_page(2, "")]
    assert result_of(client.list_parts("a", "U")) == [Part(1, "e1", 10), Part(2, "e2", 20)]
    assert [asked(request)[2] for request in agent.requests] == [
        {"uploadId": "U"},
        {"uploadId": "U", "part-number-marker": "1"},
    ]


def test_a_listing_of_parts_that_turns_in_a_circle(client, agent):
    agent.answers = [parts_page(1, "1"), parts_page(1, "1")]
    failure_of(client.list_parts("a", "U"), Corrupt)


# The rest.


def test_presign(clock, client):
    url = result_of(client.presign("a", "GET", 60))
    assert url.startswith("http://objects:9000/images/a?")
    assert "X-Amz-Expires=60&" in url
    public = make_client(clock, Agent(), public=custom("images", "https://public"))
    assert result_of(public.presign("a", "HEAD", 60)).startswith("https://public/images/a?")


def test_close(client, agent):
    result_of(client.close())
    failure_of(client.head_object("a"), Unreachable)
    assert agent.requests == []
