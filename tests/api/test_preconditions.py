"""Parsers of Accept, If-Match and If-None-Match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.api.preconditions import (
    AcceptedTypes,
    etag_matches,
    parse_entity_tags,
    parse_precondition,
)
from twisted_registry.oci.digest import Digest

ONE, TWO = (Digest.of(content) for content in (b"one", b"two"))
OCI = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], set()),
        ([""], set()),
        (['"a"'], {"a"}),
        (['W/"a"'], {"a"}),
        (['"a", "b"', '"c"'], {"a", "b", "c"}),
        (["sha256:abc"], {"sha256:abc"}),
        (['"a,b"'], {"a,b"}),
        (["*"], {"*"}),
    ],
)
def test_parse_entity_tags(headers, expected):
    assert parse_entity_tags(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        (['"a"'], True),
        (['W/"a"'], True),
        (["a"], True),
        (["*"], True),
        (['"b"', '"a"'], True),
        (['"b"'], False),
        ([""], False),
    ],
)
def test_if_none_match_matches_an_entity_tag(headers, expected):
    assert etag_matches(headers, "a") is expected


@given(st.lists(st.text(max_size=20), max_size=4))
def test_parse_entity_tags_accepts_any_text(headers):
    assert all(isinstance(tag, str) for tag in parse_entity_tags(headers))


def test_no_headers_are_no_precondition():
    assert parse_precondition([], []) is None


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "absent", "one", "two"),
    [
        (["*"], [], False, True, True),
        ([f'"{ONE}"'], [], False, True, False),
        ([f'"{ONE}", "{TWO}"'], [], False, True, True),
        (['"x"'], [], False, False, False),
        ([], ["*"], True, False, False),
        ([], [f'"{ONE}"'], True, False, True),
        ([f'"{ONE}"'], [f'"{TWO}"'], False, True, False),
    ],
)
def test_precondition_on_an_absent_tag_and_on_two_digests(
    if_match, if_none_match, absent, one, two
):
    precondition = parse_precondition(if_match, if_none_match)
    assert [precondition.is_met_by(current) for current in (None, ONE, TWO)] == [absent, one, two]


def test_an_empty_if_match_matches_no_digest():
    assert not parse_precondition([""], []).is_met_by(ONE)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], True),
        ([""], True),
        (["*/*"], True),
        (["application/*"], True),
        (["text/*"], False),
        ([OCI], True),
        ([OCI.upper()], True),
        (["text/plain", OCI], True),
        ([f"text/plain , {OCI};q=0.5"], True),
        (["application/json"], False),
        ([f"{OCI};q=0"], False),
        ([f"{OCI}; q=0.000"], False),
        ([f"{OCI};q=0.001"], True),
        ([f"{OCI};q=0, */*"], False),
        ([f"{OCI};version=1"], True),
        (["*/*;q=0"], False),
    ],
)
def test_accepted_types(headers, expected):
    assert (OCI in AcceptedTypes.parse(headers)) is expected


@given(st.lists(st.text(max_size=30), max_size=4))
def test_accepted_types_parse_any_text(headers):
    assert (OCI in AcceptedTypes.parse(headers)) in {True, False}
