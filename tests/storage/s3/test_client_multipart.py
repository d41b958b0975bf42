"""Multipart uploads of the client."""

from __future__ import annotations

import hashlib

import pytest
from twisted.internet.error import ConnectError

from tests.storage.s3.fake_agent import (
    ETAG,
    TYPE,
    Response,
    asked,
    failure_of,
    refusal,
    result_of,
    xml,
)
from twisted_registry.storage.s3.errors import (
    InvalidPart,
    InvalidResponse,
    NoSuchUpload,
    NotFound,
    S3Error,
)
from twisted_registry.storage.s3.interfaces import Part
from twisted_registry.storage.s3.xml import parse_xml


def test_create_multipart_upload(client, agent, clock):
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
    part = result_of(client.upload_part("a", "U/1", 7, [b"hel", b"lo"]))
    assert part == Part(7, ETAG, 5)
    assert asked(agent.last) == ("PUT", "/a", {"partNumber": "7", "uploadId": "U/1"}, {})
    assert agent.last.sent == b"hello"
    digest = hashlib.sha256(b"hello").hexdigest()
    assert agent.last.headers["x-amz-content-sha256"] == digest


@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey", ""])
def test_missing_upload_is_no_such_upload(client, agent, code):
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
    assert result_of(client.upload_part_copy("a", "U", 2, "b c", (5, 10))) == ETAG
    assert asked(agent.last)[3] == {**source, "x-amz-copy-source-range": "bytes=5-14"}


def test_missing_source_of_a_part_is_not_found(client, agent):
    agent.answers = [refusal(404, "NoSuchKey"), refusal(404, "NoSuchUpload")]
    missing = failure_of(client.upload_part_copy("a", "U", 2, "b"), NotFound).value
    assert not isinstance(missing, NoSuchUpload)
    failure_of(client.upload_part_copy("a", "U", 2, "b"), NoSuchUpload)


PARTS = [Part(1, "e1", 5), Part(2, "e2", 3)]


def completed(etag="made-2"):
    return xml("CompleteMultipartUploadResult", f"<ETag>{etag}</ETag>")


def test_complete_multipart_upload(client, agent):
    agent.answers = [completed()]
    assert result_of(client.complete_multipart_upload("a", "U", PARTS)) == "made-2"
    assert asked(agent.last) == (
        "POST", "/a", {"uploadId": "U"}, {"content-type": "application/xml"},
    )  # fmt: skip
    sent = [
        (part.text("PartNumber"), part.text("ETag"))
        for part in parse_xml(agent.last.sent).all("Part")
    ]
    assert sent == [("1", '"e1"'), ("2", '"e2"')]


@pytest.mark.parametrize("code", ["InvalidPart", "InvalidPartOrder", "EntityTooSmall"])
@pytest.mark.parametrize("status", [200, 400])
def test_invalid_parts(client, agent, code, status):
    agent.answers = [refusal(status, code)]
    failure_of(client.complete_multipart_upload("a", "U", PARTS), InvalidPart)


def test_transient_error_in_a_completion_response_is_retried(client, agent, clock):
    agent.answers = [refusal(200, "InternalError"), completed()]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    clock.advance(1)
    assert result_of(completing) == "made-2"


def test_completion_that_succeeded_without_a_response(client, agent, clock):
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
def test_missing_upload_after_a_lost_response(client, agent, clock, found):
    agent.answers = [ConnectError(), refusal(404, "NoSuchUpload"), found]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    clock.advance(1)
    failure_of(completing, NoSuchUpload)


def test_missing_upload_on_the_first_attempt_is_not_searched(client, agent):
    agent.answers = [refusal(404, "NoSuchUpload")]
    failure_of(client.complete_multipart_upload("a", "U", PARTS), NoSuchUpload)
    assert len(agent.requests) == 1


def test_completion_response_without_an_etag_on_ceph(client, agent):
    agent.answers = [completed(""), Response(200, {"content-length": "8", "etag": '"made-2"'})]
    assert result_of(client.complete_multipart_upload("a", "U", PARTS)) == "made-2"


def busy(count):
    return [refusal(500, "InternalError", "completion is in progress") for _ in range(count)]


def test_missing_upload_on_ceph(client, agent, clock):
    agent.answers = [*busy(5), refusal(404, "NoSuchKey"), Response(404)]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    for _ in range(4):
        clock.advance(2)
    failure_of(completing, NoSuchUpload)
    assert [request.method for request in agent.requests] == ["POST"] * 5 + ["GET", "HEAD"]


def test_internal_error_of_an_existing_upload(client, agent, clock):
    agent.answers = [*busy(5), parts_page(1, "")]
    completing = client.complete_multipart_upload("a", "U", PARTS)
    for _ in range(4):
        clock.advance(2)
    assert failure_of(completing, S3Error).value.code == "InternalError"


def parts_page(number, marker):
    more = f"<IsTruncated>true</IsTruncated><NextPartNumberMarker>{marker}</NextPartNumberMarker>"
    return xml(
        "ListPartsResult",
        f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;e{number}&quot;</ETag>"
        f"<Size>{number}0</Size><LastModified>1970-01-01T00:00:0{number}.500Z</LastModified></Part>"
        f"{more if marker else ''}",
    )


def test_list_parts(client, agent):
    agent.answers = [parts_page(1, "1"), parts_page(2, "")]
    parts = result_of(client.list_parts("a", "U"))
    assert parts == [Part(1, "e1", 10), Part(2, "e2", 20)]
    assert [part.modified for part in parts] == [1_500_000_000, 2_500_000_000]
    assert [asked(request)[2] for request in agent.requests] == [
        {"uploadId": "U"},
        {"uploadId": "U", "part-number-marker": "1"},
    ]


def test_repeated_page_of_parts_is_an_error(client, agent):
    agent.answers = [parts_page(1, "1"), parts_page(1, "1")]
    failure_of(client.list_parts("a", "U"), InvalidResponse)
