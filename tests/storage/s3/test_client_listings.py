"""Listings of objects and of unfinished uploads."""

from __future__ import annotations

import pytest

from tests.storage.s3.fake_agent import ETAG, NOW, asked, result_of, xml
from twisted_registry.storage.s3.interfaces import MultipartUpload, ObjectInfo

CONTENTS = (
    "<Contents><Key>{}</Key><LastModified>2013-05-24T00:00:00.500Z</LastModified>"
    f"<ETag>&quot;{ETAG}&quot;</ETag><Size>7</Size></Contents>"
)


def test_list_objects(client, agent):
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


def test_list_objects_continues_with_a_token(client, agent):
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
def test_times_of_listed_objects(client, agent, time, expected):
    item = f"<Contents><Key>a</Key><Size>1</Size><LastModified>{time}</LastModified></Contents>"
    agent.answers = [xml("ListBucketResult", item)]
    (found,) = result_of(client.list_objects("")).objects
    assert found == ObjectInfo("a", 1, "", expected)


def test_listing_without_sizes_is_retried(client, agent, clock):
    agent.answers = [xml("ListBucketResult", "<Contents><Key>a</Key></Contents>")]
    agent.answers.append(xml("ListBucketResult"))
    listing = client.list_objects("")
    clock.advance(1)
    assert result_of(listing).objects == ()


def test_list_multipart_uploads(client, agent):
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
