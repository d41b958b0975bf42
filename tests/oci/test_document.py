"""JSON documents: how stored ones are loaded, and which pushed ones are refused."""

from __future__ import annotations

import json

import pytest

from twisted_registry.oci.document import (
    MAX_BYTES_AT_ONCE,
    DocumentInvalid,
    DocumentLimits,
    check_keys,
    check_known_keys,
    fold_keys,
    load_object,
    load_pushed_object,
)

SMALL = DocumentLimits(depth=4, values=10)


def pushed(text, limits=SMALL):
    return load_pushed_object(text.encode(), limits)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"[1]", b"5", b"{", b"{}x", b'{"a": NaN}', b'{"a" 1}'),
        *(b"\xff{}", b'{"a": "\xff"}', b"\xef\xbb\xbf{}"),
    ],
)
def test_content_that_is_no_json_object_is_none(content):
    assert load_object(content) is None
    assert load_pushed_object(content, SMALL) is None


def test_an_object_may_begin_after_white_space():
    assert (
        pushed(' \t\r\n{"a": [1, "b"]}')
        == load_object(b' \t\r\n{"a": [1, "b"]}')
        == {"a": [1, "b"]}
    )


def test_the_last_of_duplicate_keys_is_loaded_and_the_push_is_refused():
    text = '{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}'
    assert load_object(text.encode()) == {"a": 3, "b": {"c": 2}}
    with pytest.raises(DocumentInvalid, match="same key twice"):
        pushed(text)


@pytest.mark.parametrize(
    "number", ["1.5", "1e400", "1" * 5000, "-" + "9" * 5000, "0." + "1" * 9999]
)
def test_a_number_that_no_field_may_have_is_not_read(number):
    assert pushed(f'{{"a": {number}}}') == load_object(f'{{"a": {number}}}'.encode()) == {"a": -1.0}


def test_integers_of_64_bits_are_read():
    assert pushed(f'{{"a": {2**63 - 1}, "b": -{2**63}}}') == {"a": 2**63 - 1, "b": -(2**63)}


def test_a_document_of_the_deepest_nesting_is_accepted():
    assert pushed('{"a": [{"b": []}]}') == {"a": [{"b": []}]}
    for text in (
        '{"a": [{"b": [[]]}]}',
        '{"a": [{"b": [{}]}], "c": 1}',
        '{"a": {"b": {"c": {"d": {}}}}}',
    ):
        with pytest.raises(DocumentInvalid, match="deeper than 4 levels"):
            pushed(text)


@pytest.mark.parametrize("text", ['{"a":' * 100_000, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_nesting_that_the_parser_cannot_follow_is_refused(text):
    with pytest.raises(DocumentInvalid, match="deeper than 32 levels"):
        pushed(text, DocumentLimits(values=10**6))
    assert load_object(text.encode()) is None


@pytest.mark.parametrize("item", ["1,", "[],", "{},", '"",', '"\\n",'])
def test_a_document_of_many_values_is_refused_before_it_is_parsed(item):
    text = '{"a": [' + item * 20
    with pytest.raises(DocumentInvalid, match="more than 10 values"):
        pushed(text)  # it is not even JSON
    assert pushed("[" + text) is None


def test_keys_that_differ_only_in_case_are_refused():
    for keys in (("a", "A"), ("K", "\u212a"), ("s", "\u017f"), ("stra\u00dfe", "STRASSE")):
        document = dict.fromkeys(keys, 1)
        for nested in (
            document,
            {"x": document},
            {"x": [[document]]},
            {"annotations": {"x": document}},
        ):
            with pytest.raises(DocumentInvalid, match="differ only in case"):
                check_keys(nested)
    check_keys({"a": {"A": 1}, "b": [{"a": 1}, {"A": 2}]})


def test_annotations_have_free_keys():
    check_keys(
        {"annotations": {"a": "1", "A": "2"}, "layers": [{"annotations": {"b": "", "B": ""}}]}
    )
    with pytest.raises(DocumentInvalid):
        check_keys({"annotations": {}, "Annotations": {}})


def test_a_key_that_is_a_known_one_but_for_its_case_is_refused():
    known = fold_keys("mediaType", "size", "os.version")
    check_known_keys({"mediaType": 1, "size": 1, "other": 1, "sizes": 1}, known, "here")
    for key in ("MediaType", "mediatype", "SIZE", "\u017fize", "OS.version"):
        with pytest.raises(DocumentInvalid, match="here: the key"):
            check_known_keys({key: 1}, known, "here")


def test_a_message_is_short():
    document = {"a" * 10**6: 1, "A" * 10**6: 1}
    with pytest.raises(DocumentInvalid) as caught:
        check_keys(json.loads(json.dumps(document)))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [0, MAX_BYTES_AT_ONCE])
@pytest.mark.parametrize("number", ["\u0661", "1.\u0661", "1e\u0661", "NaN", "01"])
def test_a_number_has_the_digits_of_json_at_any_length(number, length):
    filler = "x" * length
    assert load_object(f'{{"a": "{filler}", "b": {number}}}'.encode()) is None
    assert load_object(f'{{"a": "{filler}", "b": 1}}'.encode()) == {"a": filler, "b": 1}
