from __future__ import annotations

import contextlib
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.storage.s3.xml import (
    XMLError,
    complete_request_xml,
    delete_request_xml,
    name_decoder,
    parse_xml,
)

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def test_elements_and_their_text():
    root = parse_xml(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<A xmlns="x" xmlns:y="y" y:type="z">'
        b"<B>one</B><C><D>&lt;two&gt; &#252;</D></C><y:B>\n three</y:B><E/></A>"
    )
    assert root.name == "A"
    assert [child.name for child in root] == ["B", "C", "B", "E"]
    assert [child.text() for child in root.all("B")] == ["one", "\n three"]
    assert root.text("B") == "one"
    assert root.text("C", "D") == "<two> ü"
    assert root.text("E") == root.text("F") == root.text("C", "F") == root.text("F", "D") == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no",
        b"<A>",
        b"<A/><B/>",
        b"<A>\xff</A>",
        b"<?xml version='1.0' encoding='none'?><A/>",
        b"<?xml version='1.0' encoding='utf-7'?><A/>",
        b"<!DOCTYPE A><A/>",
        b'<!DOCTYPE A [<!ENTITY e "e">]><A>&e;</A>',
        b'<!DOCTYPE A [<!ENTITY e SYSTEM "file:///etc/passwd">]><A>&e;</A>',
        b'<!DOCTYPE A SYSTEM "http://127.0.0.1:1/x.dtd"><A/>',
        b"<A>" * 17 + b"</A>" * 17,
    ],
)
def test_malformed_documents_are_refused(content):
    with pytest.raises(XMLError):
        parse_xml(content)


def test_maximum_depth():
    assert parse_xml(b"<A>" * 16 + b"</A>" * 16).name == "A"


@given(st.binary(max_size=200) | st.text(alphabet="<>/A&;!-'\" =?[]").map(str.encode))
def test_only_xml_errors_are_raised(content):
    with contextlib.suppress(XMLError):
        parse_xml(content)


@pytest.mark.parametrize(
    ("encoding", "name", "expected"),
    [
        ("<EncodingType>url</EncodingType>", "a%2Fb/c+d%2Be%C3%BC", "a/b/c d+eü"),
        ("", "a%2Fb/c+d", "a%2Fb/c+d"),
        ("<EncodingType/>", "a%2Fb", "a%2Fb"),
    ],
)
def test_names_are_decoded_if_the_store_encoded_them(encoding, name, expected):
    decoded = name_decoder(parse_xml(f"<ListBucketResult>{encoding}</ListBucketResult>".encode()))
    assert decoded(name) == expected


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]))


@given(st.lists(KEYS, max_size=5))
def test_delete_request(keys):
    root = ET.fromstring(delete_request_xml(keys))
    assert root.tag == f"{NAMESPACE}Delete"
    assert [each.text or "" for each in root.iter(f"{NAMESPACE}Key")] == keys
    assert root.findtext(f"{NAMESPACE}Quiet") == "true"


def test_complete_request():
    root = ET.fromstring(complete_request_xml([(1, "a&b"), (7, "c")]))
    assert root.tag == f"{NAMESPACE}CompleteMultipartUpload"
    assert [[each.text for each in part] for part in root] == [["1", '"a&b"'], ["7", '"c"']]
