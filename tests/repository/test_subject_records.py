"""Records of subjects: what they contain, and damage."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import parse_manifest
from twisted_registry.repository.subject_records import (
    MAX_INLINE_BYTES,
    MAX_RECORD_BYTES,
    SubjectRecord,
    make_record,
)

TYPE = "application/vnd.example.thing.v1+json"
SUBJECT = Digest.of(b"subject")
FIELDS = {"subject": {"mediaType": TYPE, "digest": str(SUBJECT), "size": 7}}


def recorded(**fields):
    """Return the record and the descriptor of a manifest."""
    content = json.dumps({"mediaType": TYPE, **fields}).encode()
    manifest = parse_manifest(content, TYPE)
    return make_record(Digest.of(content), manifest, len(content), is_declared=True)


@given(
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.text(min_size=1),
    st.sampled_from([0, MAX_INLINE_BYTES]),
)
@example({"a": "\ud800"}, "\udfff", 0)
@example({"a": "\n"}, "a b\n", 0)
def test_record_is_read_as_it_was_written(annotations, artifact_type, padding):
    annotations = {**annotations, "padding": "x" * padding}
    record, descriptor = recorded(**FIELDS, annotations=annotations, artifactType=artifact_type)
    content = record.to_bytes()
    assert len(content) <= MAX_RECORD_BYTES
    found = SubjectRecord.from_bytes(record.manifest, content)
    assert found == record
    assert found.subject == SUBJECT
    assert found.has_artifact_type(artifact_type)
    assert not found.has_artifact_type(artifact_type + "x")
    assert found.is_inline is (len(descriptor) <= MAX_INLINE_BYTES)
    assert found.matches(descriptor)
    assert not found.matches(descriptor[:-1])
    document = json.loads(descriptor)
    assert (document["annotations"], document["artifactType"]) == (annotations, artifact_type)


def test_record_of_a_manifest_without_subject():
    record, descriptor = recorded(artifactType="x/y")
    found = SubjectRecord.from_bytes(record.manifest, record.to_bytes())
    assert (found.subject, found.is_inline, descriptor) == (None, True, b"")


@given(st.data())
def test_damaged_record_counts_as_missing(data):
    record, _ = recorded(**FIELDS)
    content = bytearray(record.to_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    found = SubjectRecord.from_bytes(record.manifest, bytes(content))
    # A digit of the checksum may have become the same digit in upper case.
    assert found in (None, record)
    assert SubjectRecord.from_bytes(record.manifest, bytes(content[:position])) is None


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x", b"00000000\n", b"\xff" * 99, b"0\n-\n"])
def test_other_content_is_no_record(content):
    assert SubjectRecord.from_bytes(Digest.of(b""), content) is None


def test_record_of_another_manifest_counts_as_missing():
    record, _ = recorded(**FIELDS)
    assert SubjectRecord.from_bytes(Digest.of(b"other"), record.to_bytes()) is None
