"""The bodies of notifications."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from attrs import evolve

from tests.notifications.events import CONTENT, DIGEST, ORIGIN, SOURCE, pull_blob, push, record
from tests.support.manifests import OCI_IMAGE, OCI_INDEX, descriptor, digest_of, index
from twisted_registry.config.notifications import FORMATS
from twisted_registry.notifications.envelope import (
    BLOB_MEDIA_TYPE,
    MAX_REFERENCES,
    encode_record,
    make_record,
    sign,
)
from twisted_registry.repository.interfaces import Event, Origin

EXPECTED = {
    "id": "1",
    "timestamp": "2023-11-14T22:13:20.250000Z",
    "action": "push",
    "target": {
        "mediaType": OCI_IMAGE,
        "digest": str(DIGEST),
        "size": len(CONTENT),
        "length": len(CONTENT),
        "repository": "team/app",
        "url": f"https://reg.test/v2/team/app/manifests/{DIGEST}",
        "tag": "one",
    },
    "request": {
        "id": "request-1",
        "addr": "192.0.2.1",
        "host": "reg.test",
        "method": "PUT",
        "useragent": "client/1",
    },
    "actor": {"name": "alice"},
    "source": {"addr": "host:5000", "instanceID": "instance"},
}


def decode(one, form="distribution"):
    content_type, body = encode_record(one, form)
    return content_type, json.loads(body)


@pytest.mark.parametrize(("form", "version"), [("distribution", "v2"), ("distribution-v1", "v1")])
def test_the_envelope_of_distribution(form, version):
    content_type, document = decode(record(), form)
    assert content_type == f"application/vnd.docker.distribution.events.{version}+json"
    assert document == {"events": [EXPECTED]}


def test_a_cloud_event():
    content_type, document = decode(record(), "cloudevents")
    assert content_type == "application/cloudevents+json; charset=utf-8"
    assert document == {
        "specversion": "1.0",
        "id": "1",
        "source": "https://reg.test/v2/team/app",
        "type": "twisted-registry.manifest.push",
        "subject": "one",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "data": EXPECTED,
    }


def test_every_configurable_format_can_be_encoded():
    assert {json.loads(encode_record(record(), form)[1]) is None for form in FORMATS} == {False}


def test_a_deleted_tag():
    """Distribution 3 sends the fields of a descriptor even if they are empty, 2.8 does not."""
    deleted = record(event=Event("delete", "tag", "a", None, ORIGIN, tag="one"))
    empty = {"mediaType": "", "digest": "", "size": 0}
    target = {"repository": "a", "tag": "one"}
    assert decode(deleted)[1]["events"][0]["target"] == {**empty, **target}
    assert decode(deleted, "distribution-v1")[1]["events"][0]["target"] == target
    assert decode(deleted, "cloudevents")[1]["type"] == "twisted-registry.tag.delete"


def test_a_deleted_manifest_has_only_digest_and_repository():
    deleted = record(event=Event("delete", "manifest", "a", DIGEST, ORIGIN))
    target = decode(deleted, "distribution-v1")[1]["events"][0]["target"]
    assert target == {"digest": str(DIGEST), "repository": "a"}
    assert decode(deleted, "cloudevents")[1]["source"] == "https://reg.test/v2/a"


def test_a_blob_has_the_media_type_that_distribution_gives_it():
    target = decode(record(event=pull_blob()))[1]["events"][0]["target"]
    assert target["mediaType"] == BLOB_MEDIA_TYPE
    assert target["url"] == f"https://reg.test/v2/team/app/blobs/{DIGEST}"


def test_a_mount_names_its_source():
    event = Event("mount", "blob", "a", DIGEST, ORIGIN, size=1, source="b")
    assert decode(record(event=event))[1]["events"][0]["target"]["fromRepository"] == "b"


def test_an_event_without_a_request():
    one = record(event=evolve(push(), origin=Origin()))
    event = decode(one)[1]["events"][0]
    assert event["request"] == {"id": "", "method": "", "useragent": ""}
    assert event["actor"] == {}
    assert "url" not in event["target"]
    assert decode(one, "cloudevents")[1]["source"] == "/v2/team/app"


def references(event):
    made = make_record(event, "1", 0.0, SOURCE, with_references=True)
    return made["target"].get("references")


def test_references_of_an_image():
    found = references(push())
    digests = [digest_of(b"{}"), digest_of(b"layer")]
    assert [each["digest"] for each in found] == digests
    assert {*found[0]} == {"mediaType", "digest", "size"}
    assert "references" not in record()["target"]


def test_references_of_an_index_have_platforms_and_a_limit():
    one = {**descriptor(CONTENT, OCI_IMAGE), "platform": {"os": "linux", "architecture": "arm"}}
    content = index(*[one] * (MAX_REFERENCES + 1))
    found = references(push(content=content, media_type=OCI_INDEX))
    assert len(found) == MAX_REFERENCES
    assert found[0]["platform"] == {"os": "linux", "architecture": "arm"}


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"layers": 1}', b"[" * 100_000])
def test_a_document_that_cannot_be_read_has_no_references(content):
    assert references(push(content=content)) == []


def test_the_text_of_clients_stays_one_field():
    origin = evolve(ORIGIN, user_agent='a"\n\x00\u2028')
    _, body = encode_record(record(event=evolve(push(), origin=origin)), "distribution")
    assert b"\n" not in body
    assert json.loads(body)["events"][0]["request"]["useragent"] == 'a"\n\x00\u2028'


def test_the_signature_is_the_hmac_of_the_body():
    expected = hmac.new(b"hunter2", b"body", hashlib.sha256).hexdigest()
    assert sign(b"body", "hunter2") == f"sha256={expected}"
